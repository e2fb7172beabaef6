"""The evaluate stage: score a panel on the test cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench import metrics
from panelbench.errors import MethodError, NotApplicable
from panelbench.evaluators import EVALUATORS
from panelbench.method import Matrix, Needs, Target
from panelbench.registry import discover, validated
from panelbench.selection import labels_of, outputs
from panelbench.store import Address, Record, Store, panel_digest, panel_of
from panelbench.training import expression, target, with_noise

if TYPE_CHECKING:
    from anndata import AnnData

    from panelbench.worker import Measured, Toolbox


def perform(job: Mapping[str, Any], tools: Toolbox) -> Measured:
    """Do one evaluation, in the child process.

    Parameters
    ----------
    job
        What `execute.evaluate_job` wrote; names the record of the selection.
    tools
        Fold and meter.

    Returns
    -------
    Result (metrics, per-class F1, confusion matrix, notes), no arrays, and what it cost.
    """
    selection = _selection(job)
    fold, cells = tools.fold(), tools.loaded[0]
    train = fold.take(cells, np.sort(np.concatenate([fold.train, fold.validation])))
    test = fold.take(cells, fold.test)
    (labels,) = labels_of(cells, [job["task"]])
    truth_train, truth_test = target(train, labels), target(test, labels)
    if job["noise"]:
        truth_train = with_noise(truth_train, job["noise"], job["seed"])
    train, truth_train = _labelled(train, truth_train)
    test, truth_test = _labelled(test, truth_test)
    if not len(truth_test.values) or not len(truth_train.values):
        raise NotApplicable(f"no cell has a label for {labels.name} on one side of the split")
    panel = panel_of(selection.result["ranking"], job["k"])
    with tools.meter() as meter:
        if job["evaluator"] == "builtin":
            predicted = _builtin(job, selection, test, truth_test)
        else:
            predicted = _downstream(job, panel, train, truth_train, test)
        scores = _scores(truth_test, predicted)
    result = {
        **scores,
        "panel": panel_digest(panel, 0),
        "panel_size": len(panel),
        "selection": selection.attempt,
        "train_cells": len(truth_train.values),
        "test_cells": len(truth_test.values),
    }
    return meter.measured(result, {})


def _selection(job: Mapping[str, Any]) -> Record:
    found = Store(Path(job["results"])).attempts(Address(**job["select_address"]))
    return next(record for record in found if record.attempt == job["select_attempt"])


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
    job: Mapping[str, Any], panel: list[str], train: AnnData, truth: Target, test: AnnData
) -> np.ndarray:
    evaluator = EVALUATORS[job["evaluator"]]
    if evaluator.fit_predict is None:
        raise NotApplicable(f"{evaluator.id} trains nothing")
    return evaluator.fit_predict(
        _columns(train, "prepared", panel),
        truth.values,
        _columns(test, "prepared", panel),
        kind=truth.kind,
        n_classes=len(truth.classes),
        seed=job["seed"],
        n_jobs=job["n_jobs"],
        params=validated(evaluator.params, job["params"], f"evaluator {evaluator.id}"),
    )


def _builtin(job: Mapping[str, Any], selection: Record, test: AnnData, truth: Target) -> np.ndarray:
    method = discover([Path(item) for item in job["methods_dirs"]]).get(job["address"]["method"])
    stored = selection.result.get("predictor")
    if method.predictor is None or stored is None:
        raise MethodError("its selection left no predictor")
    arrays = Store(Path(job["results"])).arrays(selection)
    predictor = method.predictor.load(arrays, stored["facts"])
    X = _columns(test, method.needs, stored["genes"])
    dense = X if isinstance(X, np.ndarray) else X.toarray()
    return outputs(predictor, truth, dense)


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
