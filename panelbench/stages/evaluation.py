"""The evaluate stage: hand a panel and the cells to an evaluator, check what comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.specs import TaskSpec
from panelbench.errors import EvaluatorError, MethodError, NotApplicable
from panelbench.evaluator import Cells, Evaluation, Evaluator, Scores, Trained
from panelbench.method import Target
from panelbench.params import validated
from panelbench.records.keys import library_versions
from panelbench.registry import discover, discover_evaluators
from panelbench.stages.fold import Fold
from panelbench.stages.panel import panel_digest, panel_of
from panelbench.stages.questions import EvaluateQuestion
from panelbench.stages.selection import labels_of, outputs
from panelbench.stages.targets import choose_outputs, depth_of, inputs_of, outputs_target
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
    evaluator = discover_evaluators(tools.evaluators_dirs).get(question.evaluator)
    params = validated(evaluator.params, question.params, f"evaluator {evaluator.id}")
    missing = [n for n, found in library_versions(evaluator.libraries).items() if found is None]
    if missing:
        raise NotApplicable(f"needs {', '.join(missing)}: pip install {' '.join(missing)}")
    given = at_hand(question, tools, evaluator, params)
    with tools.meter() as meter:
        scores = evaluator.score(given, params)
    check(scores, evaluator, given)
    assert tools.selection is not None
    result = {
        **stored(scores),
        "classes": list(given.classes),
        "panel": panel_digest(given.panel),
        "panel_size": len(given.panel),
        "genes_read": len(given.trained.genes if given.trained else given.panel),
        "selection": tools.selection.attempt,
        "train_cells": given.train.n_cells,
        "test_cells": given.test.n_cells,
    }
    return meter.measured(result, dict(scores.arrays))


# -- what is at hand -----------------------------------------------------------------------


def at_hand(
    question: EvaluateQuestion, tools: Toolbox, evaluator: Evaluator, params: Any
) -> Evaluation:
    """Gather what an evaluator receives.

    Raises
    ------
    NotApplicable
        When it takes no such task, no cell has a label on one side of the split, the sides have no
        class in common, or the data lack what is read.
    """
    assert tools.selection is not None
    if question.task.kind not in evaluator.takes:
        raise NotApplicable(f"scores no tasks of kind {question.task.kind}")
    fold, cells = tools.fold(question.fold, question.seed), tools.prepared()
    known = np.sort(np.concatenate([fold.train, fold.validation]))
    train, test = fold.take(cells, known), fold.take(cells, fold.test)
    truth_train, truth_test = _truth(question.task, fold, cells, train, test)
    if not evaluator.kind and not _share_a_class(truth_train, truth_test):
        raise NotApplicable(
            f"no class of {question.task.name} is among both the training and the test cells: is "
            "the split grouped by the label itself?"
        )
    if question.noise:
        truth_train = with_noise(truth_train, question.noise, question.seed)
    depth = depth_of(cells)
    sides = tuple(
        _side(part, truth, question.task, None if depth is None else depth[rows])
        for part, truth, rows in ((train, truth_train, known), (test, truth_test, fold.test))
    )
    if not all(side.n_cells for side in sides):
        name = question.task.name
        raise NotApplicable(f"no cell has a label for {name} on one side of the split")
    if evaluator.reads == "features" and sides[0].inputs is None:
        raise NotApplicable("needs features of the cells, which the data set does not have")
    return Evaluation(
        panel=tuple(panel_of(tools.selection.result, question.k)),
        train=sides[0],
        test=sides[1],
        seed=question.seed,
        trained=_trained(tools, getattr(params, "mode", "")) if evaluator.own else None,
        n_jobs=tools.n_jobs,
        progress=tools.progress,
    )


def _share_a_class(train: Target, test: Target) -> bool:
    """Whether a prediction can be right at all; a side without labels is another matter."""
    sides = [target.values[target.observed] for target in (train, test)]
    if train.kind != "classification" or not all(side.size for side in sides):
        return True
    return bool(np.intersect1d(*sides).size)


def _truth(
    task: TaskSpec, fold: Fold, cells: AnnData, train: AnnData, test: AnnData
) -> tuple[Target, Target]:
    """Labels of both sides, or their primary outputs, which are those of the selection."""
    if task.kind == "expression":
        scored = choose_outputs(fold.take(cells, fold.train), task).scored()
        return outputs_target(train, task, scored), outputs_target(test, task, scored)
    (labels,) = labels_of(cells, [task])
    return target(train, labels), target(test, labels)


def _side(cells: AnnData, labels: Target, task: TaskSpec, depth: np.ndarray | None) -> Cells:
    """The cells that have the label."""
    seen = labels.observed
    if not seen.all():
        cells, labels = cells[seen], replace(labels, values=labels.values[seen])
        depth = None if depth is None else depth[seen]
    return Cells(
        genes=np.asarray(cells.var_names, dtype=str),
        target=labels,
        read=lambda needs: expression(cells, needs),
        inputs=inputs_of(cells, task),
        groups=np.asarray(cells.obs["group"], dtype=str) if "group" in cells.obs else None,
        depth=depth,
    )


def _trained(tools: Toolbox, mode: str) -> Trained:
    """What the selection's method trained, in one of its modes.

    Raises
    ------
    MethodError
        When it left no predictor. The functions raise it too, when what it gives has the wrong
        shape, is no probability or is not finite.
    """
    assert tools.selection is not None
    method = discover(tools.methods_dirs).get(tools.selection.address.method)
    saved = tools.selection.result.get("predictor")
    if saved is None and tools.selection.result.get("constraints"):
        raise NotApplicable("constraints changed the panel that its predictor was trained for")
    if method.predictor is None or saved is None:
        raise MethodError("its selection left no predictor")
    loaded: Any = method.predictor.load(tools.arrays(), saved["facts"])
    predictor = loaded.in_mode(mode) if mode else loaded
    genes = tuple(predictor.genes)

    def predict(cells: Cells) -> np.ndarray:
        if method.reads == "inputs":
            assert cells.inputs is not None
            return outputs(predictor, cells.target, cells.inputs)
        return outputs(predictor, cells.target, cells.dense(genes, method.needs))

    def reconstruct(cells: Cells) -> np.ndarray:
        if tools.selection is not None and tools.selection.result.get("constraints"):
            raise NotApplicable("was trained on the genes that constraints leave, not on all")
        again = np.asarray(predictor.reconstruct(cells.dense(genes, method.needs)))
        shape = (cells.n_cells, len(cells.genes))
        if again.shape != shape or not np.isfinite(again).all():
            raise MethodError(f"its reconstruction has shape {again.shape}, or is not finite; "
                              f"expected {shape}")  # fmt: skip
        return again

    return Trained(genes, method.needs, predict, reconstruct)


# -- what comes back -----------------------------------------------------------------------


def check(scores: Scores, evaluator: Evaluator, given: Evaluation) -> None:
    """Hold an evaluator to its contract.

    Raises
    ------
    EvaluatorError
        When it gives metrics that it did not declare, that are not finite or out of their range,
        classes that do not exist, or arrays that cannot be what they are called.
    """
    if not isinstance(scores, Scores):
        raise EvaluatorError(f"returned {type(scores).__name__}, not Scores")
    _check_metrics(scores.metrics, evaluator, "")
    unknown = {*scores.by_class, *scores.per_class_f1} - {*given.classes}
    if unknown:
        raise EvaluatorError(f"scored the class {min(unknown)!r}, which does not exist")
    for name, values in scores.by_class.items():
        _check_metrics(values, evaluator, f" of class {name!r}")
    n = len(given.classes)
    if scores.confusion is not None and np.shape(scores.confusion) != (n, n):
        raise EvaluatorError(
            f"its confusion matrix has shape {np.shape(scores.confusion)}, expected {(n, n)}"
        )
    if scores.predicted is not None and len(scores.predicted) != given.test.n_cells:
        raise EvaluatorError(
            f"predicted {len(scores.predicted)} cells, there are {given.test.n_cells}"
        )
    for name, array in scores.arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
            raise EvaluatorError(f"its array {name!r} is no array of numbers or texts")


def _check_metrics(values: Any, evaluator: Evaluator, whose: str) -> None:
    declared = {metric.id: metric for metric in evaluator.metrics}
    for name, value in values.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise EvaluatorError(f"gave the metric {name!r}{whose}, and declares {known}")
        low, high = declared[name].low, declared[name].high
        if not np.isfinite(value) or not low - _SLACK <= value <= high + _SLACK:
            raise EvaluatorError(
                f"its metric {name!r}{whose} is {value}, not a number from {low} to {high}"
            )


_SLACK = 1e-9
"""How far rounding may carry a metric out of its range."""


def stored(scores: Scores) -> dict[str, Any]:
    """Scores as the record holds them, less the arrays."""
    found: dict[str, Any] = {
        "metrics": _floats(scores.metrics),
        "notes": list(scores.notes),
        "per_class_f1": _floats(scores.per_class_f1),
        "by_class": {name: _floats(values) for name, values in scores.by_class.items()},
        "confusion": [] if scores.confusion is None else np.asarray(scores.confusion).tolist(),
    }
    return {n: value for n, value in found.items() if value or n in ("metrics", "notes")}


def _floats(values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
