"""From scores to a ranking: the rules that score-based methods share, and some common scores."""

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


def dispersion_scores(expression: np.ndarray, n_bins: int = 20) -> np.ndarray:
    """Normalised dispersion of each gene over the cells where it is known.

    That of Seurat's variable genes (Satija et al. 2015), as `scanpy.pp.highly_variable_genes` with
    flavour ``"seurat"`` has it, but for cells where a gene is not known.

    Parameters
    ----------
    expression
        Shape (n_cells, n_genes), log(1 + x); NaN where missing.
    n_bins
        Equally wide bins of log(1 + mean).

    Returns
    -------
    float32, NaN for a gene that is never expressed. A gene alone in its bin has 1.
    """
    import pandas as pd

    moments = [
        _moments(expression[:, start : start + 1024])
        for start in range(0, expression.shape[1], 1024)
    ]
    mean, variance = (np.concatenate(parts) for parts in zip(*moments, strict=True))
    mean = np.where(mean == 0, 1e-12, mean)
    ratio = variance / mean
    dispersion = np.log(np.where(ratio == 0, np.nan, ratio))
    table = pd.DataFrame({"value": dispersion, "bin": pd.cut(np.log1p(mean), n_bins, labels=False)})
    groups = table.groupby("bin")["value"]
    average, spread = groups.transform("mean"), groups.transform("std")
    alone = spread.isna() & table["value"].notna()
    score = (table["value"] - average.mask(alone, 0)) / spread.mask(alone, table["value"])
    # Sums in another order must not decide a tie.
    return np.asarray(score, dtype=np.float32)


def _moments(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (by n - 1) of expression before the logarithm; 0 where never known."""
    values = np.expm1(part.astype(np.float64))
    seen = ~np.isnan(values)
    n = seen.sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(n, 1)
    squares = np.nansum(np.square(values - mean), axis=0)
    return mean, squares / np.maximum(n - 1, 1)


def dispersion_order(expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genes by normalised dispersion, best first, and their scores in the genes' own order.

    Ties go to the larger variance of `expression`, then to the earlier gene; genes without a score
    are last.
    """
    scores = dispersion_scores(expression)
    seen = ~np.isnan(expression)
    n = np.maximum(seen.sum(axis=0), 1)
    filled = np.where(seen, expression, 0).astype(np.float64)
    mean = filled.sum(axis=0) / n
    variances = np.where(seen, np.square(filled - mean), 0).sum(axis=0) / n
    unscored = np.isnan(scores)
    keys = (-variances, np.where(unscored, 0, -scores), unscored, variances == 0)
    return np.lexsort(keys), scores


def class_means(values: Matrix, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean of each gene in each class; float64, classes x genes, 0 for a class without cells."""
    from scipy import sparse

    known = np.flatnonzero(codes >= 0)
    member = sparse.csr_matrix(
        (np.ones(len(known)), (codes[known], known)), shape=(n_classes, len(codes))
    )
    sums = member @ values
    dense = sums.toarray() if sparse.issparse(sums) else np.asarray(sums)
    sizes = np.maximum(np.bincount(codes[known], minlength=n_classes), 1)
    return np.asarray(dense, dtype=np.float64) / sizes[:, None]


def auroc(
    values: Matrix, codes: np.ndarray, n_classes: int, columns: np.ndarray, block: int = 256
) -> np.ndarray:
    """How well each gene alone tells each class from all other cells.

    Parameters
    ----------
    values
        Cells x genes; only the order of a gene's values counts.
    codes
        Class of each cell; cells with -1 are left out.
    n_classes
        Number of classes.
    columns
        Genes to look at.
    block
        Genes at a time.

    Returns
    -------
    float64, classes x columns: the rank-sum statistic over its largest value, 0.5 without cells in
    or outside a class.
    """
    from scipy.stats import rankdata

    known = codes >= 0
    member = np.eye(n_classes)[codes[known]].T
    sizes = member.sum(axis=1, keepdims=True)
    pairs = sizes * (known.sum() - sizes)
    found = np.full((n_classes, len(columns)), 0.5)
    rows = values[np.flatnonzero(known)]
    for start in range(0, len(columns), block):
        part = rows[:, columns[start : start + block]]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        sums = member @ rankdata(dense, axis=0)
        wins = sums - sizes * (sizes + 1) / 2
        found[:, start : start + block] = np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)
    return found
