"""PERSIST at the size of VISp: seconds per elimination epoch and selection step, and memory.

    python tests/perf/persist_scale.py
    python tests/perf/persist_scale.py --genes 10000 --k 32 --unsupervised

13,349 synthetic cells in 90 classes, binarised, about a fifth of the entries 1, CSR; without
labels the target is dense. A few steps of each stage are timed through the method's own loop,
the selection on 500 candidates and, with --all, on every gene. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np

N_CELLS, N_CLASSES = 13_349, 90


def make_task(n_genes: int, k: int, device: str, *, supervised: bool) -> Any:
    """Binary CSR matrix in which every class switches 40 genes on."""
    from scipy import sparse

    from panelbench.method import Target, Task, frozen_mapping

    rng = np.random.default_rng(0)
    codes = np.r_[np.arange(N_CLASSES), rng.integers(N_CLASSES, size=N_CELLS - N_CLASSES)]
    on = np.tile(rng.beta(0.5, 2.0, n_genes).astype(np.float32), (N_CLASSES, 1))
    for kind in range(N_CLASSES):
        on[kind, rng.choice(n_genes, 40, replace=False)] = 0.8
    blocks = []
    for start in range(0, N_CELLS, 1000):
        part = on[codes[start : start + 1000]]
        drawn = rng.random(part.shape, np.float32) < part
        blocks.append(sparse.csr_matrix(drawn, dtype=np.float32))
    target = Target("type", "classification", codes, tuple(map(str, range(N_CLASSES))))
    return Task(
        X=sparse.vstack(blocks, format="csr"),
        genes=np.array([f"g{i}" for i in range(n_genes)]),
        targets=frozen_mapping({"type": target} if supervised else {}),
        k=k,
        seed=0,
        device=device,
    )


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--unsupervised", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    import torch
    from panelbench.methods.persist.data import load
    from panelbench.methods.persist.gates import BinaryGates
    from panelbench.methods.persist.mask import BinaryMask
    from panelbench.methods.persist.network import cross_entropy, hurdle
    from panelbench.methods.persist.stages import Problem
    from panelbench.methods.persist.training import Settings, train

    torch.set_num_threads(1)
    supervised = not args.unsupervised
    task = make_task(args.genes, args.k, args.device, supervised=supervised)
    print(f"data {gigabytes():.2f} GB", flush=True)
    cells = load(task, supervised=supervised, validate=False)
    print(f"on the device {gigabytes():.2f} GB", flush=True)
    problem = Problem(
        task,
        cells,
        cross_entropy if supervised else hurdle,
        N_CLASSES if supervised else 2 * args.genes,
        (128, 128),
        np.arange(0),
    )
    everything = np.arange(args.genes)
    stages: list[tuple[str, Any, np.ndarray]] = [
        ("elimination", BinaryGates(args.genes, problem.noise("gates")), everything),
        ("selection of 500", BinaryMask(args.k, 500, problem.noise("mask")), everything[:500]),
    ]
    if args.all:
        mask = BinaryMask(args.k, args.genes, problem.noise("mask"))
        stages.append(("selection of all", mask, everything))
    few = np.arange(64 * args.steps)
    for name, layer, genes in stages:
        network = problem.network(len(genes), problem.weights(name))
        part = cells.of_genes(genes)
        part = type(part)(part.inputs, part.truth, few, part.held_out)
        start, begun = time.perf_counter(), time.process_time()
        history = train(
            layer, network, part, problem.loss, Settings(1, 64, 1e-3, 10.0, 0.01),
            np.random.default_rng(0), penalty=1e-4 if isinstance(layer, BinaryGates) else 0.0,
            progress=lambda fraction, text: None,
        )  # fmt: skip
        seconds = (time.perf_counter() - start) / history.steps
        busy = (time.process_time() - begun) / history.steps
        print(
            f"{name}: {1e3 * seconds:.1f} ms per step ({1e3 * busy:.1f} of the processor), "
            f"{N_CELLS // 64 * busy:.1f} s of it per epoch, peak {gigabytes():.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
