"""From scores to a ranking: the rules that all score-based methods share."""

from __future__ import annotations

import numpy as np

from panelbench.method import Matrix, Selection, Task

_CELLS = 512
"""Cells that are turned into float64 at a time."""


def gene_variances(X: Matrix) -> np.ndarray:
    """Population variance of each gene.

    Cells are added up in the same order and groups for an array and for CSR, so both have the
    same variances to the last bit, and tied genes the same order.

    Parameters
    ----------
    X
        cells x genes, array or CSR; no copy of the whole is made.

    Returns
    -------
    float64 array of shape (n_genes,). Exactly 0 for a constant gene, positive for any other.
    """
    n_cells, n_genes = X.shape
    sums, squares = np.zeros(n_genes), np.zeros(n_genes)
    low, high = np.full(n_genes, np.inf), np.full(n_genes, -np.inf)
    seen = np.zeros(n_genes, dtype=np.int64)
    for start in range(0, n_cells, _CELLS):
        if isinstance(X, np.ndarray):
            part = X[start : start + _CELLS].astype(np.float64)
            low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
            seen += len(part)
            sums += part.sum(axis=0)
            squares += np.square(part, out=part).sum(axis=0)
            continue
        held = slice(X.indptr[start], X.indptr[min(start + _CELLS, n_cells)])
        genes, values = X.indices[held], X.data[held].astype(np.float64)
        np.minimum.at(low, genes, values)
        np.maximum.at(high, genes, values)
        seen += np.bincount(genes, minlength=n_genes)
        sums += np.bincount(genes, weights=values, minlength=n_genes)
        squares += np.bincount(genes, weights=values**2, minlength=n_genes)
    # What CSR does not hold is zero.
    low = np.where(seen < n_cells, np.minimum(low, 0), low)
    high = np.where(seen < n_cells, np.maximum(high, 0), high)
    variances = np.maximum(squares / n_cells - (sums / n_cells) ** 2, np.finfo(np.float64).tiny)
    return np.where(high > low, variances, 0.0)


def score_order(scores: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Gene indices, best first: by score, ties by variance, then by position.

    A gene without variance never stands above one with variance; NaN scores come after all
    numbers.
    """
    scores = np.asarray(scores, dtype=np.float64)
    missing = np.isnan(scores)
    key = np.where(missing, -np.inf, scores)
    return np.lexsort((np.arange(len(key)), -variances, -key, missing, variances == 0))


def rank_by_score(task: Task, scores: np.ndarray, **info: object) -> Selection:
    """Rank all genes of a task by a score, higher is better.

    Parameters
    ----------
    task
        The task; its `X` gives the variances that break ties.
    scores
        Shape (n_genes,); NaN where a gene has no score. Infinite scores are kept in order and
        recorded as the largest finite number.
    info
        Entries for `Selection.info`; ``unscored`` counts genes ranked by variance alone.

    Returns
    -------
    A full ranking with finite, non-increasing scores.
    """
    variances = gene_variances(task.X)
    order = score_order(scores, variances)
    unscored = int(np.isnan(scores).sum())
    low = np.nanmin(scores, initial=0.0)
    finite = np.nan_to_num(np.where(np.isnan(scores), low, scores)[order])
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=np.minimum.accumulate(finite),
        info={"unscored": unscored, **info} if unscored else info,
    )
