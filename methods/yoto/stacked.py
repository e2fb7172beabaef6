"""Cells of several runs side by side: every run has its own cells, genes and labels.

What runs draw at random comes from generators of their own on the CPU, so that a run is the same
in a group, alone and on the CPU up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from panelbench.method import Task
from panelbench.nn import tensor_of

from .data import Cells, Labels
from .options import Settings

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_AHEAD = 8  # steps


class Stacked:
    """Cells of M runs that agree in their number and in their tasks.

    Parameters
    ----------
    cells
        Those of each run, all on one device.

    Attributes
    ----------
    sizes
        Candidate genes of each run.
    labels
        Those of the first run: names and kinds of the tasks.
    """

    def __init__(self, cells: Sequence[Cells]) -> None:
        import torch

        self.device, self.labels = cells[0].device, cells[0].labels
        self.sizes = [len(mine.genes) for mine in cells]
        self.n_cells = cells[0].n_cells
        self.gain = self.padded([mine.gain for mine in cells])
        self.genes = self.padded([mine.columns for mine in cells])
        self.data, start, width = _together(cells)
        rows = np.stack([mine.rows for mine in cells])
        # Where a cell begins in the data; how far a gene lies behind that is in `genes`.
        self.cells = (start + torch.from_numpy(rows) * width).to(self.device)
        self.values = [
            torch.stack([mine.labels[task].values for mine in cells])
            for task in range(len(self.labels))
        ]

    def padded(self, parts: Sequence[torch.Tensor], fill: float = 0.0) -> torch.Tensor:
        """One tensor per run, of as many rows as it has genes, in one: (M, most genes, ...)."""
        shape = (len(parts), max(self.sizes), *parts[0].shape[1:])
        made = parts[0].new_full(shape, fill)
        for row, part in zip(made, parts, strict=True):
            row[: len(part)] = part
        return made

    def expression(self, batch: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Scaled expression of each run's cells (M, B) and candidates (M, G): float32 (M, B, G)."""
        places = self.cells.gather(1, batch).unsqueeze(2) + self.genes.gather(1, genes).unsqueeze(1)
        values = self.data.index_select(0, places.flatten()).view(places.shape).float()
        return values * self.gain.gather(1, genes).unsqueeze(1)

    def truth(self, batch: torch.Tensor) -> Iterator[tuple[Labels, torch.Tensor]]:
        """Each task with the labels of these cells: (M, B), or (M, B, n_outputs) for numbers."""
        for labels, values in zip(self.labels, self.values, strict=True):
            if labels.target.kind == "classification":
                yield labels, values.gather(1, batch)
            else:
                index = batch.unsqueeze(2).expand(-1, -1, values.shape[2])
                yield labels, values.gather(1, index)


def cells_of(tasks: Sequence[Task], settings: Sequence[Settings]) -> list[Cells]:
    """Cells of each task; tasks on the same cells have them in common."""
    found: list[Cells] = []
    for number, (task, s) in enumerate(zip(tasks, settings, strict=True)):
        twins = (
            found[i]
            for i in range(number)
            if tasks[i].X is task.X
            and tasks[i].targets is task.targets
            and tasks[i].groups is task.groups
            and settings[i].standardize == s.standardize
        )
        twin = next(twins, None)
        found.append(twin or Cells(task, standardize=s.standardize))
    return found


def shape_of(cells: Cells) -> tuple[Any, ...]:
    """What runs must agree in to be side by side."""
    heads = tuple((x.target.name, x.target.kind, x.n_outputs) for x in cells.labels)
    return cells.n_cells, cells.groups is None, heads


def drawn_ahead(draws: Sequence[Iterator[T]], task: Task) -> Iterator[tuple[T, ...]]:
    """Next item of all iterators, which a GPU does not wait for: the CPU makes some ahead."""
    workers = max(1, min(len(draws), task.n_jobs))
    pool = ThreadPoolExecutor(workers) if task.device.startswith("cuda") else None

    def some(items: Iterator[T]) -> list[T]:
        return list(islice(items, _AHEAD))

    try:
        coming = pool.map(some, draws) if pool else map(some, draws)
        while any(parts := list(coming)):
            coming = pool.map(some, draws) if pool else map(some, draws)
            yield from zip(*parts, strict=True)
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _together(cells: Sequence[Cells]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices of several runs in one, each once.

    Returns
    -------
    All values in one row; where the matrix of each run begins, and how wide it is, int64 (M, 1).
    """
    import torch

    matrices: dict[int, torch.Tensor] = {}
    places: dict[int, int] = {}
    total = 0
    for mine in cells:
        if id(mine.matrix) not in matrices:
            dense = mine.matrix
            if not isinstance(dense, torch.Tensor):
                dense = tensor_of(np.asarray(dense.toarray(), dtype=np.float32), mine.device)
            matrices[id(mine.matrix)], places[id(mine.matrix)] = dense, total
            total += dense.numel()
    parts = [matrix.reshape(-1) for matrix in matrices.values()]
    kinds = {part.dtype for part in parts}
    if len(kinds) > 1:
        parts = [part.float() for part in parts]
    data = parts[0] if len(parts) == 1 else torch.cat(parts)
    start = torch.tensor([[places[id(mine.matrix)]] for mine in cells])
    width = torch.tensor([[matrices[id(mine.matrix)].shape[1]] for mine in cells])
    return data, start, width
