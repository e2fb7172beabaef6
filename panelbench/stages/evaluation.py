"""The evaluate stage: score a panel, or what was trained with it, on the test cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import MethodError, NotApplicable
from panelbench.method import Matrix, Method, Needs, Predictor, Target
from panelbench.params import validated
from panelbench.registry import discover
from panelbench.scoring import embeddings as views
from panelbench.scoring import metrics, reconstruction
from panelbench.scoring.evaluators import EVALUATORS
from panelbench.stages.panel import panel_digest, panel_of
from panelbench.stages.questions import EvaluateQuestion
from panelbench.stages.selection import labels_of, outputs
from panelbench.stages.task import expression, target, with_noise
from panelbench.stages.toolbox import Measured, Toolbox

if TYPE_CHECKING:
    from anndata import AnnData


def score_panel(question: EvaluateQuestion, tools: Toolbox) -> Measured:
    """Do one evaluation, in the process of the run.

    Parameters
    ----------
    question
        Selection, evaluator, parameters, fold, task, k and seed.
    tools
        The selection's record, the cells, and the meter.

    Returns
    -------
    Result (metrics, results by class, notes), coordinates for pictures, and what it cost.
    """
    arrays: dict[str, np.ndarray] = {}
    selection = tools.selection
    assert selection is not None
    fold, cells = tools.fold(question.fold, question.seed), tools.prepared()
    train = fold.take(cells, np.sort(np.concatenate([fold.train, fold.validation])))
    test = fold.take(cells, fold.test)
    (labels,) = labels_of(cells, [question.task.name])
    truth_train, truth_test = target(train, labels), target(test, labels)
    if question.noise:
        truth_train = with_noise(truth_train, question.noise, question.seed)
    train, truth_train = _labelled(train, truth_train)
    test, truth_test = _labelled(test, truth_test)
    if not len(truth_test.values) or not len(truth_train.values):
        raise NotApplicable(f"no cell has a label for {labels.name} on one side of the split")
    panel = panel_of(selection.result["ranking"], question.k)
    evaluator, reads = EVALUATORS[question.evaluator], len(panel)
    params = validated(evaluator.params, question.params, f"evaluator {evaluator.id}")
    with tools.meter() as meter:
        if evaluator.reads == "predictor":
            method, predictor = _predictor(tools, params.mode)
            X = _dense(_columns(test, method.needs, list(predictor.genes)))
            scores, reads = _scores(truth_test, outputs(predictor, truth_test, X)), X.shape[1]
        elif evaluator.reads == "reconstruction":
            method, predictor = _predictor(tools)
            again, reads = _own_reconstruction(method, predictor, test), len(predictor.genes)
            scores, arrays = _expression_scores(truth_test, test, again, method.needs)
        elif evaluator.kind == "expression":
            known, given = (_dense(_columns(side, "prepared", panel)) for side in (train, test))
            again = reconstruction.linear(known, _dense(expression(train, "prepared")), given)
            scores, arrays = _expression_scores(truth_test, test, again, "prepared")
        elif evaluator.kind == "view":
            scores, arrays = _view(question.seed, params, panel, test, truth_test)
        else:
            predicted = _downstream(question, tools, panel, train, truth_train, test)
            scores = _scores(truth_test, predicted)
    result = {
        **scores,
        "panel": panel_digest(panel),
        "panel_size": len(panel),
        "genes_read": reads,
        "selection": selection.attempt,
        "train_cells": len(truth_train.values),
        "test_cells": len(truth_test.values),
    }
    return meter.measured(result, arrays)


def _labelled(cells: AnnData, labels: Target) -> tuple[AnnData, Target]:
    """Cells that have the label."""
    seen = labels.observed
    if seen.all():
        return cells, labels
    return cells[seen], replace(labels, values=labels.values[seen])


def _columns(cells: AnnData, needs: Needs, genes: list[str]) -> Matrix:
    """Expression of some genes, in the order asked for."""
    position = {gene: column for column, gene in enumerate(cells.var_names)}
    X = expression(cells, needs)
    found: Matrix = X[:, [position[gene] for gene in genes]]
    return found


def _downstream(
    question: EvaluateQuestion,
    tools: Toolbox,
    panel: list[str],
    train: AnnData,
    truth: Target,
    test: AnnData,
) -> np.ndarray:
    evaluator = EVALUATORS[question.evaluator]
    if evaluator.fit_predict is None:
        raise NotApplicable(f"{evaluator.id} trains nothing")
    return evaluator.fit_predict(
        _columns(train, "prepared", panel),
        truth.values,
        _columns(test, "prepared", panel),
        kind=truth.kind,
        n_classes=len(truth.classes),
        seed=question.seed,
        n_jobs=tools.n_jobs,
        params=validated(evaluator.params, question.params, f"evaluator {evaluator.id}"),
    )


def _dense(X: Matrix) -> np.ndarray:
    return X if isinstance(X, np.ndarray) else np.asarray(X.toarray())


def _predictor(tools: Toolbox, mode: str = "") -> tuple[Method, Predictor]:
    """The predictor that a selection left, in one of its modes."""
    assert tools.selection is not None
    method = discover(tools.methods_dirs).get(tools.selection.address.method)
    stored = tools.selection.result.get("predictor")
    if method.predictor is None or stored is None:
        raise MethodError("its selection left no predictor")
    predictor: Any = method.predictor.load(tools.arrays(), stored["facts"])
    return method, predictor.in_mode(mode) if mode else predictor


def _own_reconstruction(method: Method, predictor: Any, test: AnnData) -> np.ndarray:
    X = _dense(_columns(test, method.needs, list(predictor.genes)))
    again = np.asarray(predictor.reconstruct(X))
    if again.shape != (test.n_obs, test.n_vars) or not np.isfinite(again).all():
        raise MethodError(f"its reconstruction has shape {again.shape}, or is not finite; "
                          f"expected {(test.n_obs, test.n_vars)}")  # fmt: skip
    return again


def _expression_scores(
    truth: Target, test: AnnData, again: np.ndarray, needs: Needs
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics of reconstructed expression, over all test cells and class by class.

    Counts are compared as the MarkerMap paper does: variances as they are, distances between
    logarithms that are standardised over the whole matrix.
    """
    X = _dense(expression(test, needs))
    near, far = X, again
    if needs == "counts":
        far, near = (reconstruction.standardised_logs(item, X) for item in (again, X))

    def measured(rows: Any) -> dict[str, float]:
        return {
            **reconstruction.distances(near[rows], far[rows]),
            **reconstruction.variance_agreement(X[rows], again[rows]),
        }

    codes = truth.values if truth.kind == "classification" else np.zeros(len(X), np.int64)
    scores = {
        "metrics": measured(slice(None)),
        "notes": [],
        "classes": list(truth.classes),
        "by_class": {
            name: measured(codes == code)
            for code, name in enumerate(truth.classes)
            if (codes == code).any()
        },
    }
    arrays = {
        "variances": np.stack([reconstruction.variances(item) for item in (X, again)]),
        "components": views.principal_components(near, far),
        "codes": codes,
    }
    return scores, arrays


def _view(
    seed: int, params: Any, panel: list[str], test: AnnData, truth: Target
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    X = _dense(_columns(test, "prepared", panel))
    coordinates = views.umap(X, n_neighbors=params.n_neighbors, min_dist=params.min_dist, seed=seed)
    if truth.kind != "classification":
        raise NotApplicable("a picture of classes needs a classification task")
    scores = {"metrics": {}, "notes": [], "classes": list(truth.classes)}
    return scores, {"umap": coordinates, "codes": truth.values}


def _scores(truth: Target, predicted: np.ndarray) -> dict[str, Any]:
    if truth.kind == "regression":
        return {"metrics": metrics.regression(truth.values, predicted), "notes": []}
    guess = predicted.argmax(axis=1)
    return {
        "metrics": metrics.classification(truth.values, predicted, truth.classes),
        "notes": metrics.classification_notes(truth.values, truth.classes),
        "classes": list(truth.classes),
        "per_class_f1": metrics.per_class_f1(truth.values, guess, truth.classes),
        "confusion": metrics.confusion(truth.values, guess, len(truth.classes)).tolist(),
    }
