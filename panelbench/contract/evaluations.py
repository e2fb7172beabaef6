"""Small evaluations to try evaluators on: the planted data of `tasks`, cut in two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from panelbench.contract import tasks
from panelbench.evaluator import Cells, Evaluation, Evaluator, Trained
from panelbench.method import Matrix, Needs, Target
from panelbench.params import validated

N_TRAIN = 100
GENES = tasks.gene_names()
MARKERS = tuple(GENES[: tasks.MARKERS * tasks.N_CLASSES].tolist())
"""Panel of all planted markers."""
NOISE = tuple(GENES[20 : 20 + len(MARKERS)].tolist())
"""Panel of as many genes that say nothing."""


def planted(
    panel: tuple[str, ...] = MARKERS,
    *,
    regression: bool = False,
    expression: bool = False,
    sparse: bool = False,
    train_labels: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    **more: Any,
) -> Evaluation:
    """An evaluation on the planted data, with a predictor that was trained on the panel."""
    order = np.random.default_rng(5).permutation(tasks.N_CELLS)
    truth = tasks.expression() if regression else tasks.cell_type()
    if expression:
        truth = _primary(tasks.outputs())
    sides = []
    for rows, labels in ((order[:N_TRAIN], train_labels), (order[N_TRAIN:], test_labels)):
        values = truth.values[rows] if labels is None else labels
        target = replace(truth, values=np.array(values))
        sides.append(_side(rows, target, sparse))
    # The predictor stays what it was when labels are changed for a test.
    known = replace(truth, values=truth.values[order[:N_TRAIN]])
    trained = _trained(_side(order[:N_TRAIN], known, sparse), panel)
    options: dict[str, Any] = {"seed": 0, "trained": trained, **more}
    return Evaluation(panel, sides[0], sides[1], **options)


def _primary(target: Target) -> Target:
    """The outputs that an evaluator is given."""
    assert target.primary is not None
    names = tuple(np.array(target.outputs)[target.primary].tolist())
    values = target.values[:, target.primary]
    return replace(target, values=values, outputs=names, primary=np.ones(len(names), dtype=bool))


def _side(rows: np.ndarray, target: Target, sparse: bool) -> Cells:
    matrices: dict[Needs, Matrix] = {
        needs: tasks.locked(tasks.represent(tasks.counts(), needs)[rows], sparse)
        for needs in ("counts", "lognorm", "binary", "prepared")
    }
    target.values.setflags(write=False)
    inputs = tasks.locked(np.random.default_rng(11).normal(size=(len(rows), 12)))
    assert isinstance(inputs, np.ndarray)
    groups = np.array(["a", "b"])[np.arange(len(rows)) % 2]
    depth = tasks.counts()[rows].sum(axis=1, dtype=np.float64)
    return Cells(GENES, target, matrices.__getitem__, inputs, groups, depth)


def _trained(train: Cells, panel: tuple[str, ...]) -> Trained:
    """Predicts what the nearest training cell is, by the panel."""

    def neighbour(some: Cells) -> np.ndarray:
        known, asked = train.dense(panel), some.dense(panel)
        distance = ((asked[:, None] - known[None]) ** 2).sum(axis=2)
        return np.asarray(distance.argmin(axis=1))

    def predict(some: Cells) -> np.ndarray:
        found = np.asarray(train.target.values[neighbour(some)])
        if train.target.kind != "classification":
            return found
        return np.asarray(np.eye(len(train.target.classes))[found])

    return Trained(panel, "prepared", predict, lambda some: train.dense()[neighbour(some)])


def quick_params(evaluator: Evaluator, given: Mapping[str, Any] | None = None) -> Any:
    """Parameters with few trees and draws if they are not given."""
    short = {"n_estimators": 20, "draws": 3}
    names = {item.name for item in fields(evaluator.params)}
    quick = {name: value for name, value in short.items() if name in names}
    return validated(evaluator.params, {**quick, **(given or {})}, f"evaluator {evaluator.id}")
