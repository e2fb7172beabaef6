"""Milliseconds per step of PERSIST's selection, beside the textbook form of the same step.

    python tests/perf/persist_step.py
    python tests/perf/persist_step.py --k 32 --genes 500 --rounds 60 --device cuda

Both forms see the same random binary cells, network sizes (128, 128, 13) and losses. The textbook
form is autograd through uniform noise, two logarithms, softmax and maximum, and Adam as torch has
it by default. Steps of both alternate, so that whatever else the machine does meets both; the
temperatures are spread over the schedule from 10 to 0.01. Given are the median and the fastest, in
processor time on a CPU, on the clock on a GPU.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from panelbench.methods.persist.mask import BinaryMask
from panelbench.methods.persist.network import Network, cross_entropy, hurdle
from panelbench.methods.persist.noise import Noise

EPSILON = 1.1920929e-7


def ours(x: Any, truth: Any, loss: Any, k: int, n_outputs: int) -> Any:
    """Step of the suite's form."""
    mask = BinaryMask(k, x.shape[1], Noise(0, x.device))
    network = Network([x.shape[1], 128, 128, n_outputs], torch.Generator(), x.device)
    optimizer = torch.optim.Adam([mask.theta, *network.parameters()], lr=1e-3, fused=True)

    def step(rows: Any, temperature: float) -> None:
        output = network.forward(
            x.index_select(0, rows).float(), mask.sample(len(rows), temperature)
        )
        optimizer.zero_grad()
        loss(output, truth.index_select(0, rows)).backward()
        optimizer.step()

    return step


def textbook(x: Any, truth: Any, loss: Any, k: int, n_outputs: int) -> Any:
    """Step in the plainest form."""
    theta = torch.zeros(k, x.shape[1], device=x.device, requires_grad=True)
    widths = [x.shape[1], 128, 128, n_outputs]
    layers: list[Any] = []
    for i in range(3):
        layers += [torch.nn.Linear(widths[i], widths[i + 1]), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).to(x.device)
    optimizer = torch.optim.Adam([theta, *network.parameters()], lr=1e-3)

    def step(rows: Any, temperature: float) -> None:
        uniform = torch.rand(len(rows), *theta.shape, device=x.device).clamp(EPSILON, 1 - EPSILON)
        gumbel = -torch.log(-torch.log(uniform))
        mask = torch.softmax((3 * theta + gumbel) / temperature, dim=2).max(dim=1).values
        output = network(x[rows].float() * mask)
        optimizer.zero_grad()
        loss(output, truth[rows]).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, nargs="*", default=[32, 50])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Of the processor, where it does the work: other programs disturb that less.
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((4096, args.genes)) < 0.3).astype(np.uint8)).to(args.device)
    codes = torch.from_numpy(rng.integers(0, 13, 4096)).to(args.device)
    print("| loss | k | ours, ms | textbook, ms | ours, fastest | textbook, fastest | ratio |")
    print("|" + "---|" * 7)
    for name, truth, loss, n_outputs in (
        ("cross-entropy", codes, cross_entropy, 13),
        ("hurdle", x.float(), hurdle, 2 * args.genes),
    ):
        for k in args.k:
            steps = [form(x, truth, loss, k, n_outputs) for form in (ours, textbook)]
            seconds: list[list[float]] = [[], []]
            for fraction in np.linspace(0, 1, args.rounds):
                rows = torch.from_numpy(rng.permutation(4096)[: args.batch]).to(args.device)
                for step, times in zip(steps, seconds, strict=True):
                    start = clock()
                    step(rows, 10 * 1e-3**fraction)
                    if args.device != "cpu":
                        torch.cuda.synchronize()
                    times.append(1e3 * (clock() - start))
            (a, b), (c, d) = np.median(seconds, axis=1), np.min(seconds, axis=1)
            print(
                f"| {name} | {k} | {a:.1f} | {b:.1f} | {c:.1f} | {d:.1f} | {b / a:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
