"""Training cells on the device: which genes they express, and what is predicted of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from panelbench.errors import InputError, NotApplicable
from panelbench.method import Matrix, Task
from panelbench.nn import tensor_of

if TYPE_CHECKING:
    import torch

_ROWS = 512
"""Cells of a sparse matrix that are made dense at a time."""


@dataclass(frozen=True)
class Cells:
    """Cells on the device.

    Attributes
    ----------
    inputs
        uint8 of shape (n_cells, n_genes): 1 where the gene is detected.
    truth
        What to predict: class codes, int64 of shape (n_cells,), or expression, float32 of shape
        (n_cells, n_outputs).
    training, held_out
        Rows to train on and rows to validate on, int64.
    """

    inputs: torch.Tensor
    truth: torch.Tensor
    training: np.ndarray
    held_out: np.ndarray

    @property
    def device(self) -> torch.device:
        """Where the cells are."""
        return self.inputs.device

    def of_genes(self, genes: np.ndarray) -> Cells:
        """Restrict the inputs to some genes, in the order given."""
        import torch

        columns = torch.from_numpy(genes).to(self.device)
        return replace(self, inputs=self.inputs.index_select(1, columns))


def load(task: Task, *, supervised: bool, validate: bool) -> Cells:
    """Cells of a task; inputs from `Task.X` with labels, else those of `detected`."""
    inputs = _positive(task.X) if supervised else detected(task)
    truth = task.target.values if supervised else task.dense()
    held_out = np.zeros(task.n_cells, dtype=bool)
    if validate and task.validation is not None:
        held_out = task.validation
    training = np.flatnonzero(~held_out)
    if not len(training):
        raise NotApplicable(
            "persist: validate holds out the validation cells, and there are no others"
        )
    return Cells(
        inputs=tensor_of(inputs, task.device),
        truth=tensor_of(truth, task.device),
        training=training,
        held_out=np.flatnonzero(held_out),
    )


def detected(task: Task) -> np.ndarray:
    """Which genes each cell expresses: uint8, cells x genes, from counts or from `Task.X`.

    Raises
    ------
    NotApplicable
        When there are no counts and `Task.X` is scaled, so that zero no longer means absent.
    """
    source = task.X if task.counts is None else task.counts
    values = source if isinstance(source, np.ndarray) else source.data
    if values.size and values.min() < 0:
        raise NotApplicable(
            "persist: reads which genes are detected, but the data have no counts and their values "
            "go below zero; give counts (layers['counts']), or leave `scale` out of the recipe"
        )
    return _positive(source)


def _positive(X: Matrix) -> np.ndarray:
    if isinstance(X, np.ndarray):
        return (X > 0).astype(np.uint8)
    found = np.zeros(X.shape, dtype=np.uint8)
    for start in range(0, X.shape[0], _ROWS):  # no dense copy of the whole
        found[start : start + _ROWS] = X[start : start + _ROWS].toarray() > 0
    return found


def columns(task: Task, names: tuple[str, ...]) -> np.ndarray:
    """Columns of named genes, int64, in the order of the names."""
    place = {name: column for column, name in enumerate(task.genes.tolist())}
    unknown = [name for name in names if name not in place]
    if names and (unknown or len(set(names)) < len(names) or len(names) >= task.k):
        raise InputError(
            f"persist: preselected takes different genes of the data, fewer than k = {task.k}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else f", got {list(names)}")
        )
    return np.array([place[name] for name in names], dtype=np.int64)
