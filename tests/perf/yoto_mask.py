"""The soft mask of YOTO against the textbook form: error, gradient error, time and memory.

    python tests/perf/yoto_mask.py            # bars at d = 10,000, a few minutes on one core
    python tests/perf/yoto_mask.py --genes 2000

The reference is the first k rows of the NeuralSort matrix in float64, gradients by autograd; the
textbook form is the same in float32, with the d x d differences as the paper writes them. It is
timed in the same run on the same single thread; so is a dense form of k rows with sorted sums
(k x d). Memory is what the process holds more at its peak, in a child process per case.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from panelbench.methods.yoto.mask import TopK


def dense(scores: torch.Tensor, k: int, tau: float, rows: int = 250) -> torch.Tensor:
    """The first k rows of NeuralSort, summed; built in slabs of rows so that d = 10,000 fits."""
    d = len(scores)
    spread = torch.cat(
        [(scores[i : i + rows, None] - scores[None, :]).abs().sum(1) for i in range(0, d, rows)]
    )
    total = torch.zeros_like(scores)
    for first in range(1, k + 1, rows):
        m = torch.arange(first, min(first + rows, k + 1), dtype=scores.dtype)
        logits = ((d + 1 - 2 * m)[:, None] * scores[None, :] - spread[None, :]) / tau
        total = total + torch.softmax(logits, dim=1).sum(dim=0)
    return total


def reference_gradient(
    scores: torch.Tensor, k: int, tau: float, upstream: torch.Tensor, rows: int = 250
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 value and gradient of the dense form, one slab in memory at a time."""
    d, z = len(scores), scores.double()
    sign = torch.zeros(d, dtype=torch.float64)
    spread = torch.zeros(d, dtype=torch.float64)
    value, by_logit, slope = torch.zeros_like(z), torch.zeros_like(z), torch.zeros_like(z)
    for i in range(0, d, rows):
        spread[i : i + rows] = (z[i : i + rows, None] - z[None, :]).abs().sum(1)
    for first in range(1, k + 1, rows):
        m = torch.arange(first, min(first + rows, k + 1), dtype=torch.float64)
        p = torch.softmax(((d + 1 - 2 * m)[:, None] * z[None] - spread[None]) / tau, dim=1)
        value += p.sum(0)
        inner = p * (upstream[None] - (p @ upstream)[:, None]) / tau
        by_logit += inner.sum(0)
        slope += ((d + 1 - 2 * m)[:, None] * inner).sum(0)
    # spread_j = sum_l |z_j - z_l|: each pair moves both ends.
    gradient = slope.clone()
    for i in range(0, d, rows):
        sign = (z[i : i + rows, None] - z[None, :]).sign()
        gradient[i : i + rows] -= by_logit[i : i + rows] * sign.sum(1) + sign @ by_logit
    return value, gradient


def draw(d: int, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores as in training (distinct in float32) and an upstream gradient."""
    rng = np.random.default_rng(d)
    scores = (0.01 * rng.standard_normal(d) + beta * rng.gumbel(size=d)).astype(np.float32)
    order = np.argsort(scores)
    for low, high in pairwise(order):
        if scores[high] <= scores[low]:
            scores[high] = np.nextafter(scores[low], np.float32(np.inf))
    return torch.from_numpy(scores), torch.from_numpy(rng.standard_normal(d))


def rows_only(scores: torch.Tensor, k: int, tau: float, upstream: torch.Tensor) -> None:
    """A better dense form in float32: k x d, the sums of differences from sorted scores."""
    leaf = scores.clone().requires_grad_()
    d = len(scores)
    values, order = leaf.sort()
    ranks = torch.arange(d, dtype=scores.dtype)
    below = values.cumsum(0)
    spread = values * (2 * ranks + 2 - d) + below[-1] - 2 * below
    slope = d + 1 - 2 * torch.arange(1, k + 1, dtype=scores.dtype)
    logits = (slope[:, None] * values[None, :] - spread[None, :]) / tau
    torch.softmax(logits, dim=1).sum(dim=0).backward(upstream.float()[order])


def windowed(scores: torch.Tensor, k: int, tau: float, upstream: torch.Tensor) -> None:
    top = TopK(scores, k, tau)
    top.soft()
    top.gradient(upstream[top.order[: top.reach]])


def textbook(scores: torch.Tensor, k: int, tau: float, upstream: torch.Tensor) -> None:
    leaf = scores.clone().requires_grad_()
    dense(leaf, k, tau, rows=len(scores)).backward(upstream.float())


def seconds(function: Callable[..., None], *args: object, repeats: int = 3) -> float:
    """Best of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return min(times)


def _peak(name: str, d: int, beta: float, k: int, tau: float, queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    scores, upstream = draw(d, beta)
    windowed(scores[:100], 10, tau, upstream[:100])  # what the libraries themselves take
    before = high_water()
    {"windowed": windowed, "textbook": textbook}[name](scores, k, tau, upstream)
    queue.put(high_water() - before)


def high_water() -> float:
    """Peak resident memory of this process in MB (the parent's would be in getrusage)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def megabytes(name: str, d: int, beta: float, k: int, tau: float) -> float:
    """Growth of the peak resident memory in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(name, d, beta, k, tau, queue))
    process.start()
    result = float(queue.get())
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--k", type=int, nargs="+", help="default: 1 to all genes")
    parser.add_argument("--quick", action="store_true", help="errors only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    d, beta = args.genes, args.beta
    scores, upstream = draw(d, beta)
    print(f"d = {d}, beta = {beta}, one thread\n")
    print(
        "| k | tau | reach | mask error | textbook float32 | gradient error | textbook float32 ",
        end="",
    )
    print("| ms | textbook ms | ratio | k x d ms | ratio | MB | textbook MB |")
    print("|" + "---|" * 14)
    for k in args.k or sorted({1, 16, 64, 256, d // 10, d}):
        for tau in (0.01, 0.1, 1.0, 10.0):
            value, gradient = reference_gradient(scores, k, tau, upstream)
            top = TopK(scores, k, tau)
            ours = top.gradient(upstream[top.order[: top.reach]])
            leaf = scores.clone().requires_grad_()
            plain = dense(leaf, k, tau)
            plain.backward(upstream.float())
            # A saturated mask has no gradient left: below 1e-6 of the upstream it counts as none.
            scale = gradient.norm() + 1e-6 * upstream.norm()
            errors = (
                (top.soft() - value).abs().max(),
                (plain.detach() - value).abs().max(),
                (ours - gradient).norm() / scale,
                (leaf.grad - gradient).norm() / scale,
            )
            cells = [f"{k}", f"{tau:g}", f"{top.reach}", *(f"{error:.1e}" for error in errors)]
            if not args.quick and k in (64, d) and tau < 10:
                fast = seconds(windowed, scores, k, tau, upstream, repeats=20)
                slow = seconds(textbook, scores, k, tau, upstream, repeats=2)
                rows = seconds(rows_only, scores, k, tau, upstream, repeats=3)
                cells += [f"{1e3 * fast:.2f}", f"{1e3 * slow:.0f}", f"1/{slow / fast:.0f}"]
                cells += [f"{1e3 * rows:.1f}", f"1/{rows / fast:.0f}"]
                cells += [f"{megabytes(n, d, beta, k, tau):.0f}" for n in ("windowed", "textbook")]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
