"""What a GPU is good for here: is it right, how long does it take, how much does it hold.

    python tests/perf/gpu.py                               # about 9 minutes at most
    python tests/perf/gpu.py --device cpu --quick          # the same code, small, without a GPU
    python tests/perf/gpu.py --data FOLDER                 # with CITEseq.mat and CITEseq-labels.mat
    python tests/perf/gpu.py --tables                      # all runs of its tables, an hour or so

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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from panelbench.methods import yoto
from panelbench.methods.markermap.subset import rounds, rounds_gradient
from panelbench.methods.persist import mask as persist_mask
from panelbench.methods.persist.network import Network, cross_entropy
from panelbench.methods.yoto import batch, crossfit
from panelbench.methods.yoto.mask import TopK
from panelbench.methods.yoto.masks import TopKs
from panelbench.methods.yoto.training import Trainer

from panelbench.method import Target, Task, frozen_mapping

PAPER = yoto.Params(preset="paper")
DEFAULT = yoto.Params()
PERSIST = yoto.PersistParams()


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


def default_epoch(table: Table, device: str, task: Task) -> None:
    """The default, two runs in step on the device against each alone on the CPU, one epoch."""
    several = [task, replace(task, k=2 * task.k, seed=1)]
    settings = [yoto.settings(replace(DEFAULT, epochs=1, batch_size=64))] * 2
    found = crossfit.train_together([replace(each, device=device) for each in several], settings)
    apart, losses = [], 0.0
    for each, s, other in zip(several, settings, found, strict=True):
        one = crossfit.train(each, s)
        mine, its = (x.scores[np.argsort(x.genes)] for x in (one, other))
        apart.append(float(np.quantile(np.abs(mine - its), 0.9)))
        pairs = zip(one.curves.values(), other.curves.values(), strict=True)
        losses = max(losses, *(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs))
    table.check("the default: scores after an epoch, 9 of 10 genes, 2 in step", max(apart), 1e-3)
    table.check("the default: losses of that epoch", losses, 1e-2)


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
    default = replace(DEFAULT, epochs=epochs, steps=steps)
    found = yoto.select(tasks[0], default)
    if device != "cpu":  # there a group is one after the other
        other = yoto.select_many(tasks, [default] * 2)[0]
        table.add("the default in a group of 2: genes of the panel", *_same(found, other, task.k))
    for name, selection in (("published", alone), ("default", found)):
        assert selection.predictor is not None
        columns = [int(gene[1:]) for gene in selection.predictor.genes]
        target = next(iter(task.targets.values()))
        proba = selection.predictor.predict_proba(target.name, task.dense()[:, columns])
        right = float((proba.argmax(axis=1) == target.values).mean())
        table.add(
            f"{name}: cells it was trained on told right", f"{right:.2f}", ">= 0.8", right >= 0.8
        )


def cpu_and_device(
    table: Table, device: str, what: str, task: Task, params: yoto.Params, seeds: int
) -> None:
    """Panels and scores of some seeds, on the CPU and on the device."""
    shared, ranks = [], []
    for seed in range(seeds):
        mine = replace(task, seed=seed)
        here = yoto.select(replace(mine, device="cpu"), params)
        there = yoto.select(replace(mine, device=device), params)
        shared.append(str(len({*here.ranking[: task.k]} & {*there.ranking[: task.k]})))
        both = [np.argsort(np.argsort(_by_gene(found))) for found in (here, there)]
        ranks.append(f"{np.corrcoef(*both)[0, 1]:.3f}")
    said = f"{', '.join(shared)} of {task.k}; rank correlation {', '.join(ranks)}"
    table.add(f"{what}, CPU and here, {seeds} seeds: genes of the panel", said, "stated")


def citeseq(folder: Path) -> Task:
    """Four fifths of CITE-seq's cells, 500 genes, 13 types."""
    from scipy.io import loadmat

    counts = loadmat(folder / "CITEseq.mat")["G"].T.astype(np.float32)
    values = loadmat(folder / "CITEseq-labels.mat")["labels"].ravel()
    names, codes = np.unique(values, return_inverse=True)
    rows = np.sort(np.random.default_rng(0).permutation(len(counts))[: len(counts) * 4 // 5])
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    matrix = np.log1p(1e4 * counts / depth)[rows]
    target = Target("type", "classification", codes[rows].astype(np.int64), tuple(map(str, names)))
    genes = np.array([f"g{i}" for i in range(matrix.shape[1])])
    return Task(matrix, genes, frozen_mapping({"type": target}), k=32, seed=0)


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


def check(table: Table, device: str, *, quick: bool, data: Path | None = None) -> None:
    """All that must be right."""
    task = cells(400, 200, 8, types=8) if quick else cells(2000, 1000, 32)
    masks(table, device)
    gradients(table, device, task)
    one_epoch(table, device, task)
    default_epoch(table, device, task)
    persist(table, device)
    markermap(table, device)
    epochs, steps = (12, 20) if quick else (60, 60)
    trainings(table, device, task, epochs, steps)
    real = citeseq(data) if data else None
    name, given = ("CITE-seq", real) if real else ("made cells", task)
    for kind, params in (("published", PAPER), ("default", DEFAULT)):
        # 60 epochs of the published form: at most a minute of a CPU.
        short = replace(params, epochs=2 if quick else 60, steps=steps if not real else 400)
        what = f"{kind} on {name}, {given.n_cells:,} x {given.n_genes:,}, {short.epochs} epochs"
        cpu_and_device(table, device, what, given, short, 1 if quick else 3)


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


def default_epochs(most: int, n_cells: int) -> int:
    """Passes over the cells that a run of the default takes in all, with so many at a time."""
    s = yoto.settings(replace(DEFAULT, epochs=most))
    fit = crossfit.passes(s, n_cells)
    longer = min(most, round(crossfit.DEEPER[1] * fit))
    search = crossfit.passes(s, n_cells, crossfit.SEARCH_EPOCHS)
    tried = 2 * s.folds + len(crossfit.SHARES) + s.folds  # starts, shares, half of the panel
    deeper = s.folds * (fit + longer)
    return search + tried * max(1, fit // 2) + deeper + longer


def timing(
    table: Table,
    what: str,
    goal: str,
    tasks: list[Task],
    epochs: int,
    seconds: float,
    params: yoto.Params = PAPER,
) -> float:
    """A row for trainings of so many epochs together, cut to what `seconds` allow."""
    device, default = tasks[0].device, params.preset == "default"
    together = crossfit.train_together if default else batch.train_together

    def train(count: int) -> dict[str, float]:
        # The schedules run over the epochs that are done, so that a short training is a sample.
        settings = yoto.settings(replace(params, epochs=count))
        with measured(device) as found:
            together(tasks, [settings] * len(tasks))
        return found

    def work(count: int) -> int:
        return default_epochs(count, tasks[0].n_cells) if default else count

    first, third = train(1)["seconds"], train(3)
    each = max((third["seconds"] - first) / (work(3) - work(1)), 1e-4)
    fixed = first - work(1) * each
    counts = range(3, epochs + 1)
    count = max((c for c in counts if work(c) * each <= seconds), default=3)
    found = train(count) if count > 3 else third
    whole = fixed + (found["seconds"] - fixed) * work(epochs) / work(count)
    cut = f" (from {work(count)} of {work(epochs)} epochs)" if count < epochs else ""
    memory = f", {found['memory']:.0f} MB" if "memory" in found else ""
    table.add(what, f"{whole:.1f} s{cut}{memory}", goal)
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
    part = 60 * minutes / 6
    n_cells, n_genes, epochs = (300, 150, 4) if quick else (10_679, 10_000, 1000)
    visp = cells(n_cells, n_genes, 8 if quick else 64, device=device, types=8 if quick else 90)
    size = f"{n_cells:,} x {n_genes:,}"
    one = timing(table, f"one model, {size}, k {visp.k}, {epochs} epochs", "<= 20 s", [visp],
                 epochs, part)  # fmt: skip
    seeds, sizes = (2, (4, 8)) if quick else (3, (16, 32, 64, 128, 256))
    grid = grid_of(visp, sizes, seeds)
    runs = f"{len(sizes)} panel sizes x {seeds} seeds"
    several = timing(table, f"{runs} of it together", "<= 120 s", grid, epochs, part)
    ratio = several / (len(grid) * one)
    table.add("the same, against one after the other", f"1/{1 / ratio:.1f}", "<= 1/5")
    small = cells(*((200, 100) if quick else (5000, 2000)), 8 if quick else 32, device=device)
    crowd = [replace(small, seed=seed) for seed in range(4 if quick else 64)]
    timing(table, f"{len(crowd)} models, {small.n_cells:,} x {small.n_genes:,}", "<= 120 s", crowd,
           epochs, part)  # fmt: skip
    most, grid = (3, grid[:2]) if quick else (60, grid)
    runs = f"{len(grid)} runs of these sizes and seeds"
    alone = timing(table, f"the default, {size}, one run", "", [visp], most, part, DEFAULT)
    whole = timing(table, f"the default, {runs} in step", "", grid, most, part, DEFAULT)
    ratio = whole / (len(grid) * alone)
    table.add("the same, against one after the other", f"1/{1 / ratio:.1f}")
    # 9 runs on 51,200 cells, of which each has fewer genes; 12 with PERSIST's network; by steps.
    hours = (several + whole) * (1 + 200 / 42) + several * 0.8
    said = f"{hours / 60:.0f} min (guessed from the rows above, by steps; --tables measures it)"
    table.add("all of YOTO's tables", said, "<= 60 min")
    kernels(table, [visp], 1)
    kernels(table, grid, 1)


def grid_of(task: Task, sizes: tuple[int, ...], seeds: int) -> list[Task]:
    """Runs of several sizes and seeds; seeds have other cells, so each has a matrix of its own."""
    rng = np.random.default_rng(1)
    own = [task]
    for seed in range(1, seeds):
        order = rng.permutation(task.n_cells)
        targets = {t.name: replace(t, values=t.values[order]) for t in task.targets.values()}
        own.append(replace(task, X=task.X[order], targets=frozen_mapping(targets), seed=seed))
    return [replace(each, k=k) for each in own for k in sizes]


def tables(table: Table, device: str, *, quick: bool) -> None:
    """All runs of YOTO's tables: every data set, k, seed and ablation on cells of their sizes."""
    sets = {
        "VISp": ((10_679, 10_000, 90), (16, 32, 64, 128, 256)),
        "COVID-PBMC": ((51_200, 5_000, 40), (16, 32, 64)),
    }
    total = 0.0
    for name, ((n_cells, n_genes, types), sizes) in sets.items():
        if quick:
            n_cells, n_genes, types, sizes = 200, 80, 4, sizes[:1]
        grid = grid_of(cells(n_cells, n_genes, sizes[0], device=device, types=types), sizes, 3)
        kinds = {"published": PAPER, "default": DEFAULT}
        if name == "VISp":
            kinds["PERSIST's network"] = PERSIST
        for kind, params in kinds.items():
            default = params.preset == "default"
            epochs = 2 if quick else 60 if default else 1000
            what = f"tables: {name}, {kind}, {len(grid)} runs"
            total += timing(table, what, "", grid, epochs, np.inf, params)
    table.add("all of YOTO's tables", f"{total / 60:.1f} min", "<= 60 min")


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Print the table; 1 when something is not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--only-check", action="store_true", help="correctness alone")
    parser.add_argument("--data", type=Path, help="folder with CITEseq.mat and its labels")
    parser.add_argument("--tables", action="store_true", help="all runs of YOTO's tables")
    parser.add_argument("--minutes", type=float, default=5.0, help="for the times")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        say("torch finds no GPU here; --device cpu --quick tries the script itself")
        return 2
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "the CPU"
    say(f"torch {torch.__version__} on {name}\n\n| what | found | goal | kept |\n|---|---|---|---|")
    table = Table()
    check(table, given.device, quick=given.quick, data=given.data)
    if not given.only_check:
        times(table, given.device, given.minutes, quick=given.quick)
    if given.tables:
        tables(table, given.device, quick=given.quick)
    say(f"\n{table.wrong} of {len(table.rows)} rows are not as they must be")
    return int(table.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
