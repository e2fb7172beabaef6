"""Cost of auxiliary gene learning at 20,000 outputs, beside the same steps written by the book.

    python tests/perf/agl_cost.py                # seconds, forms taking turns, medians
    python tests/perf/agl_cost.py --memory       # peak memory of each, in a process of its own

One training step (128 cells), one epoch (3,000 cells), and one derivative of the validation loss by
the cut (64 cells each), with an MLP of 512 inputs, 512 and 256 units and 20,050 outputs. By the
book: autograd through the prediction of all genes, `torch.optim.Adam`; the derivative backwards
through 12 recorded steps of a differentiable Adam (the published way), and for one step of plain
descent the same with it. Times are seconds by the clock and processor seconds of the process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from panelbench.methods.agl.cells import Cells, shuffled
from panelbench.methods.agl.hyper import alignments, normalised, unrolled
from panelbench.methods.agl.mask import mask_slope, soft_mask
from panelbench.methods.agl.network import Network
from torch.func import functional_call

N_PRIMARY, N_AUXILIARY, N_FEATURES, HIDDEN = 50, 20_000, 512, (512, 256)
N_TRAIN, N_VALIDATION, CUT, TAU = 3_000, 1_000, 0.5, 0.01


class Book(torch.nn.Module):
    """The network as one would write it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for n_in, n_out in zip((N_FEATURES, *HIDDEN), HIDDEN, strict=False):
            layers += [torch.nn.Linear(n_in, n_out), torch.nn.LayerNorm(n_out), torch.nn.ReLU()]
        self.trunk = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(HIDDEN[-1], N_PRIMARY + N_AUXILIARY)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x))


