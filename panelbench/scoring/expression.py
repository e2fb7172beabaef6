"""How well expression is predicted: correlations by output and group, and what depth has in it.

A correlation is taken within each group of cells (slide, donor) and each output; the mean is over
outputs, then over groups. So differences between groups, which are easy to predict, earn nothing.

Sequencing depth is in the expression of every gene, and in many inputs. With x the logarithm of a
cell's total count, the depth-adjusted correlation of an output within a group is

    r(y - b x, p - c x)

where y is the truth and p the prediction. The slope b is that of the output over the training
cells, by least squares after centring y and x within groups; c is that of the prediction over the
group's own test cells. What is correlated of the prediction has no linear part of depth then, so
that none can be rewarded, whatever b.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from panelbench.scoring.metrics import pearson_per_output


def correlations(
    truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Pearson correlation of each output within each group of cells.

    Parameters
    ----------
    truth, predicted
        Shape (n_cells, n_outputs); NaN in the truth where it is not known.
    groups
        Group of each cell; None is one group.

    Returns
    -------
    float64, shape (n_groups, n_outputs), groups in sorted order. A constant prediction has 0; NaN
    where the truth is constant or known for fewer than two cells.
    """
    return np.stack([_within(truth[rows], predicted[rows]) for rows in _rows(groups, len(truth))])


def _rows(groups: np.ndarray | None, n: int) -> Iterator[np.ndarray]:
    if groups is None:
        yield np.arange(n)
        return
    for name in np.unique(groups):
        yield np.flatnonzero(groups == name)


def _within(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    found = np.full(truth.shape[1], np.nan)
    seen = ~np.isnan(truth)
    whole = seen.all(axis=0)
    if len(truth) > 1 and whole.any():
        found[whole] = pearson_per_output(truth[:, whole], predicted[:, whole])
    for column in np.flatnonzero(~whole & (seen.sum(axis=0) > 1)):
        rows = seen[:, column]
        found[column] = pearson_per_output(truth[rows, column], predicted[rows, column])[0]
    return found


def mean_correlation(by_group: np.ndarray) -> float:
    """Mean over outputs, then over groups, of what `correlations` gives; NaN when there is none."""
    defined = by_group[~np.isnan(by_group).all(axis=1)]
    return float(np.nanmean(defined, axis=1).mean()) if len(defined) else float("nan")


def ranks(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Ranks of each output's known values within each group, ties sharing theirs; NaN stays."""
    from scipy.stats import rankdata

    found = np.empty(values.shape)
    for rows in _rows(groups, len(values)):
        found[rows] = rankdata(values[rows], axis=0, nan_policy="omit")
    return found


def depth_slopes(
    values: np.ndarray, depth: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Slope of each output by log depth, after centring both within groups.

    Parameters
    ----------
    values
        Shape (n_cells, n_outputs), NaN where not known.
    depth
        Logarithm of the total count, shape (n_cells,).
    groups
        Group of each cell; None is one group.

    Returns
    -------
    float64 of shape (n_outputs,); 0 where depth does not vary.
    """
    products, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for rows in _rows(groups, len(values)):
        seen = ~np.isnan(values[rows])
        n = np.maximum(seen.sum(axis=0), 1)
        x = np.where(seen, depth[rows, None], 0.0)
        y = np.where(seen, values[rows], 0.0).astype(np.float64)
        x = np.where(seen, x - x.sum(axis=0) / n, 0.0)
        y = np.where(seen, y - y.sum(axis=0) / n, 0.0)
        products += (x * y).sum(axis=0)
        squares += np.square(x).sum(axis=0)
    return np.where(squares > 1e-12, products / np.maximum(squares, 1e-12), 0.0)


def adjusted_correlations(
    truth: np.ndarray,
    predicted: np.ndarray,
    depth: np.ndarray,
    slopes: np.ndarray,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Correlations with depth taken out of truth and prediction, as the module says.

    Parameters
    ----------
    truth, predicted, groups
        As for `correlations`.
    depth
        Logarithm of the total count of each cell.
    slopes
        What `depth_slopes` gives for the training cells.

    Returns
    -------
    As `correlations`; 0 for a prediction that is nothing but depth.
    """
    left = predicted.astype(np.float64)
    for rows in _rows(groups, len(truth)):
        # By the cells where an output is known, since these are what is correlated.
        known = np.where(np.isnan(truth[rows]), np.nan, left[rows])
        own = depth_slopes(known, depth[rows])
        rest = left[rows] - left[rows].mean(axis=0)
        rest -= np.outer(depth[rows] - depth[rows].mean(), own)
        # What is left of a prediction that is constant, or depth alone, is rounding.
        nothing = np.linalg.norm(rest, axis=0) <= 1e-9 * np.linalg.norm(left[rows], axis=0)
        left[rows] = np.where(nothing, 0.0, rest)
    return correlations(truth - np.outer(depth, slopes), left, groups)


def standard_errors(
    truth: np.ndarray, predicted: np.ndarray, training: np.ndarray
) -> tuple[float, float]:
    """Mean squared and mean absolute error, in units of each output's spread in training cells.

    The mean over the known cells of each output, then over outputs. Predicting the training mean
    has a squared error of about 1.
    """
    spread = np.nanstd(training.astype(np.float64), axis=0)
    error = (predicted - truth) / np.where(spread > 0, spread, 1.0)
    seen = ~np.isnan(error)
    kept = seen.any(axis=0)
    error, n = np.where(seen, error, 0.0)[:, kept], seen[:, kept].sum(axis=0)
    squared, absolute = np.square(error).sum(axis=0) / n, np.abs(error).sum(axis=0) / n
    return float(squared.mean()), float(absolute.mean())
