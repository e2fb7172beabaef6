"""What supervision costs: many tiny runs, and the time that is not spent in method or evaluator.

A run is one selection by ``random`` and its evaluation at five ks. Prints one line of JSON.

    python tests/perf/overhead.py --runs 500 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from panelbench.api import perform
from panelbench.records.store import Store
from panelbench.running.settings import Settings
from panelbench.suite.request import Request


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--evaluator", default="knn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "r", Path(folder) / "c", jobs=options.jobs, quiet=True)
        base = {"method": ["random"], "task": ["bulk_labels"], "k": [4, 8, 16, 32, 64]}
        base["evaluator"] = [options.evaluator]
        request = Request(**base, seed=range(options.runs))
        perform(request, settings, ("preprocess",))
        start = time.perf_counter()
        done = perform(request, settings, ("select", "evaluate"))
        wall = time.perf_counter() - start
        records = list(Store(settings.results))
        inside = sum(record.cost["seconds"] for record in records)
        start = time.perf_counter()
        perform(request, settings, ("select", "evaluate"))
        again = time.perf_counter() - start
    print(
        json.dumps(
            {
                "runs": options.runs,
                "jobs": options.jobs,
                "records": len(records),
                "ok": sum(record.status == "ok" for record in records),
                "exit_code": done.exit_code,
                "wall_s": round(wall, 1),
                "inside_method_and_evaluator_s": round(inside, 1),
                "overhead_per_run_s": round((wall * options.jobs - inside) / options.runs, 3),
                "asked_again_s": round(again, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
