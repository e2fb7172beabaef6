"""Markers of each class by rank sums, merged into one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.ranking import auroc

from .data import Cells

if TYPE_CHECKING:
    import torch

_GENES = 64


def marker_places(cells: Cells, genes: torch.Tensor, used: torch.Tensor) -> torch.Tensor | None:
    """Places of genes when each class in turn gives its best one, the surest first in a round.

    The best gene of a class is that with the largest rank sum of its cells against all others
    (one-sided: a marker is expressed more), and how sure it is the normal score of that sum,
    without a correction for ties: genes that most cells lack come later.

    Parameters
    ----------
    cells
        Training cells.
    genes
        int64 (n,): candidates to be ordered.
    used
        Which cells count, bool (n_cells,).

    Returns
    -------
    float64 (n,), 1 for the first gene; None where no task has classes.
    """
    import torch

    tasks = [labels for labels in cells.labels if labels.target.kind == "classification"]
    if not tasks:
        return None
    codes = [
        torch.where(used, labels.values, -1).cpu().numpy().astype(np.int64) for labels in tasks
    ]
    scores = [np.empty((labels.n_outputs, len(genes))) for labels in tasks]
    everyone = np.arange(cells.n_cells)
    for start in range(0, len(genes), _GENES):
        part = slice(start, start + _GENES)
        values = cells.batch(everyone, genes[part]).cpu().numpy()
        columns = np.arange(values.shape[1])
        for score, code, labels in zip(scores, codes, tasks, strict=True):
            score[:, part] = auroc(values, code, labels.n_outputs, columns)
    sure = np.concatenate([_normal_scores(*pair) for pair in zip(scores, codes, strict=True)])
    # Round of each gene in the list of each class; a gene comes in its first round.
    rounds = (-sure).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    first = rounds.min(axis=0)
    best = np.where(rounds == first, sure, -np.inf).max(axis=0)
    place = np.empty(len(genes))
    place[np.lexsort((-best, first))] = np.arange(1, len(genes) + 1)
    return torch.from_numpy(place).to(genes.device)


def _normal_scores(auroc: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """AUROC (classes x genes) in units of its standard error for genes that say nothing."""
    sizes = np.bincount(codes[codes >= 0], minlength=len(auroc)).astype(np.float64)[:, None]
    others = sizes.sum() - sizes
    spread = np.sqrt((sizes.sum() + 1) / np.maximum(12 * sizes * others, 1))
    return (auroc - 0.5) / spread
