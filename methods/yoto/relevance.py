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

_ENTRIES = 1 << 20  # of the matrix that is looked at in one go


def relevance(cells: Cells, encoding: Encoding) -> torch.Tensor:
    """How well a step of each gene tells one class from the rest, or follows a number.

    For every class of every task the genes are ranked by their best step's correlation with it
    (which ranks as its t statistic does). A gene's relevance falls with the logarithm of its best
    rank, from 1 for a first to 0 for a last, so that every class has genes of its own up front,
    however few cells it has.

    Returns
    -------
    float32, shape (n_candidates,).
    """
    import torch

    outputs = torch.cat([_indicators(labels) for labels in cells.labels], dim=1)
    outputs = outputs / outputs.square().sum(0).clamp(min=1e-12).sqrt()
    n_genes = len(cells.genes)
    every = np.arange(cells.n_cells)
    best = []
    block = max(16, _ENTRIES // cells.n_cells)
    for start in range(0, n_genes, block):
        genes = torch.arange(start, min(start + block, n_genes), device=cells.device)
        x = encoding(cells.batch(every, genes), genes)
        x = x - x.mean(0)
        size = x.square().sum(0).clamp(min=1e-12).sqrt()
        correlation = (x.T @ outputs) / size[:, None]
        best.append(correlation.view(len(genes), encoding.steps, -1).amax(dim=1))
    order = torch.cat(best).argsort(dim=0, descending=True, stable=True)
    rank = order.argsort(dim=0).amin(dim=1) + 1
    return 1 - rank.float().log() / math.log(max(2, n_genes))


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
