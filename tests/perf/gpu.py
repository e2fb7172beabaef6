"""What a GPU is good for here: is it right, how long does it take, how much does it hold.

    python tests/perf/gpu.py                               # about 9 minutes at most
    python tests/perf/gpu.py --device cpu --quick          # the same code, small, without a GPU

It makes its inputs itself (under 60 MiB), needs no network, and prints one Markdown table: first
whether everything that runs on a GPU gives what the CPU gives, then times with their goals, peak
memory, and the share of the time in which kernels are at work. What does not fit into `--minutes`
is cut to fewer epochs, and its time extrapolated; such a time says so. Exit code 1 when something
is not right.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from panelbench.methods import yoto
from panelbench.methods.markermap.subset import rounds, rounds_gradient
from panelbench.methods.persist import mask as persist_mask
from panelbench.methods.persist.network import Network, cross_entropy
from panelbench.methods.yoto import batch
from panelbench.methods.yoto.mask import TopK
from panelbench.methods.yoto.masks import TopKs
from panelbench.methods.yoto.training import Trainer

from panelbench.method import Target, Task, frozen_mapping

PAPER = yoto.Params(preset="paper")


@dataclass
class Table:
    """Rows of the result, printed as they come."""

    wrong: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, what: str, found: str, goal: str = "", right: bool | None = None) -> None:
        """Print a row; `right` says whether a goal is kept, where it is a must."""
        self.wrong += right is False
        verdict = {True: "yes", False: "NO", None: ""}[right]
        self.rows.append(f"| {what} | {found} | {goal} | {verdict} |")
        print(self.rows[-1], flush=True)

    def check(self, what: str, error: float, bound: float) -> None:
        """A row of a largest difference that has a bound."""
        self.add(what, f"{error:.1e}", f"<= {bound:.0e}", bool(error <= bound))


def cells(
    n_cells: int, n_genes: int, k: int, seed: int = 0, device: str = "cpu", types: int = 20
) -> Task:
    """Binary CSR cells in nested classes, of which each switches some genes on; a fifth is 1."""
    from scipy import sparse

    rng = np.random.default_rng(seed)
    fine = np.r_[np.arange(types), rng.integers(types, size=n_cells - types)]
    on = np.tile(rng.beta(0.5, 2.0, n_genes).astype(np.float32), (types, 1))
    for code in range(types):
        on[code, rng.choice(n_genes, min(40, n_genes // types + 1), replace=False)] = 0.8
    blocks = [
        sparse.csr_matrix(rng.random((len(part), n_genes), np.float32) < on[part], dtype=np.float32)
        for part in np.array_split(fine, max(1, n_cells // 1000))
    ]
    targets = {
        f"types {n}": Target(
            f"types {n}", "classification", (fine % n).astype(np.int64), tuple(map(str, range(n)))
        )
        for n in (max(2, types // 4), types)
    }
    names = np.array([f"g{i}" for i in range(n_genes)])
    matrix = sparse.vstack(blocks, format="csr")
    return Task(matrix, names, frozen_mapping(targets), k=k, seed=seed, device=device)


# -- is it right ---------------------------------------------------------------------------


def masks(table: Table, device: str) -> None:
    """Soft masks and their gradients, of one model and of several, against one on the CPU."""
    g = torch.Generator().manual_seed(0)
    worst = [0.0] * 4
    for k, tau in ((16, 1.0), (64, 0.01), (700, 0.1), (1000, 10.0)):
        scores = 0.1 * torch.randn(1000, generator=g)
        upstream = torch.randn(1000, generator=g)
        plain = TopK(scores, k, tau)
        soft, slope = plain.soft(), plain.gradient(upstream[plain.order[: plain.reach]])
        there = TopK(scores.to(device), k, tau)
        got = there.gradient(upstream.to(device)[there.order[: there.reach]])
        several = TopKs(
            torch.stack([scores, scores.flip(0)]).to(device), [1000] * 2, [k] * 2, [tau] * 2
        )
        order = several.order[:, : several.reach]
        each = torch.stack([upstream, upstream.flip(0)]).to(device).gather(1, order)
        scale = float(slope.abs().max())
        for i, (found, wanted) in enumerate(
            (
                (there.soft(), soft),
                (got / scale, slope / scale),
                (several.soft()[0], soft),
                (several.gradient(each)[0] / scale, slope / scale),
            )
        ):
            worst[i] = max(worst[i], float((found.cpu() - wanted).abs().max()))
    names = (
        "soft mask",
        "its gradient, relative",
        "soft masks of several models",
        "their gradient",
    )
    for name, error in zip(names, worst, strict=True):
        table.check(name, error, 1e-5)


def one_epoch(table: Table, device: str, task: Task) -> None:
    """Scores and losses after an epoch: a batch on the device, single trainings on the CPU."""
    several = [task, replace(task, k=2 * task.k), replace(task, seed=1)]
    params = replace(PAPER, epochs=1, batch_size=64)
    alone = [Trainer(each, yoto.settings(params)).run() for each in several]
    there = [replace(each, device=device) for each in several]
    found = batch.train_together(there, [yoto.settings(params)] * 3)
    scores = losses = 0.0
    for one, other in zip(alone, found, strict=True):
        mine, its = (x.scores[np.argsort(x.genes)] for x in (one, other))
        scores = max(scores, float(np.abs(mine - its).max()))
        pairs = zip(one.curves.values(), other.curves.values(), strict=True)
        losses = max(losses, *(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs))
    table.check("scores after an epoch, 3 models together, against the CPU", scores, 1e-4)
    table.check("losses of that epoch", losses, 1e-3)


def gradients(table: Table, device: str, task: Task) -> None:
    """Gradients of all weights in the first step, against the CPU."""
    found = []
    for where in ("cpu", device):
        trainer = Trainer(replace(task, device=where), yoto.settings(PAPER))
        genes = torch.arange(task.k, device=where)
        rows = np.arange(64)
        x = trainer.cells.batch(rows, genes)
        labels = [part.values[:64] for part in trainer.cells.labels]
        # Without dropout, which is drawn on the device.
        trainer.network.dropout = 0.0
        hidden, losses = trainer.losses(x, trainer.network.first[genes], task.k, labels)
        losses.mean().backward()
        parts = [hidden.grad, *(p.grad for p in trainer.network.parameters())]
        found.append([part.cpu() for part in parts if part is not None])
    error = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
    table.check("gradients of the network", error, 1e-4)


def trainings(table: Table, device: str, task: Task, epochs: int, steps: int) -> None:
    """Whole small trainings: the published one alone, in a group and on the CPU; the default."""
    params = replace(PAPER, epochs=epochs, batch_size=64)
    tasks = [replace(task, device=device), replace(task, device=device, seed=1)]
    together = yoto.select_many(tasks, [params] * 2)
    alone, again = (yoto.select(tasks[0], params) for _ in range(2))
    table.add("the same training twice: same panel", *_same(alone, again, task.k, must=True))
    table.add("alone and in a group of 2: genes of the panel", *_same(alone, together[0], task.k))
    here = yoto.select(replace(task, device="cpu"), params)
    table.add("on the CPU and here: genes of the panel", *_same(here, alone, task.k))
    both = [np.argsort(np.argsort(_by_gene(found))) for found in (here, alone)]
    table.add("rank correlation of those scores", f"{np.corrcoef(*both)[0, 1]:.3f}", "stated")
    default = yoto.Params(epochs=epochs, steps=steps)
    found = yoto.select(tasks[0], default)
    other = yoto.select(replace(task, device="cpu"), default)
    table.add("the default, on the CPU and here: genes of the panel", *_same(other, found, task.k))
    for name, selection in (("published", alone), ("default", found)):
        assert selection.predictor is not None
        columns = [int(gene[1:]) for gene in selection.predictor.genes]
        target = next(iter(task.targets.values()))
        proba = selection.predictor.predict_proba(target.name, task.dense()[:, columns])
        right = float((proba.argmax(axis=1) == target.values).mean())
        table.add(
            f"{name}: cells it was trained on told right", f"{right:.2f}", ">= 0.8", right >= 0.8
        )


def _by_gene(found: Any) -> np.ndarray:
    return np.asarray(found.scores)[np.argsort(found.ranking)]


def _same(one: Any, other: Any, k: int, *, must: bool = False) -> tuple[str, str, bool | None]:
    shared = len({*one.ranking[:k]} & {*other.ranking[:k]})
    return f"{shared} of {k}", f"{k}" if must else "stated", shared == k if must else None


def persist(table: Table, device: str) -> None:
    """PERSIST's mask gradient and network, on the same draws."""
    g = torch.Generator().manual_seed(0)
    entries = torch.softmax(5 * torch.randn(32, 8, 200, generator=g), dim=2)
    winners = entries.argmax(dim=1).to(torch.uint8)
    weighted = torch.randn(32, 200, generator=g)
    plain = persist_mask.gradient(entries, winners, weighted)
    there = persist_mask.gradient(
        entries.to(device), winners.to(device), weighted.to(device), ordered=True
    )
    table.check("PERSIST: gradient of the mask", float((there.cpu() - plain).abs().max()), 1e-4)
    x, truth = torch.rand(32, 200, generator=g), torch.arange(32) % 5
    found = []
    for where in ("cpu", device):
        network = Network([200, 64, 5], torch.Generator().manual_seed(1), torch.device(where))
        mask = entries.amax(dim=1).to(where).requires_grad_()
        cross_entropy(network.forward(x.to(where), mask), truth.to(where)).backward()
        parts = [mask.grad, *(part.grad for part in network.parameters())]
        found.append([part.cpu() for part in parts if part is not None])
    error = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
    table.check("PERSIST: gradients of its network", error, 1e-4)


