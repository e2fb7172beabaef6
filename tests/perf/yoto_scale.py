"""One epoch of `joint` at the size of VISp: seconds and peak memory, by genes and by k.

    python tests/perf/yoto_scale.py --genes 10000 --k 64
    python tests/perf/yoto_scale.py                        # the whole table

The cells are synthetic: 13,349 cells in 23 / 46 / 90 nested classes (the class counts of VISp
after dropping classes under 10 cells), binarised, about a fifth of the entries 1, CSR. The cost of
an epoch falls as the panel shrinks, so three are timed: the first of a 1000-epoch training (all
genes), one halfway down the annealing, and one after it (k genes). The estimate for 1000 epochs
integrates the panel schedule over 7 such points. Each row runs in a process of its own; memory is
the peak of that process, and what it held before training.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import numpy as np

N_CELLS, N_CLASSES = 13_349, (23, 46, 90)


def make_task(n_genes: int, k: int, device: str = "cpu") -> Any:
    """Binary CSR matrix in which every class switches 40 genes on, and three nested labels."""
    from scipy import sparse

    from panelbench.method import Target, Task, frozen_mapping

    rng = np.random.default_rng(0)
    fine = np.r_[np.arange(90), rng.integers(90, size=N_CELLS - 90)]
    parents = {23: np.arange(90) % 23, 46: np.arange(90) % 46, 90: np.arange(90)}
    base = rng.beta(0.5, 2.0, n_genes).astype(np.float32)
    on = np.tile(base, (90, 1))
    for cell_type in range(90):
        on[cell_type, rng.choice(n_genes, 40, replace=False)] = 0.8
    blocks = []
    for start in range(0, N_CELLS, 1000):
        part = on[fine[start : start + 1000]]
        drawn = rng.random(part.shape, np.float32) < part
        blocks.append(sparse.csr_matrix(drawn, dtype=np.float32))
    targets = {
        f"types_{n}": Target(
            f"types_{n}", "classification", parents[n][fine].astype(np.int64),
            tuple(map(str, range(n))),
        )
        for n in N_CLASSES
    }  # fmt: skip
    return Task(
        X=sparse.vstack(blocks, format="csr"),
        genes=np.array([f"g{i}" for i in range(n_genes)]),
        targets=frozen_mapping(targets),
        k=k,
        seed=0,
        device=device,
    )


def measure(n_genes: int, k: int, points: int, steps: int, queue: Any) -> None:
    """Seconds per step at `points` fractions of the annealing and after it, on the CPU."""
    import torch
    from panelbench.methods import yoto
    from panelbench.methods.yoto import mask
    from panelbench.methods.yoto.training import Trainer, panel_size, temperature

    torch.set_num_threads(1)
    task = make_task(n_genes, k)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    settings = yoto.settings(yoto.Params(preset="joint"))
    trainer = Trainer(task, settings)
    in_mask = [0.0]

    def timed(function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            in_mask[0] += time.perf_counter() - start
            return result

        return wrapper

    mask.TopK.__init__ = timed(mask.TopK.__init__)  # type: ignore[method-assign]
    mask.TopK.gradient = timed(mask.TopK.gradient)  # type: ignore[method-assign]
    fractions = [*np.linspace(0, settings.anneal, points - 1), 0.8]
    seconds, share = [], []
    rng = np.random.default_rng(1)
    batch_size = round(trainer.cells.n_cells / round(trainer.cells.n_cells / settings.batch_size))
    for fraction in fractions:
        size = panel_size(fraction, trainer.n_genes, k, settings.anneal)
        tau = temperature(fraction, settings.tau_start, settings.tau_end)
        batches = [rng.choice(trainer.cells.n_cells, batch_size, False) for _ in range(steps + 1)]
        trainer.step(batches[0], size, tau)
        in_mask[0], start = 0.0, time.perf_counter()
        for batch in batches[1:]:
            trainer.step(batch, size, tau)
        seconds.append((time.perf_counter() - start) / steps)
        share.append(in_mask[0] / steps)
    per_epoch = round(trainer.cells.n_cells / settings.batch_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    mean = np.trapezoid(seconds[:-1], fractions[:-1])
    mean += (1 - settings.anneal) * seconds[-1]
    masks = np.trapezoid(share[:-1], fractions[:-1]) + (1 - settings.anneal) * share[-1]
    first, middle, last = (per_epoch * seconds[i] for i in (0, (points - 1) // 2, -1))
    row = {"first": first, "middle": middle, "last": last, "mean": per_epoch * mean}
    queue.put(row | {"mask": masks / mean, "before": before, "peak": peak})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, nargs="*", default=[2000, 5000, 10_000, 20_000])
    parser.add_argument("--k", type=int, nargs="*", default=[64])
    parser.add_argument("--points", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    print("| genes | k | first epoch, s | middle, s | last, s | mean, s ", end="")
    print("| 1000 epochs, min | mask | data, GB | peak, GB |")
    print("|" + "---|" * 10)
    context = multiprocessing.get_context("spawn")
    for n_genes in args.genes:
        for k in args.k:
            queue = context.Queue()
            child = context.Process(
                target=measure, args=(n_genes, k, args.points, args.steps, queue)
            )
            child.start()
            r = queue.get()
            child.join()
            print(
                f"| {n_genes} | {k} | {r['first']:.1f} | {r['middle']:.1f} "
                f"| {r['last']:.2f} | {r['mean']:.2f} | {1000 * r['mean'] / 60:.0f} "
                f"| {r['mask']:.0%} | {r['before']:.2f} | {r['peak']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
