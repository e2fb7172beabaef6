"""Small evaluations for tests of evaluators: the planted data of ``tasks``, cut in two."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from panelbench.evaluator import Cells, Evaluation, Evaluator, Trained
from panelbench.method import Matrix, Needs, Target
from tests import tasks

N_TRAIN = 100
GENES = tasks.gene_names()
MARKERS = tuple(
    gene
    for code in range(tasks.N_CLASSES)
    for gene in GENES[tasks.MARKERS * code :][: tasks.MARKERS // 2].tolist()
)
"""Panel of half of the planted markers of each class."""
NOISE = tuple(GENES[20 : 20 + len(MARKERS)].tolist())
"""Panel of as many genes that say nothing."""


def cells(
    X: np.ndarray, target: Target, *, genes: Any = None, sparse: bool = False, **more: Any
) -> Cells:
    """Cells whose matrix is the same, read-only, in every representation."""
    names = np.asarray([f"g{i}" for i in range(X.shape[1])] if genes is None else genes, dtype=str)
    matrix: Matrix = tasks.locked(np.asarray(X, dtype=np.float32), sparse)
    return Cells(names, target, lambda needs: matrix, **more)


def classes(values: Any, n: int = 3) -> Target:
    """A classification target with some codes."""
    codes = np.asarray(values, dtype=np.int64)
    codes.setflags(write=False)
    return Target("cell_type", "classification", codes, tuple(f"T {i}" for i in range(n)))


def simple(
    X_train: Any, y_train: Any, X_test: Any, y_test: Any, n_classes: int = 3, **more: Any
) -> Evaluation:
    """An evaluation of classes on two matrices; the panel is all genes if none is given."""
    train, test = np.atleast_2d(X_train), np.atleast_2d(X_test)
    sparse = more.pop("sparse", False)
    sides = [
        cells(X, y if isinstance(y, Target) else classes(y, n_classes), sparse=sparse)
        for X, y in ((train, y_train), (test, y_test))
    ]
    panel = tuple(more.pop("panel", sides[0].genes.tolist()))
    return Evaluation(panel, *sides, **{"seed": 0, **more})


def planted(
    panel: tuple[str, ...] = MARKERS,
    *,
    regression: bool = False,
    sparse: bool = False,
    train_labels: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    **more: Any,
) -> Evaluation:
    """An evaluation on the planted data, with a predictor that was trained on the panel."""
    order = np.random.default_rng(5).permutation(tasks.N_CELLS)
    truth = tasks.expression() if regression else tasks.cell_type()
    sides = []
    for rows, labels in ((order[:N_TRAIN], train_labels), (order[N_TRAIN:], test_labels)):
        values = truth.values[rows] if labels is None else labels
        target = replace(truth, values=np.array(values))
        sides.append(_side(rows, target, sparse))
    # The predictor stays what it was when labels are changed for a test.
    known = replace(truth, values=truth.values[order[:N_TRAIN]])
    trained = _trained(_side(order[:N_TRAIN], known, sparse), panel)
    return Evaluation(panel, *sides, **{"seed": 0, "trained": trained, **more})


def _side(rows: np.ndarray, target: Target, sparse: bool) -> Cells:
    matrices: dict[Needs, Matrix] = {
        needs: tasks.locked(tasks.represent(tasks.counts(), needs)[rows], sparse)
        for needs in ("counts", "lognorm", "binary", "prepared")
    }
    target.values.setflags(write=False)
    inputs = tasks.locked(np.random.default_rng(11).normal(size=(len(rows), 12)))
    assert isinstance(inputs, np.ndarray)
    return Cells(
        GENES, target, matrices.__getitem__, inputs, np.array(["a", "b"])[np.arange(len(rows)) % 2]
    )


def _trained(train: Cells, panel: tuple[str, ...]) -> Trained:
    """Predicts what the nearest training cell is, by the panel."""

    def neighbour(some: Cells) -> np.ndarray:
        known, asked = train.dense(panel), some.dense(panel)
        distance = ((asked[:, None] - known[None]) ** 2).sum(axis=2)
        return np.asarray(distance.argmin(axis=1))

    def predict(some: Cells) -> np.ndarray:
        found = train.target.values[neighbour(some)]
        kind = train.target.kind
        return found if kind == "regression" else np.eye(len(train.target.classes))[found]

    return Trained(panel, "prepared", predict, lambda some: train.dense()[neighbour(some)])


def quick_params(evaluator: Evaluator) -> Any:
    """Default parameters, with few trees and draws."""
    short = {"n_estimators": 20, "draws": 3}
    names = {item.name for item in fields(evaluator.params)}
    return evaluator.params(**{name: value for name, value in short.items() if name in names})
