"""Text tables of numbers, read one row at a time into a sparse matrix."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from panelbench.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def sparse_table(
    lines: Iterable[str],
    where: str,
    *,
    separator: str = ",",
    before: int = 1,
    columns: int,
    keep: np.ndarray | None = None,
) -> tuple[list[str], csr_matrix]:
    """Read rows that begin with a name.

    Only one row is dense at a time: a table of 45,768 x 15,413 numbers takes 5.6 GB as an array.

    Parameters
    ----------
    lines
        The rows, without the header; empty lines are skipped.
    where
        Name of the file, for messages.
    separator
        What stands between two values.
    before
        Columns in front of the numbers, the name among them.
    columns
        How many numbers a row has.
    keep
        Indices of the columns wanted, all if None.

    Returns
    -------
    names
        First value of each row, without quotes.
    matrix
        Rows x columns kept, float32.

    Raises
    ------
    DataError
        A row that is too short or long, or holds something else than numbers.
    """
    from scipy import sparse

    names: list[str] = []
    indices: list[np.ndarray] = []
    values: list[np.ndarray] = []
    ends = [0]
    with warnings.catch_warnings():
        # What is no number is an error in newer versions of numpy, and a warning in older ones.
        warnings.simplefilter("error", DeprecationWarning)
        for line in filter(str.strip, lines):
            head = line.split(separator, before)
            name = head[0].strip().strip('"')
            row = _numbers(head[-1], separator, columns)
            if row.size != columns or len(head) != before + 1:
                raise DataError(
                    f"{where}: row {len(names) + 1} ({name!r}) does not hold {columns} numbers; "
                    "the file may be cut short"
                )
            row = row if keep is None else row[keep]
            found = np.flatnonzero(row)
            names.append(name)
            indices.append(found.astype(np.int32))
            values.append(row[found])
            ends.append(ends[-1] + found.size)
    if not names:
        raise DataError(f"{where}: no rows with numbers")
    shape = (len(names), columns if keep is None else len(keep))
    data = np.concatenate(values), np.concatenate(indices), np.asarray(ends)
    return names, sparse.csr_matrix(data, shape=shape)


def _numbers(text: str, separator: str, expected: int) -> np.ndarray:
    """Numbers of a row; nothing if there are not as many as expected, or something else.

    Whole numbers are read ten times as fast as others, so that is tried first.
    """
    for kind in (np.int64, np.float32):
        with contextlib.suppress(ValueError, DeprecationWarning):
            row = np.fromstring(text, dtype=kind, sep=separator)
            if row.size == expected:
                return row.astype(np.float32)
    return np.empty(0, dtype=np.float32)
