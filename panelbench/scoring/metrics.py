"""Metrics: small pure functions, arrays in, floats out.

Labels are int codes, probabilities have one column per class code. What cannot be computed on
the cells at hand (the AUROC of a class without test cells) is left out, never invented;
`classification_notes` says so in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from panelbench.errors import UnknownName
from panelbench.evaluator import Metric as Metric
from panelbench.scoring.panel_metrics import Stability as Stability
from panelbench.scoring.panel_metrics import jaccard as jaccard
from panelbench.scoring.panel_metrics import marker_recovery as marker_recovery
from panelbench.scoring.panel_metrics import redundancy as redundancy
from panelbench.scoring.panel_metrics import stability as stability

CLASSIFICATION = (
    Metric("accuracy", "Accuracy", "classification"),
    Metric("balanced_accuracy", "Balanced accuracy", "classification"),
    Metric("f1_macro", "Macro F1", "classification"),
    Metric("f1_weighted", "Weighted F1", "classification"),
    Metric("auroc", "AUROC", "classification"),
    Metric("auprc", "AUPRC", "classification"),
)
"""What `classification` gives."""

REGRESSION = (
    Metric("pearson", "Pearson r", "regression", percent=False, low=-1.0),
    Metric("r2", "R²", "regression", percent=False, low=-inf),
    Metric("mse", "MSE", "regression", higher_is_better=False, percent=False, high=inf),
)
"""What `regression` gives."""

EXPRESSION = (
    Metric("l2", "ℓ2", "expression", higher_is_better=False, percent=False, high=inf),
    Metric("l1", "ℓ1", "expression", higher_is_better=False, percent=False, high=inf),
    Metric("l2_cell", "ℓ2 per cell", "expression", False, percent=False, high=inf),
    Metric("explained_variance", "Explained variance", "expression", percent=False, low=-inf),
    Metric("jaccard_variable", "Jaccard of variable genes", "expression", percent=False),
    Metric("spearman_variance", "Spearman of variances", "expression", percent=False, low=-1.0),
)
"""How well all genes are reconstructed (see `panelbench.scoring.reconstruction`)."""

PANEL = (
    Metric("jaccard", "Jaccard over seeds", "panel", percent=False),
    Metric("stability", "Stability", "panel", percent=False, low=-inf),
    Metric("redundancy", "Redundancy", "panel", higher_is_better=False, percent=False),
    Metric("marker_recall", "Markers recovered", "panel"),
    Metric("marker_precision", "Panel genes that are markers", "panel"),
    Metric("marker_classes", "Cell types with a marker", "panel"),
)
"""About the panels themselves; `redundancy` is an evaluator's, the others the report computes."""

METRICS: dict[str, Metric] = {
    metric.id: metric for metric in (*CLASSIFICATION, *REGRESSION, *EXPRESSION, *PANEL)
}
"""The metrics that all share, by id; evaluators may declare further ones."""


def metric(name: str, where: str = "", known: Mapping[str, Metric] = METRICS) -> Metric:
    """Look a metric up, among the shared ones or others.

    Raises
    ------
    UnknownName
        With the near matches.
    """
    if name not in known:
        raise UnknownName("metric", name, known, where)
    return known[name]


# -- classification ---------------------------------------------------------------------------


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of cells predicted right; codes of shape (n_cells,)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(y_true, y_pred))


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean recall over the classes of the test cells; codes of shape (n_cells,)."""
    from sklearn.metrics import recall_score

    present = np.unique(y_true)
    return float(recall_score(y_true, y_pred, labels=present, average="macro", zero_division=0))


def f1_macro(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean F1 over the classes found in the test labels or in the predictions.

    This is scikit-learn's choice: a class that is only predicted counts with F1 = 0, a class
    found in neither does not count.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(y_true, y_pred, average="macro", zero_division=0))


def f1_weighted(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean F1 over classes, weighted by their number of test cells."""
    from sklearn.metrics import f1_score

    return float(f1_score(y_true, y_pred, average="weighted", zero_division=0))


def per_class_f1(
    y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]
) -> dict[str, float]:
    """F1 of each class found in the test labels or in the predictions, by class name."""
    from sklearn.metrics import f1_score

    codes = np.union1d(y_true, y_pred)
    scores = f1_score(y_true, y_pred, labels=codes, average=None, zero_division=0)
    return {classes[code]: float(score) for code, score in zip(codes, scores, strict=True)}


