"""Training cells on the device: batches of a few genes, and labels with their gaps."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.method import Matrix, Target, Task
from panelbench.nn import tensor_of

if TYPE_CHECKING:
    import torch

_DENSE_BYTES = 8 << 30
"""A sparse matrix up to this size is held dense on the CPU where no memory limit is given."""
_ROWS = 256
_FLOOR = 0.1
"""Smallest standard deviation that divides a gene, as a share of the median one."""


@dataclass(frozen=True)
class Labels:
    """One task's labels on the device.

    Attributes
    ----------
    target
        Name, kind and classes.
    values
        int64 of shape (n_cells,), -1 where missing; or float32 of shape (n_cells, n_outputs),
        standardised, NaN where missing.
    centre, scale
        float64 of shape (n_outputs,): what standardised the regression targets.
    """

    target: Target
    values: torch.Tensor
    centre: np.ndarray
    scale: np.ndarray

    @property
    def n_outputs(self) -> int:
        """Classes, or columns of the regression target."""
        return len(self.target.classes) or len(self.centre)

    def class_weights(self, power: float) -> torch.Tensor | None:
        """Weight of each class, ``size ** -power``; 1 on average over cells."""
        if self.target.kind != "classification" or power == 0:
            return None
        sizes = self.values[self.values >= 0].bincount(minlength=self.n_outputs).double()
        weights = sizes.clamp(min=1) ** -power
        return (weights * (sizes.sum() / (weights * sizes).sum())).float()


class Cells:
    """The cells that have at least one label, and the genes that vary among them.

    A cell without any label takes no part, not even in batch statistics.

    Parameters
    ----------
    task
        The task; its matrix is used where it lies on the CPU, and copied once to a GPU.
    standardize
        Divide each gene by its standard deviation.

    Attributes
    ----------
    genes
        int64: candidate genes as columns of ``task.X``, those that vary.
    labels
        Labels of the tasks, in their order.
    gain
        float32 tensor: what each candidate is multiplied with.
    groups
        Donor, batch or slide of each cell, or None.
    rows, columns
        int64: the cells and the candidates in ``matrix``, which holds all of ``task.X``.
    matrix
        Expression on the device, or the CSR matrix where it is too large to be dense.
    """

    def __init__(self, task: Task, *, standardize: bool) -> None:
        import torch

        self.device = torch.device(task.device)
        targets = list(task.targets.values())
        if not targets:
            raise NotApplicable("yoto: needs at least one task with labels")
        self.rows = np.flatnonzero(np.any([target.observed for target in targets], axis=0))
        if len(self.rows) < 2:
            raise NotApplicable(
                f"yoto: needs at least 2 labelled training cells, found {len(self.rows)}"
            )
        spread = _standard_deviations(task.X, self.rows)
        self.genes = np.flatnonzero(spread > 0)
        if not len(self.genes):
            raise NotApplicable("yoto: no gene varies among the labelled training cells")
        spread = spread[self.genes]
        gain = 1 / np.maximum(spread, _FLOOR * np.median(spread)) if standardize else spread**0
        self.scaled = standardize  # not, and the gain is 1
        self.groups = None if task.groups is None else task.groups[self.rows]
        self.gain = torch.from_numpy(gain.astype(np.float32)).to(self.device)
        self.labels = [_labels(target, self.rows, self.device) for target in targets]
        self.matrix = _storage(task, self.device)
        self.columns = torch.from_numpy(self.genes).to(self.device)

    @property
    def n_cells(self) -> int:
        """Number of cells with a label."""
        return len(self.rows)

    def batch(self, cells: np.ndarray, genes: torch.Tensor) -> torch.Tensor:
        """Scaled expression of some cells and candidates, float32, shape (cells, genes)."""
        found = self._expression(self.rows[cells], self.columns[genes])
        return found * self.gain[genes] if self.scaled else found

    def _expression(self, rows: np.ndarray, columns: torch.Tensor) -> torch.Tensor:
        import torch

        if not isinstance(self.matrix, torch.Tensor):
            part = self.matrix[rows][:, columns.cpu().numpy()].toarray()
            return torch.from_numpy(part).to(self.device)
        index = torch.from_numpy(rows).to(self.device)
        width = self.matrix.shape[1]
        if 8 * len(columns) > width:  # many genes: whole rows first is faster
            return self.matrix.index_select(0, index).index_select(1, columns).float()
        places = (index[:, None] * width + columns).view(-1)
        return self.matrix.view(-1).index_select(0, places).view(len(rows), -1).float()


def _standard_deviations(X: Matrix, rows: np.ndarray) -> np.ndarray:
    """Float64 per gene, exactly 0 where constant; the same bits for an array and for CSR."""
    total, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    low, high = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    for block in (_dense(X[rows[i : i + _ROWS]]) for i in range(0, len(rows), _ROWS)):
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        total += block.sum(axis=0, dtype=np.float64)
        squares += np.square(block, dtype=np.float64).sum(axis=0)
    variance = squares / len(rows) - (total / len(rows)) ** 2
    # Rounding must not take a gene that varies for one that does not.
    return np.asarray(np.sqrt(np.maximum(variance, 1e-12)) * (high > low))


def _dense(part: Matrix) -> np.ndarray:
    return part if isinstance(part, np.ndarray) else np.asarray(part.toarray())


def _storage(task: Task, device: torch.device) -> torch.Tensor | Matrix:
    """Give a dense tensor on the device, as bytes if binary, or the CSR matrix if too large."""
    import torch

    if isinstance(task.X, np.ndarray):
        return tensor_of(task.X, device)
    binary = bool((task.X.data == 1).all())
    size = task.n_cells * task.n_genes * (1 if binary else 4)
    room = _DENSE_BYTES if task.memory_limit is None else task.memory_limit // 4
    if device.type == "cpu" and size > room:
        return task.X
    dense = np.zeros(task.X.shape, np.uint8 if binary else np.float32)
    for start in range(0, task.n_cells, _ROWS):  # no second copy of the whole
        dense[start : start + _ROWS] = task.X[start : start + _ROWS].toarray()
    return torch.from_numpy(dense).to(device)


def _labels(target: Target, rows: np.ndarray, device: torch.device) -> Labels:
    import torch

    values = target.values[rows]
    none = np.empty(0)
    if target.kind == "classification":
        return Labels(target, torch.from_numpy(values).to(device), none, none)
    values = values.reshape(len(rows), -1)
    values = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)
    with warnings.catch_warnings():  # a target without any label stays NaN, and weighs nothing
        warnings.simplefilter("ignore", RuntimeWarning)
        centre = np.nan_to_num(np.nanmean(values, axis=0))
        scale = np.nan_to_num(np.nanstd(values, axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    standard = ((values - centre) / scale).astype(np.float32)
    return Labels(target, torch.from_numpy(standard).to(device), centre, scale)
