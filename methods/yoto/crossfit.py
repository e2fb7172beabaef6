"""The default training: scores by cross-fitting, then the predictor of the final panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import Layer, one_thread

from .data import Cells
from .encoding import Encoding
from .fit import RATES, Fit
from .folds import assign_folds
from .networks import Networks
from .options import Settings
from .relevance import relevance
from .search import Search
from .training import Trained

SHARES = (100.0, 1.0, 0.0)
"""How much of the start is added to the learned scores: all but the start, some, nothing."""

if TYPE_CHECKING:
    import torch

_EPOCHS, _SEARCH_EPOCHS = 30, 60
"""Passes over many cells, whatever the steps: of the predictor's training and of the search. Genes
that tell something only together (an XOR) are not found in 30."""


def passes(settings: Settings, n_cells: int, least: int = _EPOCHS) -> int:
    """Epochs that make `Settings.steps` steps, so many at least, within `Settings.epochs`."""
    n_batches = max(1, round(n_cells / settings.batch_size))
    return min(settings.epochs, max(least, -(-settings.steps // n_batches)))


def train(task: Task, settings: Settings) -> Trained:
    """Learn scores, choose the panel, fit the predictor; on one CPU thread."""
    with one_thread():
        search, curves = learn_scores(task, settings)
        cells, encoding = search.cells, search.encoding
        epochs = passes(settings, cells.n_cells)
        order, scores, chosen = choose(search, epochs)
        size, rate = settle(search, epochs)
        nets = fitted(search, order[:size]).finish(rate, epochs)
        task.progress(1.0, f"predictor trained, input dropout {rate}")
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
            chosen=chosen | {"genes_used": size, "input_dropout": rate},
        )


def choose(search: Search, epochs: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Settle on held-out cells how far the panel goes from where the scores started.

    The learned scores have seen what every fold says, so they look better on it than they are:
    they must be ahead by `margin` standard errors of the difference, or the panel nearer to the
    start counts.

    Returns
    -------
    All genes, best first; their scores; what was settled, with the held-out losses.
    """
    rates = _rates(search.settings)
    seen = search.fold != search.fold.unique()[:, None]
    found, losses = [], []
    for share in SHARES:
        scores = search.scores + share * search.settings.prior * search.relevance
        order = scores.sort(descending=True, stable=True).indices
        each = fitted(search, order[: search.k]).held_out(seen, rates, max(1, epochs // 2))
        best = int(each.mean(dim=1).argmin())
        rates = (rates[best],)
        found.append((order, scores))
        losses.append(each[best])
    least = min(losses, key=lambda loss: float(loss.mean()))
    margin = search.settings.margin
    number = next(i for i, loss in enumerate(losses) if not _worse(loss - least, margin))
    facts = {
        f"held_out_loss:{s:g}": round(float(x.mean()), 5)
        for s, x in zip(SHARES, losses, strict=True)
    }
    return *found[number], {"start": SHARES[number]} | facts


def settle(search: Search, epochs: int) -> tuple[int, float]:
    """How many of the panel's genes the predictor uses, and its input dropout.

    Each fold is predicted from a panel that was chosen without it, as test cells are; genes that
    were chosen on the cells that judge them look useful when they are noise. With few cells the
    predictor can be better without the last half of a large panel.
    """
    import torch

    rates, sizes = _rates(search.settings), (search.k, max(1, search.k // 2))
    total = torch.zeros(len(sizes), len(rates), dtype=torch.float64, device=search.device)
    for number in range(search.count):
        seen = search.fold != number
        start = relevance(search.cells, search.encoding, search.start, seen)
        order = start.sort(descending=True, stable=True).indices
        each = [
            fitted(search, order[:size]).held_out(seen[None], rates, max(1, epochs // 2)).sum(1)
            for size in sizes
        ]
        total += torch.stack(each)
    place = int(total.argmin())
    return sizes[place // len(rates)], rates[place % len(rates)]


def fitted(search: Search, panel: torch.Tensor) -> Fit:
    """What trains networks on these genes."""
    return Fit(search.task, search.cells, panel, search.encoding, search.settings)


def _rates(settings: Settings) -> tuple[float, ...]:
    return RATES if settings.input_dropout is None else (settings.input_dropout,)


def _worse(difference: torch.Tensor, margin: float) -> bool:
    """Whether the mean of a difference between cells is more than so many standard errors."""
    error = float(difference.std(correction=0)) / len(difference) ** 0.5
    return float(difference.mean()) > margin * error


def learn_scores(task: Task, settings: Settings) -> tuple[Search, dict[str, list[float]]]:
    """Run the search; returns it with its curves."""
    cells = Cells(task, standardize=settings.standardize)
    encoding = Encoding(cells, settings.levels, task.rng("yoto levels"))
    fold = assign_folds(cells.labels, cells.groups, settings.folds, task.rng("yoto folds"))
    search = Search(task, cells, encoding, fold, settings)
    return search, search.run(passes(settings, cells.n_cells, _SEARCH_EPOCHS))


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
