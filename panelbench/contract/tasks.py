"""Small selection tasks to try methods on: planted markers, counts and log counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.environments.place import python_of
from panelbench.method import Matrix, Method, Target, Task, frozen_mapping
from panelbench.params import make_params
from panelbench.records.places import default_cache

N_CELLS, N_GENES, N_CLASSES = 150, 60, 3
MARKERS = 4
"""Planted markers per class: genes 0-3 of class 0, 4-7 of class 1, and so on."""
SILENT = 57
"""A gene without any count."""


@lru_cache
def counts() -> np.ndarray:
    """Counts of 150 cells x 60 genes, float32, with four markers for each of three classes."""
    rng = np.random.default_rng(7)
    mean = rng.gamma(2.0, 0.8, N_GENES) + 0.3
    means = np.tile(mean, (N_CELLS, 1))
    for code in range(N_CLASSES):
        genes = slice(MARKERS * code, MARKERS * (code + 1))
        means[labels() == code, genes] *= 5
    depth = rng.uniform(0.6, 1.6, (N_CELLS, 1))
    found = rng.poisson(means * depth).astype(np.float32)
    found[:, SILENT] = 0
    return found


@lru_cache
def labels() -> np.ndarray:
    """Class codes of the cells, int64: 70, 50 and 30 cells in mixed order."""
    codes = np.repeat(np.arange(N_CLASSES), [70, 50, 30]).astype(np.int64)
    return np.asarray(np.random.default_rng(3).permutation(codes))


def lognorm(matrix: np.ndarray) -> np.ndarray:
    """Log of counts scaled to the median depth, float32."""
    depth = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.log1p(matrix / depth * np.median(depth)), dtype=np.float32)


def gene_names(n: int = N_GENES) -> np.ndarray:
    """Names that do not sort in the order of the columns."""
    return np.array([f"G{(7 * i) % n:03d}" for i in range(n)])


def represent(matrix: np.ndarray, needs: str) -> np.ndarray:
    """Counts in the representation that a method declares with `needs`."""
    if needs == "counts":
        return matrix
    if needs == "binary":
        return (matrix > 0).astype(np.float32)
    return lognorm(matrix)


def locked(matrix: np.ndarray, sparse: bool = False) -> Matrix:
    """Read-only copy, as an array or as CSR."""
    if not sparse:
        copy = np.array(matrix, order="C")
        copy.setflags(write=False)
        return copy
    from scipy.sparse import csr_matrix

    found = csr_matrix(matrix)
    for part in (found.data, found.indices, found.indptr):
        part.setflags(write=False)
    return found


def cell_type(codes: np.ndarray | None = None, classes: int = N_CLASSES) -> Target:
    """The classification target, by default with the true labels."""
    values = np.array(labels() if codes is None else codes)
    values.setflags(write=False)
    return Target("cell_type", "classification", values, tuple(f"T {i}" for i in range(classes)))


def condition() -> Target:
    """A second target: two classes that follow gene 20, a tenth of the labels missing."""
    values = (counts()[:, 20] > np.median(counts()[:, 20])).astype(np.int64)
    values[::10] = -1
    values.setflags(write=False)
    return Target("condition", "classification", values, ("low", "high"))


def expression(order: np.ndarray | None = None) -> Target:
    """A regression target: the log expression of genes 0 and 4, cells reordered if asked."""
    values = lognorm(counts())[:, [0, 4]].astype(np.float64)
    values = values if order is None else values[order]
    values.setflags(write=False)
    return Target("expression", "regression", values)


@lru_cache
def features() -> np.ndarray:
    """What expression is predicted from: 12 noisy functions of class and depth, float32."""
    rng = np.random.default_rng(13)
    known = np.column_stack([np.eye(N_CLASSES)[labels()], np.log(counts().sum(axis=1))])
    mixed = known @ rng.normal(size=(known.shape[1], 12))
    return np.asarray(mixed + 0.3 * rng.normal(size=mixed.shape), dtype=np.float32)


def outputs(*, reverse: bool = False, missing: bool = False) -> Target:
    """An expression target: all genes that are found, those of class 0 and two others primary.

    With `reverse` every output has the values of another, with `missing` a tenth of the values is
    not known, and one output is known for few cells.
    """
    found = np.flatnonzero(counts().any(axis=0))
    values = lognorm(counts())[:, found]
    values = values[:, ::-1] if reverse else values
    values = np.array(values, order="C")
    if missing:
        values[np.random.default_rng(17).random(values.shape) < 0.1] = np.nan
        values[12:, 1] = np.nan
    values.setflags(write=False)
    primary = np.isin(found, [*range(MARKERS), 30, 40])
    names = tuple(gene_names()[found].tolist())
    return Target("expression", "expression", values, (), names, primary)


def targets_for(method: Method, target: Target | None = None) -> dict[str, Target]:
    """Targets as the harness hands them out: none, one, or several to a multi-task method."""
    if not method.supervised:
        return {}
    if method.expression and target is None:
        target = outputs()
    first = target or cell_type()
    found = {first.name: first}
    if method.multitask and target is None:
        found["condition"] = condition()
    return found


def make_task(
    method: Method,
    *,
    k: int = 10,
    seed: int = 0,
    sparse: bool = False,
    target: Target | None = None,
    matrix: np.ndarray | None = None,
    **given: Any,
) -> Task:
    """Task for a method on the planted data (or another matrix of counts)."""
    raw = counts() if matrix is None else matrix
    rng = np.random.default_rng(11)
    options: dict[str, Any] = {
        "X": locked(represent(raw, method.needs), sparse),
        "genes": gene_names(raw.shape[1]),
        "targets": frozen_mapping(targets_for(method, target)),
        "k": k,
        "seed": seed,
        "counts": locked(raw, sparse=True),
        "inputs": locked(
            features()
            if method.reads == "inputs"
            else rng.normal(size=(len(raw), 12)).astype(np.float32)
        ),
        "groups": np.array(["a", "b"])[np.arange(len(raw)) % 2],
        "python": python_for(method),
    }
    return Task(**(options | given))


def python_for(method: Method) -> Path | None:
    """Python of a method's environment, where the usual cache folder has it; see `python_of`."""
    return python_of(method, default_cache()) if method.environment is not None else None


def first_cells(task: Task, n: int) -> Task:
    """The same task with its first n cells only."""
    parts = {"X": task.X, "counts": task.counts, "inputs": task.inputs, "groups": task.groups}
    found: dict[str, Any] = {name: p if p is None else p[:n] for name, p in parts.items()}
    targets = {t.name: replace(t, values=t.values[:n]) for t in task.targets.values()}
    return replace(task, targets=frozen_mapping(targets), **found)


def quick_params(method: Method, given: Mapping[str, Any] | None = None) -> Any:
    """Parameters with few epochs (``*epochs``, at most 3) and trees, if not given.

    At most 50 trees of a forest (``n_estimators``), 3 of which each costs a training (``n_trees``).
    """
    defaults = method.params()
    values = {item.name: getattr(defaults, item.name) for item in fields(method.params)}
    short = {
        name: min(value, 50 if name == "n_estimators" else 3)
        for name, value in values.items()
        if isinstance(value, int) and name.endswith(("epochs", "n_estimators", "n_trees"))
    }
    return make_params(method, {**short, **(given or {})})
