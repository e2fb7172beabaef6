"""Seconds and memory of one training, presets in turn, at three sizes.

    python tests/perf/yoto_cost.py --rounds 1
    python tests/perf/yoto_cost.py --sizes 700x765x8 2700x3500x19

Synthetic cells, k = 32. Every training runs in a process of its own and the presets alternate, so
that a busy machine slows all of them alike; seconds are those of the processor, memory is the
peak less what the process held before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import numpy as np

SIZES = ("700x765x8", "2700x3500x19", "7000x500x15")


def measure(size: str, params: dict[str, Any], queue: Any) -> None:
    """Train once; seconds, MB before and at the peak."""
    import torch
    from panelbench.methods import yoto

    from panelbench.data import synthetic
    from panelbench.method import Target, Task, frozen_mapping

    torch.set_num_threads(1)
    n_cells, n_genes, n_classes = map(int, size.split("x"))
    cells = synthetic.make(cells=n_cells, genes=n_genes, types=(n_classes,), seed=0)
    codes = cells.obs["type_a"].cat.codes.to_numpy().astype(np.int64)
    target = Target("type", "classification", codes, tuple(map(str, range(n_classes))))
    task = Task(
        X=np.log1p(cells.X.toarray()).astype(np.float32),
        genes=np.asarray(cells.var_names, dtype=str),
        targets=frozen_mapping({"type": target}),
        k=32,
        seed=0,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yoto.select(task, yoto.Params(**params | {"epochs": 1}))  # imports and compiles
    start = time.process_time()
    yoto.select(task, yoto.Params(**params))
    seconds = time.process_time() - start
    queue.put((seconds, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="cells x genes x classes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1000, help="of joint")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    presets: dict[str, dict[str, Any]] = {
        "default": {},
        f"joint, {args.epochs} epochs": {"preset": "joint", "epochs": args.epochs},
    }
    print("| cells x genes x classes | preset | CPU s | peak MB | of these before |")
    print("|" + "---|" * 5)
    for size in args.sizes:
        for _ in range(args.rounds):
            for name, params in presets.items():
                queue = context.Queue()
                child = context.Process(target=measure, args=(size, params, queue))
                child.start()
                seconds, before, peak = queue.get()
                child.join()
                print(
                    f"| {size} | {name} | {seconds:.1f} | {peak:.0f} | {before:.0f} |", flush=True
                )


if __name__ == "__main__":
    main()
