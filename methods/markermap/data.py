"""Training and validation cells on the device, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.method import Task
from panelbench.nn import tensor_of

if TYPE_CHECKING:
    import torch

_HELD_OUT = 0.1
_CHUNK = 1024


@dataclass(frozen=True)
class Cells:
    """All cells of a task, each either trained on or validated on.

    Attributes
    ----------
    x
        float32, shape (n_cells, n_genes).
    y
        Class codes, int64, or None.
    training, validation
        Rows of either kind, int64 arrays.
    """

    x: torch.Tensor
    y: torch.Tensor | None
    training: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, task: Task, *, labelled: bool) -> Cells:
        """Cells of a task; without a validation set in it, a tenth is held out at random.

        Raises
        ------
        NotApplicable
            When fewer than two cells are left to train on, or none to validate on.
        """
        held = task.validation
        if held is None:
            held = np.zeros(task.n_cells, bool)
            n_held = max(1, round(_HELD_OUT * task.n_cells))
            held[task.rng("markermap validation").permutation(task.n_cells)[:n_held]] = True
        training, validation = np.flatnonzero(~held), np.flatnonzero(held)
        if len(training) < 2 or len(validation) < 1:
            raise NotApplicable(
                f"needs 2 training cells and 1 validation cell, found {len(training)} and "
                f"{len(validation)}"
            )
        y = tensor_of(task.target.values, task.device) if labelled else None
        return cls(tensor_of(task.dense(), task.device), y, training, validation)

    def shuffled(
        self, size: int, rng: np.random.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Batches of training cells in random order; a last batch of one cell is left out."""
        order = rng.permutation(self.training)
        if len(order) % size == 1:  # batch normalisation needs two cells
            order = order[:-1]
        return self._batches(order, size)

    def validated(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Batches of validation cells."""
        return self._batches(self.validation, _CHUNK)

    def _batches(
        self, rows: np.ndarray, size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        import torch

        for part in torch.split(torch.from_numpy(rows).to(self.x.device), size):
            yield self.x.index_select(0, part), None if self.y is None else self.y[part]
