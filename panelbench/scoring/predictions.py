"""What evaluators that predict the task's labels share: columns for models, and their scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from panelbench.evaluator import Evaluation, Scores
from panelbench.method import Target
from panelbench.scoring import metrics


def standardised(given: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """The panel's columns with mean 0 and deviation 1 over the training cells.

    Returns
    -------
    float64, cells x genes, of training and test cells.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    train = scaler.fit_transform(given.train.dense(given.panel).astype(np.float64))
    return train, scaler.transform(given.test.dense(given.panel).astype(np.float64))


def predictions(model: Any, X: np.ndarray, target: Target) -> np.ndarray:
    """What a fitted scikit-learn model predicts.

    Parameters
    ----------
    model
        A classifier that was fitted on codes of classes, or a regressor.
    X
        Cells to predict.
    target
        The task: of it only the kind and the names of the classes are used.

    Returns
    -------
    Probabilities (cells x classes, zeros for classes without training cells), or regression
    outputs.
    """
    if target.kind == "regression":
        return np.asarray(model.predict(X))
    # Models know the classes of the training cells only: put them where their codes belong.
    proba = np.zeros((len(X), len(target.classes)))
    proba[:, model.classes_] = model.predict_proba(X)
    return proba


def scored(target: Target, predicted: np.ndarray) -> Scores:
    """Score predictions with the metrics of the kind of task.

    Parameters
    ----------
    target
        True labels of the test cells.
    predicted
        Probabilities (cells x classes), or regression outputs in the shape of the labels.

    Returns
    -------
    Metrics and notes; for classes also F1 by class and the confusion matrix.
    """
    truth, classes = target.values, target.classes
    if target.kind == "regression":
        return Scores(metrics.regression(truth, predicted), predicted=predicted)
    guess = predicted.argmax(axis=1)
    return Scores(
        metrics=metrics.classification(truth, predicted, classes),
        notes=metrics.classification_notes(truth, classes),
        per_class_f1=metrics.per_class_f1(truth, guess, classes),
        confusion=metrics.confusion(truth, guess, len(classes)),
        predicted=predicted,
    )
