"""Many array tasks of Slurm over one store, a tenth of them killed; then what is missing again.

Needs a Slurm that answers (`.ci/slurm start`). Prints one line per step and one of JSON: records
kept, changed or lost, runs done twice, and how long the last look at all records takes.

    python -m tests.perf.array_tasks --tasks 200 --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from panelbench.cluster import slurm
from panelbench.records.status import Status
from panelbench.records.store import Store
from tests.tools import write_h5ad


def call(folder: Path, *args: str) -> str:
    """Run the command line in a folder; what it prints."""
    environment = {**os.environ, "PANELBENCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "panelbench.cli", *args]
    found = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1, 3), found.stderr
    return found.stdout


def grid(tasks: int) -> list[str]:
    """Options of as many selections."""
    seeds = [part for seed in range(tasks) for part in ("--seed", str(seed))]
    return ["--data", "own.h5ad", "--label", "cell_type", "--k", "4", "--method", "random", *seeds]


def submit(folder: Path, tasks: int) -> str:
    """Send one task for each run that is missing; the id of their array."""
    needs = ("--need", "all.memory=1G", "--need", "all.time=10m", "--need", "all.usual=1s")
    found = json.loads(
        call(folder, "submit", *grid(tasks), "--evaluator", "rf", *needs, "--pack", "1s",
             "--output", "json")
    )  # fmt: skip
    ids = [job["id"] for job in found["jobs"] if "-select-" in job["name"]]
    # Selections only: evaluations are as many jobs again, and tell nothing more.
    rest = [job["id"] for job in found["jobs"] if "-select-" not in job["name"]]
    subprocess.run(["scancel", *(i for i in rest if i not in ids)], check=True)
    return ",".join(ids)


def kill(array: str, count: int, share: float, rng: random.Random) -> int:
    """Kill tasks of an array while they run, with all their processes, until it is over."""
    killed: set[str] = set()
    chosen: dict[str, float] = {}
    while True:
        tasks = slurm.waiting().get(array, {})
        if not tasks:
            return len(killed)
        for task, state in tasks.items():
            if state == "running" and task not in chosen:
                # At a moment within the time that a task takes.
                moment = time.monotonic() + rng.uniform(0.5, 15.0)
                chosen[task] = moment if len(killed) < count and rng.random() < share else 1e18
            if state == "running" and time.monotonic() > chosen[task] and task not in killed:
                target = f"{array}_{task}"
                subprocess.run(["scancel", "--full", "--signal=KILL", target], check=False)
                killed.add(task)
        time.sleep(0.5)


def main() -> None:
    """Submit, kill, look, submit again, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, share = random.Random(options.seed), options.kills / options.tasks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_h5ad(folder / "own.h5ad")
        # The folds of all seeds, so that no task waits for another to make them.
        call(folder, "preprocess", *grid(options.tasks))
        start = time.monotonic()
        killed = kill(submit(folder, options.tasks), options.kills, 1.5 * share, rng)
        kept = {path: path.read_bytes() for path in folder.glob("results/runs/*/*/*/*.json")}
        ends = Counter(str(record.status) for record in Store(folder / "results"))
        print(f"{options.tasks} tasks, {killed} killed, {time.monotonic() - start:.0f} s: "
              f"{dict(ends)}", flush=True)  # fmt: skip
        kill(submit(folder, options.tasks), 0, 0.0, rng)
        changed = sum(path.read_bytes() != text for path, text in kept.items())
        done = Counter(r.address for r in Store(folder / "results") if r.status is Status.OK)
        start = time.monotonic()
        call(folder, "list", "runs")
        outcome = {
            "tasks": options.tasks,
            "killed": killed,
            "records_kept": len(kept),
            "changed_or_lost": changed,
            "runs_done": len(done),
            "done_twice": sum(count > 1 for count in done.values()),
            "list_runs_seconds": round(time.monotonic() - start, 2),
        }
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
