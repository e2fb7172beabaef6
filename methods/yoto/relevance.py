"""Where the scores start: how well each gene alone tells the classes apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .data import Cells, Labels
from .encoding import Encoding
from .losses import present

if TYPE_CHECKING:
    import torch

_ROWS = 256


def relevance(cells: Cells, encoding: Encoding) -> torch.Tensor:
    """How well a step of each gene tells one class from the rest, or follows a number.

    For every class of every task the genes are ranked by their best step's correlation with it
    (which ranks as its t statistic does). A gene's relevance falls with the logarithm of its best
    rank, from 1 for a first to 0 for a last, so that every class has genes of its own up front,
    however few cells it has. A gene that chance explains has relevance 0, wherever it ranks:
    what it does together with others is for the networks to find.

    Returns
    -------
    float32, shape (n_candidates,).
    """
    import torch

    outputs = torch.cat([_indicators(labels) for labels in cells.labels], dim=1)
    every = torch.arange(len(cells.genes), device=cells.device)
    columns = len(every) * encoding.steps
    # Sums over the cells, a block at a time.
    products = torch.zeros(columns, outputs.shape[1], dtype=torch.float64, device=cells.device)
    total, squares = torch.zeros(2, columns, dtype=torch.float64, device=cells.device)
    for start in range(0, cells.n_cells, _ROWS):
        rows = np.arange(start, min(start + _ROWS, cells.n_cells))
        x = encoding(cells.batch(rows, every), every)
        products += x.T @ outputs[start : start + _ROWS]
        total += x.sum(0)
        squares += x.square().sum(0)
    spread = (squares - total.square() / cells.n_cells).clamp(min=1e-6).sqrt()
    steps = (products / spread[:, None]).view(len(every), encoding.steps, -1)
    best = steps.amax(dim=1)
    rank = best.argsort(dim=0, descending=True, stable=True).argsort(dim=0) + 1
    found = 1 - rank.double().log() / math.log(max(2, len(every)))
    # The largest of so many correlations that mean nothing is about this.
    chance = math.sqrt(2 * math.log(max(2, len(every))) / cells.n_cells)
    return torch.where(best > chance, found, 0.0).amax(dim=1).float()


def _indicators(labels: Labels) -> torch.Tensor:
    """Centred class indicators or values, 0 where missing: (n_cells, n_outputs)."""
    import torch

    there = present(labels, labels.values)[:, None]
    if labels.target.kind == "classification":
        found = torch.nn.functional.one_hot(labels.values.clamp(min=0), labels.n_outputs).float()
        found = found[:, (found * there).sum(0) > 0]
    else:  # a number may rise or fall with a gene
        found = torch.cat([labels.values, -labels.values], dim=1).nan_to_num()
    centre = (found * there).sum(0) / there.sum().clamp(min=1)
    return (found - centre) * there