def markermap(table: Table, device: str) -> None:
    """MarkerMap's relaxed subset and its gradient."""
    g = torch.Generator().manual_seed(0)
    keys, upstream = torch.randn(500, generator=g), torch.randn(500, generator=g)
    plain, there = rounds(keys, 20, 0.5), rounds(keys.to(device), 20, 0.5)
    table.check("MarkerMap: relaxed subset", float((there.cpu() - plain).abs().max()), 1e-5)
    slopes = rounds_gradient(plain, upstream, 0.5)
    got = rounds_gradient(there, upstream.to(device), 0.5).cpu()
    error = float((got - slopes).abs().max() / slopes.abs().max())
    table.check("MarkerMap: its gradient, relative", error, 1e-4)


def check(table: Table, device: str, *, quick: bool) -> None:
    """All that must be right."""
    task = cells(400, 200, 8, types=8) if quick else cells(2000, 1000, 32)
    masks(table, device)
    gradients(table, device, task)
    one_epoch(table, device, task)
    persist(table, device)
    markermap(table, device)
    trainings(table, device, task, *((12, 20) if quick else (60, 60)))


# -- how long, how much --------------------------------------------------------------------


@contextlib.contextmanager
def measured(device: str) -> Iterator[dict[str, float]]:
    """Seconds and peak MB on the device of what is done inside."""
    found: dict[str, float] = {}
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
        found["memory"] = torch.cuda.max_memory_allocated() / 2**20
    found["seconds"] = time.perf_counter() - start


