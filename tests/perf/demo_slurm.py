"""The whole demo suite on a real Slurm, by ``submit`` and by the array script: the same tables?

Needs a Slurm that answers (`.ci/slurm start`). Prints one line of JSON for each of the two: how
many tables there are and which differ from those of a local run, byte for byte.

    python -m tests.perf.demo_slurm
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from panelbench.records.status import Status
from panelbench.records.store import Store

ARRAY = Path(__file__).parents[2] / "examples" / "slurm" / "array.sh"
DEMO = ("--suite", "demo")


def call(folder: Path, *command: str) -> None:
    """Run a command in a folder, where jobs find the command line too."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert found.returncode == 0, f"{command}\n{found.stdout}\n{found.stderr}"


def panelbench(folder: Path, stage: str, where: str, *more: str) -> None:
    """Run a stage of the demo, with results and a cache of their own."""
    call(folder, sys.executable, "-m", "panelbench.cli", stage, *DEMO, *places(where), *more)


def places(where: str) -> tuple[str, ...]:
    """Options for results and cache of that name."""
    return "--results", where, "--cache", f"{where}-cache"


def by_submit(folder: Path, where: str) -> None:
    """As jobs that ``submit`` sends."""
    needs = ("--need", "all.memory=2G", "--need", "all.usual=5s")
    panelbench(folder, "submit", where, *needs, "--wait")


def by_array(folder: Path, where: str) -> None:
    """As an array of two tasks, each with half of the work."""
    small = ("--array=0-1", "--mem=2G", "--cpus-per-task=1", "--time=120")
    call(folder, "sbatch", "--wait", *small, str(ARRAY), *DEMO, *places(where))
    panelbench(folder, "report", where)


def tables(folder: Path) -> dict[str, bytes]:
    """Tables of a report, by name."""
    found = (folder / "reports" / "demo" / "tables").iterdir()
    return {path.name: path.read_bytes() for path in found}


def main() -> None:
    """Run locally and both ways, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        panelbench(folder, "run", "local")
        expected = tables(folder / "local")
        for way in (by_submit, by_array):
            start = time.monotonic()
            way(folder, way.__name__)
            records = list(Store(folder / way.__name__))
            found = tables(folder / way.__name__)
            differ = [t for t in {*found, *expected} if found.get(t) != expected.get(t)]
            outcome = {
                "way": way.__name__,
                "records": len(records),
                "ok": sum(record.status is Status.OK for record in records),
                "jobs": len({record.environment.get("job") for record in records}),
                "tables": len(found),
                "differ": sorted(differ),
                "seconds": round(time.monotonic() - start, 1),
            }
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
