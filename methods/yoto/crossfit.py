"""The default training: scores by cross-fitting, then the predictor of the final panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import Layer, one_thread

from .asking import Deciding, Finish, HeldOut, Learn, alone, in_step
from .data import Cells
from .encoding import Encoding
from .fit import Fit, rates_of
from .folds import assign_folds
from .networks import Networks
from .options import Settings
from .search import Search
from .stacked import cells_of
from .start import Start, best_first, choose_start, nested_losses, worse
from .training import Trained

SHARES = (100.0, 1.0, 0.0)
"""How much of the start is added to the learned scores: all but the start, some, nothing."""
DEEPER = (2, 1.5)
"""Hidden layers of the larger predictor that is tried, and how many times as long it is trained."""

if TYPE_CHECKING:
    import torch

EPOCHS, SEARCH_EPOCHS = 30, 60
"""Passes over many cells, whatever the steps: of the predictor's training and of the search. Genes
that tell something only together (an XOR) are not found in 30."""


@dataclass(frozen=True)
class Shape:
    """What the predictor is trained with.

    Attributes
    ----------
    size
        How many of the panel's genes it uses, the first.
    rate
        Input dropout.
    layers
        Hidden layers, or None for those asked for.
    epochs
        Passes over the cells.
    """

    size: int
    rate: float
    layers: int | None
    epochs: int


def passes(settings: Settings, n_cells: int, least: int = EPOCHS) -> int:
    """Epochs that make `Settings.steps` steps, so many at least, within `Settings.epochs`."""
    n_batches = max(1, round(n_cells / settings.batch_size))
    return min(settings.epochs, max(least, -(-settings.steps // n_batches)))


def train(task: Task, settings: Settings) -> Trained:
    """Learn scores, choose the panel, fit the predictor; on one CPU thread."""
    with one_thread():
        return alone(_run(task, settings))


def train_together(tasks: Sequence[Task], settings: Sequence[Settings]) -> list[Trained]:
    """The same for several runs, all on one device: trainings that agree in shape in step."""
    with one_thread():
        cells = cells_of(tasks, settings)
        return in_step([_run(*each) for each in zip(tasks, settings, cells, strict=True)])


def _run(task: Task, settings: Settings, cells: Cells | None = None) -> Deciding[Trained]:
    search, start, curves = yield from _learned(task, settings, cells)
    cells, encoding = search.cells, search.encoding
    epochs = passes(settings, cells.n_cells)
    order, scores, chosen = yield from choose(search, epochs)
    shape = yield from settle(search, start, epochs)
    fit = fitted(search, order[: shape.size], shape.layers)
    nets = yield Finish(fit, shape.rate, shape.epochs)
    task.progress(1.0, f"predictor trained, input dropout {shape.rate}")
    layers, heads = as_layers(cells, encoding, order[: search.k], nets)
    index = order.cpu().numpy()
    return Trained(
        genes=cells.genes[index],
        scores=scores.cpu().numpy().astype(np.float64)[index],
        k=search.k,
        layers=layers,
        heads=heads,
        labels=cells.labels,
        curves=curves,
        chosen={f"start_loss:{name}": round(loss, 5) for name, loss in start.judged.items()}
        | {"markers": float(start.name == "both")}
        | chosen
        | {
            "genes_used": shape.size,
            "input_dropout": shape.rate,
            "hidden_layers": len(fit.hidden),
        },
    )


def choose(
    search: Search, epochs: int
) -> Deciding[tuple[torch.Tensor, torch.Tensor, dict[str, float]]]:
    """Settle on held-out cells how far the panel goes from where the scores started.

    The learned scores have seen what every fold says, so they look better on it than they are:
    they must be ahead by `margin` standard errors of the difference, or the panel nearer to the
    start counts.

    Returns
    -------
    All genes, best first; their scores; what was settled, with the held-out losses.
    """
    rates = rates_of(search.settings)
    seen = search.fold != search.fold.unique()[:, None]
    found, losses = [], []
    for share in SHARES:
        scores = search.scores + share * search.settings.prior * search.relevance
        order = best_first(scores)
        panel = fitted(search, order[: search.k])
        each = yield HeldOut(panel, seen, rates, max(1, epochs // 2))
        best = int(each.mean(dim=1).argmin())
        rates = (rates[best],)
        found.append((order, scores))
        losses.append(each[best])
    least = min(losses, key=lambda loss: float(loss.mean()))
    margin = search.settings.margin
    number = next(i for i, loss in enumerate(losses) if not worse(loss - least, margin))
    facts = {
        f"held_out_loss:{s:g}": round(float(x.mean()), 5)
        for s, x in zip(SHARES, losses, strict=True)
    }
    return *found[number], {"start": SHARES[number]} | facts


def settle(search: Search, start: Start, epochs: int) -> Deciding[Shape]:
    """How many of the panel's genes the predictor uses, its input dropout and its depth.

    Each fold is predicted from a panel that was chosen without it, as test cells are; genes that
    were chosen on the cells that judge them look useful when they are noise. With few cells the
    predictor can be better without the last half of a large panel, with many a deeper one that is
    trained for longer can be better, which must be ahead by `margin` standard errors.
    """
    settings, half = search.settings, max(1, search.k // 2)
    rates = rates_of(settings)
    outside = [search.fold != number for number in range(search.count)]

    def losses(
        size: int, rates: tuple[float, ...], epochs: int, layers: int | None = None
    ) -> Deciding[torch.Tensor]:
        return nested_losses(
            lambda panel: fitted(search, panel, layers), start.nested, outside, size, rates, epochs
        )

    fewer = yield from losses(half, rates, max(1, epochs // 2))
    found = {search.k: start.losses, half: fewer}
    means = {(size, i): float(x.mean()) for size, each in found.items() for i, x in enumerate(each)}
    size, number = min(means, key=lambda place: means[place])
    rate = rates[number]
    if not settings.deepen:
        return Shape(size, rate, None, epochs)
    layers, times = DEEPER
    longer = min(settings.epochs, round(times * epochs))
    usual = yield from losses(size, (rate,), epochs)
    deep = yield from losses(size, (rate,), longer, layers)
    if worse(usual[0] - deep[0], settings.margin):
        return Shape(size, rate, layers, longer)
    return Shape(size, rate, None, epochs)


def fitted(search: Search, panel: torch.Tensor, layers: int | None = None) -> Fit:
    """What trains networks on these genes."""
    return Fit(search.task, search.cells, panel, search.encoding, search.settings, layers)


def learn_scores(task: Task, settings: Settings) -> tuple[Search, Start, dict[str, list[float]]]:
    """Choose the start and run the search; returns it with its curves."""
    return alone(_learned(task, settings))


def _learned(
    task: Task, settings: Settings, cells: Cells | None = None
) -> Deciding[tuple[Search, Start, dict[str, list[float]]]]:
    import torch

    cells = cells or Cells(task, standardize=settings.standardize)
    encoding = Encoding(cells, settings.levels, task.rng("yoto levels"))
    folds = assign_folds(cells.labels, cells.groups, settings.folds, task.rng("yoto folds"))
    fold = torch.from_numpy(folds).to(cells.device)
    start = yield from choose_start(
        cells,
        encoding,
        fold,
        settings,
        lambda panel: Fit(task, cells, panel, encoding, settings),
        min(task.k, len(cells.genes)),
        max(1, passes(settings, cells.n_cells) // 2),
    )
    search = Search(task, cells, encoding, fold, start.relevance, settings)
    curves = yield Learn(search, passes(settings, cells.n_cells, SEARCH_EPOCHS))
    return search, start, curves


def as_layers(
    cells: Cells, encoding: Encoding, panel: torch.Tensor, nets: Networks
) -> tuple[list[Layer], dict[str, Layer]]:
    """Encoding and networks as layers that take the panel's expression as it was given."""
    weight, bias = encoding.layer(panel)
    weight = weight * cells.gain[panel].double().cpu().numpy()[:, None]
    (first, shift), *rest = nets.folded()[0]
    first = np.pad(first, ((0, 0), (0, weight.shape[1] // 2 - first.shape[1]), (0, 0)))
    both = np.concatenate([first, -first], axis=1)
    return [(weight, bias), (both, shift), *rest], nets.folded()[1]
