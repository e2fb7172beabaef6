"""Auxiliary gene learning on planted data: learned cut and test correlation of every strategy.

    python tests/perf/agl_planted_quality.py --seeds 0 1 --kinds nuisance noise

The first 100 of 400 auxiliary genes follow what the primary genes follow (`tests/agl_planted.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from panelbench.methods import agl

sys.path.append(str(Path(__file__).parents[1]))
from agl_planted import generators, planted

COMMON: dict[str, Any] = {"hidden": (64, 8), "tau": 0.02, "warmup": 30, "epochs": 90}
STAGED: dict[str, Any] = {"schedule": "paper", "epochs": 300, "patience": 10}
RUNS: dict[str, dict[str, Any]] = {
    "none": {"strategy": "none"},
    "all": {"strategy": "all"},
    "first 25": {"strategy": "hvg", "n_auxiliary": 25},
    "first 50": {"strategy": "hvg", "n_auxiliary": 50},
    "first 100": {"strategy": "hvg", "n_auxiliary": 100},
    "first 200": {"strategy": "hvg", "n_auxiliary": 200},
    "random 100": {"strategy": "random", "n_auxiliary": 100},
    "uncertainty": {"strategy": "uncertainty"},
    "amal": {"strategy": "amal"},
    "agl": {},
    "agl, warm-up 15": {"warmup": 15},
    "agl, from 32 genes": {"start": 0.08},
    "agl, half of validation": {"split_validation": True},
    "agl, faithful": {"hyper": "faithful"},
    "agl, schedule paper": STAGED,
    "agl, schedule paper, faithful": STAGED | {"hyper": "faithful"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--kinds", nargs="*", default=["nuisance", "noise"])
    parser.add_argument("--runs", nargs="*", default=[*RUNS])
    args = parser.parse_args()
    print("| data | seed | run | test correlation | k kept | k last | epochs | processor s |")
    print("|" + "---|" * 8)
    for kind in args.kinds:
        for seed in args.seeds:
            data = planted(kind, seed)
            for name in args.runs:
                start = time.process_time()
                params = agl.Params(**COMMON | {"patience": 90} | RUNS[name])
                fitted = agl.fit(data.problem, params, generators(seed))
                print(
                    f"| {kind} | {seed} | {name} | {data.test_correlation(fitted):.3f} "
                    f"| {fitted.k} | {fitted.last_k} | {len(fitted.trace)} "
                    f"| {time.process_time() - start:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
