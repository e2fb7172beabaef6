"""mRMR: genes relevant to the labels and not redundant with those chosen before.

The greedy rule of Ding & Peng (2003) in the form of mrmr-selection: the next gene has the largest
relevance divided by its mean absolute correlation with the genes chosen so far. The choices are
the library's; each step here is one matrix-vector product on the matrix as it is, dense or CSR.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.method import Matrix, Selection, Task, method
from panelbench.ranking import score_order

FLOOR = 0.001
"""Smallest redundancy, as in mrmr-selection: no gene is rewarded for being less redundant."""

# Cells per product: float32 sums this long are accurate to about 1e-6, and add up in float64.
_ROWS = 1024
_ROUNDING = 4e-6
# Correlations this close to 1 are 1: the genes are copies of each other but for scale.
_COPY = 1e-12
# Variance below this share of the mean square is the rounding of a constant.
_CONSTANT = 1e-12


@dataclass(frozen=True)
class Params:
    """Parameters of mRMR.

    Attributes
    ----------
    backend
        ``"panelbench"``, or ``"library"`` to run mrmr-selection itself.
    """

    backend: Literal["panelbench", "library"] = "panelbench"


_DECLARED: dict[str, Any] = {
    "params": Params,
    "supervised": True,
    "regression": True,
    "nested": True,
    "needs": "prepared",
    "memory_gb": 12.0,
    "libraries": ("numpy", "scikit-learn", "mrmr-selection"),
    "cite": "Ding & Peng 2003",
    "doi": "10.1109/CSB.2003.1227396",
}


@method("mrmr-f", label="mRMR-f", **_DECLARED)
def select_by_f(task: Task, params: Params) -> Selection:
    """Rank genes by F statistic over mean absolute correlation with the genes before.

    Relevance is the one-way ANOVA F statistic (classes) or the F statistic of the univariate
    regression. See `greedy_mrmr` for the rule and `Selection.scores`.

    Raises
    ------
    NotApplicable
        When there are several outputs to predict.
    """
    return _select(task, params, "f")


@method("mrmr-rf", label="mRMR-rf", **_DECLARED)
def select_by_forest(task: Task, params: Params) -> Selection:
    """Rank genes by random-forest importance over mean absolute correlation with those before.

    The forest is mrmr-selection's: scikit-learn's defaults with depth 5 and random state 0,
    whatever the seed of the run.

    Raises
    ------
    NotApplicable
        When there are several outputs to predict.
    """
    return _select(task, params, "rf")


def _select(task: Task, params: Params, relevance: Literal["f", "rf"]) -> Selection:
    from threadpoolctl import threadpool_limits

    if task.target.values.squeeze().ndim > 1:
        raise NotApplicable(
            f"mrmr-{relevance}: task {task.target.name!r} has {task.target.values.shape[1]} "
            "outputs; it handles one"
        )
    # One thread saturates the memory in a matrix-vector product, and adds up in one order.
    with threadpool_limits(1, "blas"):
        columns = Columns(task.X)
        if params.backend == "library":
            chosen, scores = _run_library(task, relevance), None
        else:
            score = f_statistic if relevance == "f" else forest_importance
            chosen, scores = greedy_mrmr(columns, score(task, columns), task)
    rest = score_order(np.zeros(task.n_genes), columns.deviations)
    filling = rest[~np.isin(rest, chosen)][: task.k - len(chosen)]
    if len(filling):
        warnings.warn(
            f"{len(chosen)} genes are relevant; {len(filling)} of largest variance fill the panel",
            stacklevel=2,
        )
    return Selection(
        ranking=task.genes[np.concatenate([chosen, filling]).astype(np.int64)].tolist(),
        scores=None if scores is None else np.concatenate([scores, np.zeros(len(filling))]),
        info={"filled": len(filling)},
    )


class Columns:
    """Moments and products of the columns of a matrix, without a copy of it.

    Parameters
    ----------
    X
        cells x genes, float32, array or CSR.

    Attributes
    ----------
    means, deviations
        Mean and population standard deviation of each gene, float64 of shape (n_genes,);
        the deviation is exactly 0 for a constant gene.
    offsets
        Root mean square of each gene in standard deviations; rounding grows with it. 0 for a
        constant gene.
    """

    def __init__(self, X: Matrix) -> None:
        self.X = X
        self._parts = _row_parts(X)
        squares = np.zeros(X.shape[1])
        for part in self._parts:
            if isinstance(part, np.ndarray):
                squares += np.einsum("ij,ij->j", part, part, dtype=np.float64)
            else:
                weights = part.data.astype(np.float64) ** 2
                squares += np.bincount(part.indices, weights, minlength=len(squares))
        self.squares = squares
        self.means = self.products(np.ones((X.shape[0], 1)))[:, 0] / X.shape[0]
        mean_squares = squares / X.shape[0]
        variances = mean_squares - self.means**2
        variances[variances <= _CONSTANT * mean_squares] = 0
        self.deviations = np.sqrt(variances)
        self.offsets = self._standardise(np.sqrt(mean_squares))

    def products(self, weights: np.ndarray) -> np.ndarray:
        """``X.T @ weights`` in the precision of the weights, summed in float64.

        Parameters
        ----------
        weights
            float32 or float64 of shape (n_cells, n).

        Returns
        -------
        float64 array of shape (n_genes, n).
        """
        total = np.zeros((self.X.shape[1], weights.shape[1]))
        starts = range(0, self.X.shape[0], _ROWS)
        for part, start in zip(self._parts, starts, strict=True):
            total += part.astype(weights.dtype, copy=False).T @ weights[start : start + _ROWS]
        return total

    def standardised(self, genes: np.ndarray) -> np.ndarray:
        """Columns with mean 0 and standard deviation 1, float64 of shape (n, n_cells)."""
        part = self.X[:, genes]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        centred = dense.T.astype(np.float64) - self.means[genes, None]
        return np.asarray(centred / self.deviations[genes, None])

    def correlations(self, profile: np.ndarray) -> np.ndarray:
        """Absolute correlations of all genes with a standardised profile, to about 1e-6.

        The profile has mean 0, so the means of the genes drop out of the product. 0 for a
        constant gene.
        """
        product = self.products(profile.astype(np.float32)[:, None])[:, 0]
        return self._standardise(np.abs(product) / len(profile))

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        """Values divided by the standard deviation of their gene, 0 for a constant one."""
        varying = self.deviations > 0
        return np.asarray(values * varying / np.where(varying, self.deviations, 1))


def _row_parts(X: Matrix) -> list[Any]:
    """Rows of a matrix, some at a time, sharing its memory."""
    from scipy import sparse

    bounds = [(start, min(start + _ROWS, X.shape[0])) for start in range(0, X.shape[0], _ROWS)]
    if isinstance(X, np.ndarray):
        return [X[start:stop] for start, stop in bounds]
    parts = []
    for start, stop in bounds:
        held = slice(X.indptr[start], X.indptr[stop])
        pointers = X.indptr[start : stop + 1] - X.indptr[start]
        arrays = (X.data[held], X.indices[held], pointers)
        parts.append(sparse.csr_matrix(arrays, shape=(stop - start, X.shape[1])))
    return parts


def f_statistic(task: Task, columns: Columns) -> np.ndarray:
    """Relevance by F statistic, as scikit-learn's ``f_classif`` and ``f_regression``.

    Returns
    -------
    float64 array of shape (n_genes,), not negative; 0 for a constant gene, infinite for a gene
    that separates the classes without a rest.
    """
    n = task.n_cells
    with np.errstate(divide="ignore", invalid="ignore"):
        if task.target.kind == "classification":
            codes = np.unique(task.target.values, return_inverse=True)[1]
            members = np.eye(codes.max() + 1)[codes]
            sums = columns.products(members)
            squared_mean = sums.sum(axis=1) ** 2 / n
            between = (sums**2 / members.sum(axis=0)).sum(axis=1) - squared_mean
            within = columns.squares - squared_mean - between
            within[within <= _CONSTANT * columns.squares] = 0
            n_classes = members.shape[1]
            statistic = (between / (n_classes - 1)) / (within / (n - n_classes))
        else:
            centred = task.target.values.reshape(-1) - task.target.values.mean()
            norms = np.sqrt(n) * columns.deviations * np.linalg.norm(centred)
            squared = (columns.products(centred[:, None])[:, 0] / norms) ** 2
            statistic = squared / (1 - squared) * (n - 2)
            statistic[squared >= 1] = np.inf
    statistic[columns.deviations == 0] = 0
    return np.asarray(np.maximum(np.nan_to_num(statistic, nan=0.0, posinf=np.inf), 0))


def forest_importance(task: Task, columns: Columns) -> np.ndarray:
    """Relevance by the importance of a shallow random forest, as in mrmr-selection.

    Returns
    -------
    float64 array of shape (n_genes,), not negative.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if task.target.kind == "classification" else RandomForestRegressor
    forest = kind(max_depth=5, random_state=0, n_jobs=task.n_jobs)
    task.progress(0.0, "growing the random forest")
    forest.fit(task.X, task.target.values.reshape(-1))
    return np.asarray(forest.feature_importances_, dtype=np.float64)


