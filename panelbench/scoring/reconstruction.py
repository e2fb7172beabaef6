"""Reconstruct the expression of all genes from a panel, and say how well it went.

The measures are those of MarkerMap (Gregory et al. 2024, npj Systems Biology and Applications),
Tables 2 and 4. Everything is measured on test cells; expression is cells x genes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panelbench.evaluator import Cells, Scores
from panelbench.method import Needs
from panelbench.scoring import embeddings

VARIABLE = 0.2
"""Share of the genes that count as most variable."""


def linear(panel_train: np.ndarray, X_train: np.ndarray, panel_test: np.ndarray) -> np.ndarray:
    """Predict all genes from the panel's by ordinary least squares with an intercept.

    Parameters
    ----------
    panel_train, X_train
        Training cells: the panel's columns, and all genes.
    panel_test
        Test cells: the panel's columns.

    Returns
    -------
    float64 of shape (n_test, n_genes).
    """
    from sklearn.linear_model import LinearRegression

    model = LinearRegression()
    model.fit(panel_train.astype(np.float64), X_train.astype(np.float64))
    return np.asarray(model.predict(panel_test.astype(np.float64)))


def standardised_logs(X: np.ndarray, like: np.ndarray) -> np.ndarray:
    """ln(1 + counts), brought to mean 0 and standard deviation 1 over the whole matrix `like`.

    One mean and one deviation for all genes and cells, as in the paper's Table 4.
    """
    logs = np.log1p(like)
    return np.asarray((np.log1p(np.maximum(X, 0)) - logs.mean()) / (logs.std() or 1.0))


def distances(X: np.ndarray, again: np.ndarray) -> dict[str, float]:
    """How far reconstructed cells are from the true ones.

    Parameters
    ----------
    X, again
        True and reconstructed expression, of one shape.

    Returns
    -------
    ``l2`` and ``l1``: squared and absolute error, mean over all values (the paper's Table 2);
    ``l2_cell``: Euclidean distance, mean over cells (Table 4); ``explained_variance``: 1 minus
    the squared error over the squared distance from each gene's mean, left out where the cells
    do not vary.
    """
    error = again.astype(np.float64) - X
    total = float(np.square(X - X.mean(axis=0, dtype=np.float64)).sum())
    found = {
        "l2": float(np.square(error).mean()),
        "l1": float(np.abs(error).mean()),
        "l2_cell": float(np.sqrt(np.square(error).sum(axis=1)).mean()),
    }
    if total > 0:
        found["explained_variance"] = 1.0 - float(np.square(error).sum()) / total
    return found


def variances(X: np.ndarray) -> np.ndarray:
    """Variance of every gene over cells, float64 of shape (n_genes,)."""
    return np.asarray(X.var(axis=0, dtype=np.float64))


def variance_agreement(X: np.ndarray, again: np.ndarray) -> dict[str, float]:
    """How alike the gene variances of true and reconstructed cells are (the paper's Table 4).

    Returns
    -------
    ``jaccard_variable``: Jaccard index of the fifth of the genes that varies most in each (ties
    go to the gene that comes first); ``spearman_variance``: rank correlation of the variances,
    left out where one side does not vary. Nothing for fewer than two cells.
    """
    from scipy.stats import spearmanr

    if len(X) < 2:
        return {}
    first, second = variances(X), variances(again)
    n = int(VARIABLE * X.shape[1])
    found = {}
    if n:
        one, two = (set(np.argsort(-v, kind="stable")[:n].tolist()) for v in (first, second))
        found["jaccard_variable"] = len(one & two) / len(one | two)
    if np.ptp(first) > 0 and np.ptp(second) > 0:
        found["spearman_variance"] = float(spearmanr(first, second).statistic)
    return found


def scored(test: Cells, again: np.ndarray, needs: Needs) -> Scores:
    """Score reconstructed expression, over all test cells and class by class.

    Counts are compared as the MarkerMap paper does: variances as they are, distances between
    logarithms that are standardised over the whole matrix.

    Parameters
    ----------
    test
        Test cells.
    again
        Their reconstructed expression, cells x genes.
    needs
        Representation of `again`.

    Returns
    -------
    Metrics, also of each class; ``variances`` (2 x genes), ``components`` (2 x cells x 2) and
    ``codes`` of the cells for pictures, true before reconstructed.
    """
    X = test.dense(needs=needs)
    near, far = X, again
    if needs == "counts":
        far, near = (standardised_logs(item, X) for item in (again, X))

    def measured(rows: Any) -> dict[str, float]:
        return {**distances(near[rows], far[rows]), **variance_agreement(X[rows], again[rows])}

    target = test.target
    codes = target.values if target.kind == "classification" else np.zeros(len(X), np.int64)
    return Scores(
        metrics=measured(slice(None)),
        by_class={
            name: measured(codes == code)
            for code, name in enumerate(target.classes)
            if (codes == code).any()
        },
        arrays={
            "variances": np.stack([variances(item) for item in (X, again)]),
            "components": embeddings.principal_components(near, far),
            "codes": codes,
        },
    )