def timing(
    table: Table, what: str, goal: str, tasks: list[Task], epochs: int, seconds: float
) -> float:
    """A row for trainings of so many epochs together, cut to what `seconds` allow."""
    device = tasks[0].device

    def train(count: int) -> dict[str, float]:
        # The schedules run over the epochs that are done, so that a short training is a sample.
        params = replace(PAPER, epochs=count)
        with measured(device) as found:
            batch.train_together(tasks, [yoto.settings(params)] * len(tasks))
        return found

    first, second = (train(count)["seconds"] for count in (1, 3))
    each = max((second - first) / 2, 1e-4)
    count = max(3, min(epochs, int(seconds / each)))
    found = train(count)
    whole = first - each + (found["seconds"] - (first - each)) * epochs / count
    said = f"{whole:.1f} s" + (f" (from {count} of {epochs} epochs)" if count < epochs else "")
    memory = f", {found['memory']:.0f} MB" if "memory" in found else ""
    table.add(what, said + memory, goal)
    return whole


def kernels(table: Table, tasks: list[Task], epochs: int) -> None:
    """Share of a training's time in which kernels are at work, and the largest of them."""
    from torch.profiler import ProfilerActivity, profile

    cuda = tasks[0].device.startswith("cuda")
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    settings = [yoto.settings(replace(PAPER, epochs=epochs))] * len(tasks)
    with profile(activities=kinds) as seen, measured(tasks[0].device) as found:
        batch.train_together(tasks, settings)
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = [(getattr(e, name, 0.0) / 1e6, e.key) for e in seen.key_averages()]
    busy = sum(spent for spent, _ in events)
    most = ", ".join(f"{key[:40]} {t / busy:.0%}" for t, key in sorted(events, reverse=True)[:3])
    share = f"{busy / found['seconds']:.0%} of {found['seconds']:.1f} s (with the profiler)"
    table.add(f"kernels at work, {len(tasks)} models", f"{share}: {most}")


