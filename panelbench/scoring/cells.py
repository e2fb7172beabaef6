"""Cells as an evaluator changes them: fewer of them, or other values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from panelbench.evaluator import Cells


def some(cells: Cells, rows: np.ndarray) -> Cells:
    """A part of the cells, by ascending or any other rows."""

    def of(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return replace(
        cells,
        target=replace(cells.target, values=cells.target.values[rows]),
        read=lambda needs: cells.read(needs)[rows],
        inputs=of(cells.inputs),
        groups=of(cells.groups),
        depth=of(cells.depth),
    )


def measured(cells: Cells, genes: Sequence[str], X: np.ndarray) -> Cells:
    """The same cells with values of their own for some genes, in every representation."""
    return replace(cells, genes=np.asarray(genes, dtype=str), read=lambda needs: X)