def confusion(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrix, int64 of shape (n_classes, n_classes): rows true, columns predicted."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(y_true, y_pred, labels=np.arange(n_classes)))


def _scorable(y_true: np.ndarray, n_classes: int) -> list[int]:
    # One-vs-rest needs a test cell inside the class and one outside it.
    counts = np.bincount(y_true, minlength=n_classes)
    return [int(c) for c in np.flatnonzero((counts > 0) & (counts < len(y_true)))]


def auroc(y_true: np.ndarray, proba: np.ndarray) -> float:
    """One-vs-rest area under the ROC curve, mean over the classes of the test cells.

    Parameters
    ----------
    y_true
        Codes, shape (n_cells,).
    proba
        Shape (n_cells, n_classes).

    Returns
    -------
    NaN when the test cells hold fewer than two classes.
    """
    from sklearn.metrics import roc_auc_score

    codes = _scorable(y_true, proba.shape[1])
    scores = [roc_auc_score(y_true == code, proba[:, code]) for code in codes]
    return float(np.mean(scores)) if scores else float("nan")


def auprc(y_true: np.ndarray, proba: np.ndarray) -> float:
    """Average precision, one-vs-rest, mean over the classes of the test cells.

    Shapes and the undefined case are those of `auroc`.
    """
    from sklearn.metrics import average_precision_score

    codes = _scorable(y_true, proba.shape[1])
    scores = [average_precision_score(y_true == code, proba[:, code]) for code in codes]
    return float(np.mean(scores)) if scores else float("nan")


def classification(
    y_true: np.ndarray, proba: np.ndarray, classes: Sequence[str]
) -> dict[str, float]:
    """All classification metrics of one task.

    Parameters
    ----------
    y_true
        Codes of the test cells, int of shape (n_cells,), none missing.
    proba
        Predicted probabilities, shape (n_cells, n_classes). A cell is predicted to be of its
        most probable class, the first in code order on a tie.
    classes
        Names of all classes in code order.

    Returns
    -------
    Metric name -> value in [0, 1]; a metric that is undefined here is absent.

    Raises
    ------
    ValueError
        When shapes disagree, a label is missing or a probability is not finite.
    """
    y_true, proba = np.asarray(y_true), np.asarray(proba)
    _check_classification(y_true, proba, classes)
    y_pred = proba.argmax(axis=1)
    values = {
        "accuracy": accuracy(y_true, y_pred),
        "balanced_accuracy": balanced_accuracy(y_true, y_pred),
        "f1_macro": f1_macro(y_true, y_pred),
        "f1_weighted": f1_weighted(y_true, y_pred),
        "auroc": auroc(y_true, proba),
        "auprc": auprc(y_true, proba),
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _check_classification(y_true: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> None:
    if proba.shape != (len(y_true), len(classes)):
        raise ValueError(
            f"probabilities have shape {proba.shape}, expected {(len(y_true), len(classes))}: "
            "one row per test cell, one column per class"
        )
    if not len(y_true):
        raise ValueError("there are no test cells to score")
    if y_true.min() < 0 or y_true.max() >= len(classes):
        raise ValueError("a test label is missing or no code of a class: drop such cells first")
    if not np.isfinite(proba).all():
        raise ValueError("a predicted probability is not finite")


def classification_notes(y_true: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Say which classes the macro averages leave out, and why."""
    present = set(np.unique(y_true).tolist())
    absent = [name for code, name in enumerate(classes) if code not in present]
    notes = []
    if absent:
        notes.append(f"left out of AUROC and AUPRC (no test cells): {', '.join(absent)}")
    if len(present) < 2:
        notes.append("AUROC and AUPRC are undefined: the test cells are all of one class")
    return notes


# -- regression -------------------------------------------------------------------------------


def _outputs(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def pearson_per_output(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Pearson correlation of each output.

    Parameters
    ----------
    y_true, y_pred
        Shape (n_cells,) or (n_cells, n_outputs).

    Returns
    -------
    float64 of shape (n_outputs,). A constant prediction scores 0, since it explains nothing;
    a constant truth gives NaN, since nothing could be explained.
    """
    truth, guess = _outputs(y_true), _outputs(y_pred)
    # Subtracting the mean of a constant column can leave rounding noise: ask for the range.
    flat_truth, flat_guess = np.ptp(truth, axis=0) == 0, np.ptp(guess, axis=0) == 0
    truth, guess = truth - truth.mean(axis=0), guess - guess.mean(axis=0)
    scale = np.linalg.norm(truth, axis=0) * np.linalg.norm(guess, axis=0)
    safe = np.where(flat_truth | flat_guess | (scale == 0), 1.0, scale)
    r = np.clip((truth * guess).sum(axis=0) / safe, -1.0, 1.0)
    return np.where(flat_truth, np.nan, np.where(flat_guess, 0.0, r))


def pearson(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean of `pearson_per_output` over the outputs that vary; NaN when none does."""
    r = pearson_per_output(y_true, y_pred)
    return float(np.nanmean(r)) if not np.isnan(r).all() else float("nan")


def r2(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Coefficient of determination, mean over the outputs that vary; NaN when none does."""
    from sklearn.metrics import r2_score

    truth, guess = _outputs(y_true), _outputs(y_pred)
    varies = np.ptp(truth, axis=0) > 0
    if not varies.any():
        return float("nan")
    return float(r2_score(truth[:, varies], guess[:, varies]))


def mse(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean squared error over cells and outputs, in squared units of the target."""
    from sklearn.metrics import mean_squared_error

    return float(mean_squared_error(_outputs(y_true), _outputs(y_pred)))


def regression(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """All regression metrics of one task; one that is undefined here is absent.

    Parameters
    ----------
    y_true, y_pred
        Shape (n_cells,) or (n_cells, n_outputs), none missing.

    Raises
    ------
    ValueError
        When shapes disagree or a value is not finite.
    """
    truth, guess = _outputs(y_true), _outputs(y_pred)
    if truth.shape != guess.shape:
        raise ValueError(f"predictions have shape {guess.shape}, expected {truth.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
        raise ValueError("a target or a prediction is not finite")
    values = {"pearson": pearson(truth, guess), "r2": r2(truth, guess), "mse": mse(truth, guess)}
    return {name: value for name, value in values.items() if np.isfinite(value)}
