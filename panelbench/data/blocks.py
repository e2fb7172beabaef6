"""Matrices that stay on disk: read by blocks of cells, and by the genes that are wanted.

A large file is opened without its matrices: in their place stand anndata's ``CSRDataset`` s, of
which every function here reads a block of cells at a time. Of a matrix in memory there is one
block, so that whoever asks does not need to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import DataError
from panelbench.method import Matrix

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData
    from scipy.sparse import csr_matrix

LARGE = 2**30
"""Bytes of a matrix, as CSR of float32, from which it stays on disk. No other machine decides
otherwise, so that the same file gives the same panels everywhere."""
CELLS = 16_384
"""Cells of a block."""
_ENTRY = 8
"""Bytes of a stored value and its column."""


def is_stored(matrix: Any) -> bool:
    """Whether a matrix is on disk."""
    if isinstance(matrix, np.ndarray):
        return False
    from anndata.abc import CSRDataset

    return isinstance(matrix, CSRDataset)


def is_large(group: Any) -> bool:
    """Whether a group of an HDF5 file is a matrix, cells x genes in CSR, that stays on disk."""
    encoding = getattr(group, "attrs", {}).get("encoding-type")
    return encoding == "csr_matrix" and _ENTRY * group["data"].shape[0] > LARGE


def open_stored(matrices: dict[str, h5py.Group], **parts: Any) -> AnnData:
    """An AnnData of a file whose large matrices stay there.

    Parameters
    ----------
    matrices
        ``X`` and layers by name; those that are not large are read.
    **parts
        Tables of cells and genes and what else belongs to an AnnData.
    """
    import anndata

    found = {name: stored(group) for name, group in matrices.items()}
    return anndata.AnnData(X=found.pop("X", None), layers=found, **parts)


def stored(group: h5py.Group) -> Any:
    """A matrix of a file: left there if it is large, read if not."""
    from anndata.io import read_elem, sparse_dataset

    return sparse_dataset(group) if is_large(group) else read_elem(group)


def blocks(matrix: Any, rows: np.ndarray | None = None) -> Iterator[tuple[int, Matrix]]:
    """Cells of a matrix, a block at a time.

    Parameters
    ----------
    matrix
        In memory or on disk.
    rows
        Sorted indices of the cells wanted, or None for all.

    Yields
    ------
    How many cells came before, and the block: CSR of float32, without stored zeros, from disk.
    """
    if not is_stored(matrix):
        yield 0, matrix if rows is None else matrix[rows]
        return
    before = 0
    for start in range(0, matrix.shape[0], CELLS):
        stop = min(start + CELLS, matrix.shape[0])
        within = None
        if rows is not None:
            first, last = np.searchsorted(rows, (start, stop))
            if first == last:
                continue
            within = rows[first:last] - start
        block = _tidy(matrix[start:stop])
        if within is not None and len(within) < stop - start:
            block = block[within]
        yield before, block
        before += block.shape[0]


def _tidy(block: csr_matrix) -> csr_matrix:
    from scipy import sparse

    # Made of its arrays, so that places of different widths in the file become alike.
    parts = (block.data.astype(np.float32, copy=False), block.indices, block.indptr)
    csr = sparse.csr_matrix(parts, shape=block.shape)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def take(matrix: Any, rows: np.ndarray, columns: np.ndarray | slice) -> csr_matrix:
    """Cells and genes of a matrix on disk; no more than these are ever in memory.

    Parameters
    ----------
    rows
        Indices of cells, in any order.
    columns
        Indices of genes, or ``slice(None)``.
    """
    from scipy import sparse

    order = np.argsort(rows, kind="stable")
    data, indices, lengths = [], [], [np.zeros(1, dtype=np.int64)]
    n_columns = matrix.shape[1] if isinstance(columns, slice) else len(columns)
    for _, block in blocks(matrix, rows[order]):
        part: Any = block if isinstance(columns, slice) else block[:, columns]
        data.append(part.data)
        indices.append(part.indices)
        lengths.append(np.diff(part.indptr))
    # One after the other, so that no more than one of them is there twice.
    values = np.concatenate([np.empty(0, np.float32), *data])
    del data
    places = np.concatenate([np.empty(0, np.int32), *indices])
    del indices
    ends = np.cumsum(np.concatenate(lengths))
    found = sparse.csr_matrix((values, places, ends), shape=(len(rows), n_columns))
    return found if (np.diff(order) > 0).all() else found[np.argsort(order, kind="stable")]


def share_places(matrix: csr_matrix, other: csr_matrix) -> csr_matrix:
    """The matrix, with the places of its values in the arrays of `other` where they are equal.

    Counts and their logarithms have the same places, which take half of the memory.
    """
    from scipy import sparse

    same = np.array_equal(matrix.indptr, other.indptr) and np.array_equal(
        matrix.indices, other.indices
    )
    if not same:
        return matrix
    return sparse.csr_matrix((matrix.data, other.indices, other.indptr), shape=matrix.shape)


def size_of(matrix: Any, rows: np.ndarray) -> int:
    """Bytes that some cells of a matrix on disk take in memory."""
    ends = matrix.group["indptr"][()]
    return _ENTRY * int(np.diff(ends)[rows].sum())


def check_memory(matrix: Any, why: str) -> None:
    """A matrix on disk fits into memory, with what is made of it.

    Parameters
    ----------
    why
        What needs all of it, and what else to do: for the message.

    Raises
    ------
    DataError
        When it does not fit.
    """
    import psutil

    # Counts, logarithms, and a copy of both when cells are taken.
    needed = 4 * _ENTRY * int(matrix.group["data"].shape[0])
    there = psutil.virtual_memory().available
    if needed > there:
        raise DataError(
            f"{why}. All at once they take about {needed / 2**30:.1f} GB of memory, and this "
            f"machine has {there / 2**30:.1f} GB free"
        )


def in_memory(matrix: Any) -> csr_matrix:
    """A matrix on disk as one in memory."""
    return _tidy(matrix.to_memory())


def totals(matrix: Any) -> np.ndarray:
    """Sum of each cell, float64."""
    sums = [np.asarray(block.sum(axis=1)).ravel() for _, block in blocks(matrix)]
    return np.concatenate(sums).astype(np.float64)


class Writer:
    """Writes a CSR matrix of float32 block by block into a group, as anndata reads it."""

    def __init__(self, parent: h5py.Group, name: str, n_columns: int) -> None:
        self.group = parent.create_group(name)
        growing = {"shape": (0,), "maxshape": (None,), "chunks": (2**18,)}
        self.group.create_dataset("data", dtype=np.float32, **growing)
        self.group.create_dataset("indices", dtype=np.int32, **growing)
        self.lengths, self.n_columns = [np.zeros(1, dtype=np.int64)], n_columns

    def append(self, block: Matrix) -> None:
        """Add cells."""
        from scipy import sparse

        csr = sparse.csr_matrix(block, dtype=np.float32)
        for name in ("data", "indices"):
            stored, new = self.group[name], getattr(csr, name)
            stored.resize(stored.shape[0] + len(new), axis=0)
            stored[stored.shape[0] - len(new) :] = new
        self.lengths.append(np.diff(csr.indptr))

    def close(self) -> None:
        """Write what is known at the end."""
        ends = np.cumsum(np.concatenate(self.lengths))
        # As scipy has it: both kinds of places are 32 bits wide, where they fit.
        self.group["indptr"] = ends.astype(np.int32 if ends[-1] < 2**31 else np.int64)
        self.group.attrs["encoding-type"] = "csr_matrix"
        self.group.attrs["encoding-version"] = "0.1.0"
        self.group.attrs["shape"] = (len(ends) - 1, self.n_columns)
