"""A sample of the training cells, for methods and machines that cannot take all of them."""

from __future__ import annotations

import zlib

import numpy as np

from panelbench.errors import DataError

FLOOR = 10
"""Cells of each class that a sample keeps, where the class has them and there is room."""


def subsample(
    cells: np.ndarray, classes: np.ndarray, groups: np.ndarray | None, n: int, seed: int
) -> np.ndarray:
    """Draw cells at random, by class and, within a class, by group.

    Every class keeps `FLOOR` cells (all, if it has fewer; less, if `n` leaves no room for that);
    the others are divided in proportion to what is left of each class. Within a class, donors (or
    batches, slides) keep their shares.

    Parameters
    ----------
    cells
        int64 indices of cells.
    classes
        int64 codes of all cells, -1 where missing: these are drawn like a class without floor.
    groups
        int64 codes of all cells, or None.
    n
        Cells to draw.
    seed
        Seed of the run.

    Returns
    -------
    Sorted int64 indices, `n` of them, or all when there are not more.

    Raises
    ------
    DataError
        When there are more classes than cells to draw.
    """
    if n >= len(cells):
        return np.sort(cells)
    codes, counts = np.unique(classes[cells], return_counts=True)
    labelled = codes >= 0
    if labelled.sum() > n:
        raise DataError(f"--max-cells {n}: the training cells have {labelled.sum()} classes; every "
                        "class needs a cell at least")  # fmt: skip
    floor = min(FLOOR, n // max(int(labelled.sum()), 1))
    least = np.where(labelled, np.minimum(counts, floor), 0)
    sizes = least + _shares(counts - least, n - int(least.sum()))
    rng = np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(b"max-cells"))))
    drawn = [
        _by_group(cells[classes[cells] == code], groups, int(size), rng)
        for code, size in zip(codes, sizes, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _by_group(
    cells: np.ndarray, groups: np.ndarray | None, n: int, rng: np.random.Generator
) -> np.ndarray:
    if groups is None:
        return rng.choice(cells, size=n, replace=False)
    codes, counts = np.unique(groups[cells], return_counts=True)
    parts = [
        rng.choice(cells[groups[cells] == code], size=int(size), replace=False)
        for code, size in zip(codes, _shares(counts, n), strict=True)
    ]
    return np.concatenate(parts)


def _shares(counts: np.ndarray, n: int) -> np.ndarray:
    """Divide n in proportion to counts, as whole numbers: the largest remainders are rounded up."""
    exact = n * counts / max(int(counts.sum()), 1)
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: n - int(shares.sum())]] += 1
    return shares