def book_losses(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One minus the correlation of each column."""
    p, y = predictions - predictions.mean(0), targets - targets.mean(0)
    return 1 - (p * y).sum(0) / (p.norm(dim=0) * y.norm(dim=0) + 1e-8)


class Setting:
    """Data and both networks."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        n = N_TRAIN + N_VALIDATION
        self.rng = rng
        self.inputs = torch.from_numpy(rng.normal(size=(n, N_FEATURES)).astype(np.float32))
        values = rng.random((N_PRIMARY + N_AUXILIARY, n), dtype=np.float32)
        rows = np.arange(n)
        self.cells = Cells(
            self.inputs, torch.from_numpy(values), None, None, rows[:N_TRAIN], rows[N_TRAIN:],
            rows[N_TRAIN:],
        )  # fmt: skip
        self.outputs = self.cells.targets.T.contiguous()
        self.network = Network((N_FEATURES, *HIDDEN), N_PRIMARY, N_AUXILIARY, rng)
        self.book = Book()
        self.optimizer = torch.optim.Adam(self.book.parameters(), lr=1e-3)

    def weights(self, slope: bool = False) -> torch.Tensor:
        """Weights of all genes at the cut, or their derivatives."""
        mask = soft_mask(CUT, N_AUXILIARY, TAU)
        part = mask_slope(mask, TAU) if slope else mask
        first = np.full(N_PRIMARY, 0.0 if slope else 1.0)
        return torch.from_numpy(np.concatenate([first, part])).float()

    def active(self) -> int:
        """Genes whose weight counts."""
        return int((self.weights() > 1e-6).sum())

    def rows(self, size: int, validation: bool = False) -> np.ndarray:
        """Random cells."""
        return self.rng.choice(
            self.cells.cutting if validation else self.cells.training, size, replace=False
        )

    # Ours

    def step(self, rows: np.ndarray | None = None) -> None:
        n = self.active()
        w = self.weights()[:n]
        batch = self.cells.batch(self.rows(128) if rows is None else rows, n, within_groups=False)
        self.network.train(batch, w / w.sum(), 1e-3)

    def epoch(self) -> None:
        for rows in shuffled(self.cells.training, 128, self.rng):
            self.step(rows)

    def faithful(self, steps: int = 12) -> None:
        n = self.active()
        w = normalised(self.weights()[:n], self.weights(slope=True)[:n], "detached")
        train = self.cells.batch(self.rows(64), n, within_groups=False)
        held = self.cells.batch(self.rows(64, True), N_PRIMARY, within_groups=False)
        unrolled(self.network, train, held, *w, steps=steps, lr=1e-3)

    def fast(self) -> None:
        reach = int(14 * TAU * N_AUXILIARY)
        middle = N_PRIMARY + int(CUT * N_AUXILIARY)
        genes = slice(middle - reach, middle + reach)
        train = self.cells.batch(self.rows(64), genes.stop, within_groups=False)
        held = self.cells.batch(self.rows(64, True), N_PRIMARY, within_groups=False)
        alignments(self.network, train, held, genes)

    # By the book

    def book_step(self, rows: np.ndarray | None = None) -> None:
        rows = self.rows(128) if rows is None else rows
        w = self.weights()
        losses = book_losses(self.book(self.inputs[rows]), self.outputs[rows])
        self.optimizer.zero_grad()
        ((w * losses).sum() / w.sum()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def book_epoch(self) -> None:
        order = self.rng.permutation(N_TRAIN)
        for start in range(0, N_TRAIN, 128):
            self.book_step(order[start : start + 128])

    def book_unrolled(self, steps: int = 12, adam: bool = True) -> None:
        cut = torch.tensor(CUT, requires_grad=True)
        places = torch.linspace(0, 1, N_AUXILIARY)
        w = torch.cat([torch.ones(N_PRIMARY), torch.sigmoid((cut - places) / TAU)])
        w = w / w.sum().detach()
        train, held = self.rows(64), self.rows(64, True)
        values = {k: v.detach().requires_grad_() for k, v in self.book.named_parameters()}
        moments = {k: (torch.zeros_like(v), torch.zeros_like(v)) for k, v in values.items()}
        for step in range(1, steps + 1):
            predictions = functional_call(self.book, values, (self.inputs[train],))
            loss = (w * book_losses(predictions, self.outputs[train])).sum()
            found = torch.autograd.grad(loss, list(values.values()), create_graph=True)
            for (name, value), g in zip(list(values.items()), found, strict=True):
                if not adam:
                    values[name] = value - 1e-3 * g
                    continue
                m, v = moments[name]
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                moments[name] = m, v
                scale = (v / (1 - 0.999**step) + 1e-16).sqrt() + 1e-8
                values[name] = value - 1e-3 * (m / (1 - 0.9**step)) / scale
        predictions = functional_call(self.book, values, (self.inputs[held],))
        losses = book_losses(predictions[:, :N_PRIMARY], self.outputs[held][:, :N_PRIMARY])
        torch.autograd.grad(losses.mean(), cut)

    def book_single(self) -> None:
        self.book_unrolled(steps=1, adam=False)


PAIRS = {
    "training step": ("step", "book_step"),
    "epoch, 24 steps": ("epoch", "book_epoch"),
    "faithful, 12 steps of Adam": ("faithful", "book_unrolled"),
    "fast (one step of descent)": ("fast", "book_single"),
}


def clock(form: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    form()
    return time.perf_counter() - start, time.process_time() - used


def speed(args: argparse.Namespace) -> None:
    setting = Setting()
    print(f"{args.threads} thread(s), {setting.active()} of 20,050 genes count at the cut 0.5\n")
    print("| | ours, s (processor) | by the book, s (processor) | ratio of medians (processor) |")
    print("|---|---|---|---|")
    for name, forms in PAIRS.items():
        found: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
        for form in forms:
            getattr(setting, form)()  # the first call sets things up
        for _ in range(args.rounds):
            for form in forms:
                found[form].append(clock(getattr(setting, form)))
        ours, book = (
            [statistics.median(column) for column in zip(*found[form], strict=True)]
            for form in forms
        )
        print(
            f"| {name} | {ours[0]:.3f} ({ours[1]:.3f}) | {book[0]:.3f} ({book[1]:.3f}) "
            f"| {book[0] / ours[0]:.1f} ({book[1] / ours[1]:.1f}) |",
            flush=True,
        )


def peak(form: str, threads: int, result: Any) -> None:
    """Memory that a form adds to the peak of a process that holds data and networks."""
    torch.set_num_threads(threads)
    setting = Setting()
    setting.book_step() if form.startswith("book") else setting.step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    getattr(setting, form)()
    result.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def memory(args: argparse.Namespace) -> None:
    print("| added to the peak | ours, MB | by the book, MB |\n|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for name, forms in PAIRS.items():
        found = []
        for form in forms:
            result: Any = context.Queue()
            process = context.Process(target=peak, args=(form, args.threads, result))
            process.start()
            found.append(result.get() / 1024)
            process.join()
        print(f"| {name} | {found[0]:.0f} | {found[1]:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    memory(args) if args.memory else speed(args)


if __name__ == "__main__":
    main()
