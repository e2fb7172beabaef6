"""Correlations of predictions with the truth, gene by gene and group by group."""

from __future__ import annotations

import numpy as np


def gene_correlations(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Pearson correlation of each gene within each group of cells.

    Parameters
    ----------
    predicted, truth
        Shape (n_cells, n_genes); NaN in the truth where it is missing.
    groups
        Group of each cell; None is one group.

    Returns
    -------
    float64, shape (n_groups, n_genes), groups in sorted order; NaN where either side is constant
    or fewer than two cells are known.
    """
    codes = (
        np.zeros(len(truth), int) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    return np.stack(
        [_correlations(predicted[codes == g], truth[codes == g]) for g in range(codes.max() + 1)]
    )


def _correlations(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    seen = ~np.isnan(truth)
    n = np.maximum(seen.sum(axis=0), 1)

    def unit(values: np.ndarray) -> np.ndarray:
        values = np.where(seen, values, 0).astype(np.float64)
        squares = np.square(values).sum(axis=0)
        values = np.where(seen, values - values.sum(axis=0) / n, 0)
        length = np.sqrt(np.square(values).sum(axis=0))
        # What is left of a constant after centring is rounding.
        varies = length > 1e-7 * np.sqrt(squares)
        return np.asarray(values / np.where(varies, length, np.nan))

    with np.errstate(invalid="ignore"):
        return np.asarray((unit(predicted) * unit(truth)).sum(axis=0))


def mean_correlation(
    predicted: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Mean over genes, then over groups; genes without a correlation are left out.

    NaN when there is none at all.
    """
    found = gene_correlations(predicted, truth, groups)
    found = found[~np.isnan(found).all(axis=1)]
    return float(np.nanmean(found, axis=1).mean()) if len(found) else float("nan")
