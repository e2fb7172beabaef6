"""Small evaluations for tests of evaluators, on matrices that a test writes down."""

from __future__ import annotations

from typing import Any

import numpy as np

from panelbench.contract import tasks
from panelbench.evaluator import Cells, Evaluation
from panelbench.method import Matrix, Target


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
