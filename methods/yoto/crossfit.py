"""The default training: scores by cross-fitting, then the predictor of the final panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import Layer, one_thread

from .data import Cells
from .encoding import Encoding
from .fit import Fit
from .folds import assign_folds
from .networks import Networks
from .options import Settings
from .search import Search
from .training import Trained

if TYPE_CHECKING:
    import torch

_EPOCHS = 30
"""Passes that many cells get at least, whatever the steps."""


def passes(settings: Settings, n_cells: int) -> int:
    """Epochs that make `Settings.steps` steps, at least 30, within `Settings.epochs`."""
    n_batches = max(1, round(n_cells / settings.batch_size))
    return min(settings.epochs, max(_EPOCHS, -(-settings.steps // n_batches)))


def train(task: Task, settings: Settings) -> Trained:
    """Learn scores, choose the panel, fit the predictor; on one CPU thread."""
    with one_thread():
        search, curves = learn_scores(task, settings)
        cells, encoding = search.cells, search.encoding
        order = search.scores.sort(descending=True, stable=True).indices
        panel = order[: search.k]
        epochs = passes(settings, cells.n_cells)
        nets, chosen = Fit(task, cells, panel, encoding, settings).run(search.fold, epochs)
        task.progress(1.0, f"predictor trained, input dropout {chosen['input_dropout']}")
        layers, heads = as_layers(cells, encoding, panel, nets)
        index = order.cpu().numpy()
        return Trained(
            genes=cells.genes[index],
            scores=search.scores.cpu().numpy().astype(np.float64)[index],
            k=search.k,
            layers=layers,
            heads=heads,
            labels=cells.labels,
            curves=curves,
            chosen=chosen,
        )


def learn_scores(task: Task, settings: Settings) -> tuple[Search, dict[str, list[float]]]:
    """Run the search; returns it with its curves."""
    cells = Cells(task, standardize=settings.standardize)
    encoding = Encoding(cells, settings.levels, task.rng("yoto levels"))
    fold = assign_folds(cells.labels, cells.groups, settings.folds, task.rng("yoto folds"))
    search = Search(task, cells, encoding, fold, settings)
    return search, search.run(passes(settings, cells.n_cells))


def as_layers(
    cells: Cells, encoding: Encoding, panel: torch.Tensor, nets: Networks
) -> tuple[list[Layer], dict[str, Layer]]:
    """Encoding and networks as layers that take the panel's expression as it was given."""
    weight, bias = encoding.layer(panel)
    weight = weight * cells.gain[panel].double().cpu().numpy()[:, None]
    (first, shift), *rest = nets.folded()[0]
    both = np.concatenate([first, -first], axis=1)
    return [(weight, bias), (both, shift), *rest], nets.folded()[1]