def greedy_mrmr(
    columns: Columns, relevance: np.ndarray, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Choose up to k genes one by one, as ``mrmr_base`` of mrmr-selection.

    The first gene has the largest relevance; each next one the largest relevance divided by its
    mean redundancy, the absolute correlation with each chosen gene and at least `FLOOR`. A gene
    whose mean redundancy is 1, a copy of all those chosen, scores 0. The earlier gene wins a tie.

    Parameters
    ----------
    columns
        The matrix.
    relevance
        Relevance of each gene, shape (n_genes,); a gene without any, or constant, is never
        chosen.
    task
        Gives k and the progress callback.

    Returns
    -------
    Chosen genes (int64), and the score of each when it was chosen (finite float64).
    """
    relevance = np.where(columns.deviations > 0, relevance, 0.0)
    eligible = relevance > 0
    n_chosen = min(task.k, int(eligible.sum()))
    if n_chosen == 0:
        return np.empty(0, dtype=np.int64), np.empty(0)
    chosen = [int(np.argmax(relevance))]
    scores = [relevance[chosen[0]]]
    profiles = np.empty((n_chosen, task.n_cells))
    total = np.zeros(len(relevance))
    for step in range(1, n_chosen):
        eligible[chosen[-1]] = False
        profiles[step - 1] = columns.standardised(np.array(chosen[-1:]))[0]
        total += _floored(columns.correlations(profiles[step - 1]))
        best, score = _best(columns, relevance, total / step, eligible, profiles[:step])
        chosen.append(best)
        scores.append(score)
        task.progress(step / n_chosen, f"gene {step + 1} of {n_chosen}")
    return np.array(chosen), np.nan_to_num(np.array(scores))


def _floored(correlations: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(correlations, FLOOR))


def _scores(relevance: np.ndarray, redundancy: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(redundancy >= 1 - _COPY, 0.0, relevance / redundancy))


def _best(
    columns: Columns,
    relevance: np.ndarray,
    redundancy: np.ndarray,
    eligible: np.ndarray,
    profiles: np.ndarray,
) -> tuple[int, float]:
    """Gene with the best score; close calls are settled in float64.

    The redundancies come from float32 products. Genes whose scores could be the best within
    that rounding get theirs anew, as do those that may be copies.
    """
    scores = np.where(eligible, relevance / redundancy, -1.0)
    slack = np.where(eligible, _ROUNDING * columns.offsets / redundancy, 0.0)
    while True:
        rivals = np.flatnonzero(scores * (1 + slack) >= np.max(scores * (1 - slack)))
        copies = redundancy[rivals] >= 1 - slack[rivals]
        open_calls = rivals[(slack[rivals] > 0) & ((len(rivals) > 1) | copies)]
        if not len(open_calls):
            best = int(rivals[np.argmax(scores[rivals])])
            return best, float(scores[best])
        for some in np.array_split(open_calls, len(open_calls) // 256 + 1):
            exact = np.abs(profiles @ columns.standardised(some).T) / profiles.shape[1]
            scores[some] = _scores(relevance[some], _floored(exact).mean(axis=0))
        slack[open_calls] = 0


def _run_library(task: Task, relevance: Literal["f", "rf"]) -> np.ndarray:
    """Choices of mrmr-selection, with `Task.n_jobs` processes."""
    import pandas as pd

    # Importing the library silences all warnings of the process.
    with warnings.catch_warnings():
        from mrmr import mrmr_classif, mrmr_regression

        run = mrmr_classif if task.target.kind == "classification" else mrmr_regression
        names = run(
            X=pd.DataFrame(task.dense().astype(np.float64)),
            y=pd.Series(task.target.values.reshape(-1)),
            K=task.k,
            relevance=relevance,
            n_jobs=task.n_jobs,
            show_progress=False,
        )
    return np.array(names, dtype=np.int64)
