"""From scores to a ranking: the rules that all score-based methods share."""

from __future__ import annotations

import numpy as np

from panelbench.method import Matrix, Selection, Task

_GENES = 512
"""Genes that are turned into float64 at a time."""


def gene_variances(X: Matrix) -> np.ndarray:
    """Population variance of each gene.

    Parameters
    ----------
    X
        cells x genes, array or CSR.

    Returns
    -------
    float64 array of shape (n_genes,). Exactly 0 for a constant gene, positive for any other.
    """
    if isinstance(X, np.ndarray):
        parts = [X[:, start : start + _GENES] for start in range(0, X.shape[1], _GENES)]
        sums = np.concatenate([part.sum(axis=0, dtype=np.float64) for part in parts])
        squares = np.concatenate([np.square(part, dtype=np.float64).sum(axis=0) for part in parts])
        constant = X.max(axis=0) == X.min(axis=0)
    else:
        values = X.data.astype(np.float64)
        sums = np.bincount(X.indices, weights=values, minlength=X.shape[1])
        squares = np.bincount(X.indices, weights=values**2, minlength=X.shape[1])
        constant = X.max(axis=0).toarray().ravel() == X.min(axis=0).toarray().ravel()
    # Both forms add the cells up one by one in their order, so that an array and a CSR matrix of
    # the same values have the same variances to the last bit, and tied genes the same order.
    variances = squares / X.shape[0] - (sums / X.shape[0]) ** 2
    return np.where(constant, 0.0, np.maximum(variances, np.finfo(np.float64).tiny))


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
