"""Kill the demo with its whole process tree at random moments, finish it, compare the tables.

Prints one line per kill and one of JSON: records kept, records changed or lost, and whether the
final tables are byte for byte those of an undisturbed run.

    python tests/perf/kills.py --kills 10
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def run(folder: Path, wait: float | None = None) -> int | None:
    """Run the demo in a folder; after `wait` seconds kill every process of it."""
    command = [sys.executable, "-m", "panelbench.cli", "run", "--suite", "demo"]
    environment = {**os.environ, "PANELBENCH_CACHE": str(folder / "cache")}
    with (folder / "log").open("a") as log:
        front = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            return front.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            tree = [psutil.Process(front.pid), *psutil.Process(front.pid).children(recursive=True)]
            for process in tree:
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
            front.wait()
            return None


def tables(folder: Path) -> dict[str, bytes]:
    """Bytes of the final tables."""
    found = sorted((folder / "results/reports/demo/tables").iterdir())
    return {path.name: path.read_bytes() for path in found}


def records(folder: Path) -> dict[str, bytes]:
    """Bytes of all records."""
    return {str(path): path.read_bytes() for path in folder.glob("results/runs/*/*/*/*.json")}


def main() -> None:
    """Kill, finish, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    outcome = {"kills": 0, "same_tables": 0, "changed_or_lost": 0, "done_twice": 0}
    with tempfile.TemporaryDirectory() as name:
        calm = Path(name) / "calm"
        calm.mkdir()
        start = time.monotonic()
        assert run(calm) == 0
        whole = time.monotonic() - start
        print(f"undisturbed: {whole:.0f} s, {len(records(calm))} records", flush=True)
        expected = tables(calm)
        for index in range(options.kills):
            folder = Path(name) / str(index)
            folder.mkdir()
            moment = rng.uniform(1.0, 0.95 * whole)
            killed = run(folder, moment) is None
            kept = records(folder)
            code = run(folder)
            after = records(folder)
            same = tables(folder) == expected
            ok = [Path(path).parent.name for path in after]
            lost = sum(after.get(path) != text for path, text in kept.items())
            outcome["kills"] += killed
            outcome["same_tables"] += same
            outcome["changed_or_lost"] += lost
            outcome["done_twice"] += len(ok) - len(set(ok))
            print(
                f"killed after {moment:.1f} s: {len(kept)} records kept, {lost} changed or lost; "
                f"then exit code {code}, {len(after)} records, same tables: {same}",
                flush=True,
            )
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
