"""A whole YOTO training at the size of VISp: seconds, GPU memory, and the share of the mask.

    python tests/perf/yoto_gpu.py                          # 1000 epochs, 10,000 genes, k = 64
    python tests/perf/yoto_gpu.py --device cpu --epochs 20

The cells are those of yoto_scale.py. The share of the mask is taken from a second, shorter
training that waits for the device around each call of it, so the two times do not mix.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from panelbench.methods import yoto
from panelbench.methods.yoto import mask
from yoto_scale import make_task


def wait(device: str) -> None:
    """Let a GPU finish what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(task: Any, epochs: int) -> float:
    """Seconds of a training."""
    start = time.perf_counter()
    yoto.select(task, yoto.Params(epochs=epochs))
    wait(task.device)
    return time.perf_counter() - start


def share_of_mask(task: Any, epochs: int) -> float:
    """Share of a training spent in the mask and its gradient."""
    spent = 0.0
    for name in ("__init__", "gradient"):
        plain = getattr(mask.TopK, name)

        def timed(self: Any, *args: Any, plain: Any = plain) -> Any:
            nonlocal spent
            wait(task.device)
            start = time.perf_counter()
            result = plain(self, *args)
            wait(task.device)
            spent += time.perf_counter() - start
            return result

        setattr(mask.TopK, name, timed)
    total = seconds(task, epochs)
    return spent / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    task = make_task(args.genes, args.k, args.device)
    seconds(task, 1)  # warm up
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    took = seconds(task, args.epochs)
    print(f"{args.epochs} epochs, {args.genes} genes, k = {args.k}, {args.device}: {took:.0f} s")
    if args.device.startswith("cuda"):
        print(f"GPU memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
    print(f"share of the mask: {share_of_mask(task, max(1, args.epochs // 50)):.0%}")


if __name__ == "__main__":
    main()