def times(table: Table, device: str, minutes: float, *, quick: bool) -> None:
    """The times that have goals."""
    part = 60 * minutes / 5
    n_cells, n_genes, epochs = (300, 150, 4) if quick else (10_679, 10_000, 1000)
    visp = cells(n_cells, n_genes, 8 if quick else 64, device=device, types=8 if quick else 90)
    size = f"{n_cells:,} x {n_genes:,}"
    one = timing(table, f"one model, {size}, k {visp.k}, {epochs} epochs", "<= 20 s", [visp],
                 epochs, part)  # fmt: skip
    seeds = 2 if quick else 3
    # Seeds have other cells: as many matrices of their own as there are seeds.
    rng = np.random.default_rng(1)
    own = [visp]
    for seed in range(1, seeds):
        order = rng.permutation(visp.n_cells)
        targets = {t.name: replace(t, values=t.values[order]) for t in visp.targets.values()}
        own.append(replace(visp, X=visp.X[order], targets=frozen_mapping(targets), seed=seed))
    sizes = (4, 8) if quick else (16, 32, 64, 128, 256)
    grid = [replace(task, k=k) for task in own for k in sizes]
    several = timing(table, f"{len(sizes)} panel sizes x {seeds} seeds of it together", "<= 120 s",
                     grid, epochs, part)  # fmt: skip
    ratio = several / (len(grid) * one)
    table.add("the same, against one after the other", f"1/{1 / ratio:.1f}", "<= 1/5")
    small = cells(*((200, 100) if quick else (5000, 2000)), 8 if quick else 32, device=device)
    crowd = [replace(small, seed=seed) for seed in range(4 if quick else 64)]
    timing(table, f"{len(crowd)} models, {small.n_cells:,} x {small.n_genes:,}", "<= 120 s", crowd,
           epochs, part)  # fmt: skip
    kernels(table, [visp], 1)
    kernels(table, grid, 1)
    start = time.perf_counter()
    yoto.select(small, yoto.Params(epochs=1 if quick else 1000))
    took = time.perf_counter() - start
    table.add(f"the default, {small.n_cells:,} x {small.n_genes:,}, one run", f"{took:.1f} s")


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Print the table; 1 when something is not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--only-check", action="store_true", help="correctness alone")
    parser.add_argument("--minutes", type=float, default=5.0, help="for the times")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        say("torch finds no GPU here; --device cpu --quick tries the script itself")
        return 2
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "the CPU"
    say(f"torch {torch.__version__} on {name}\n\n| what | found | goal | kept |\n|---|---|---|---|")
    table = Table()
    check(table, given.device, quick=given.quick)
    if not given.only_check:
        times(table, given.device, given.minutes, quick=given.quick)
    say(f"\n{table.wrong} of {len(table.rows)} rows are not as they must be")
    return int(table.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
