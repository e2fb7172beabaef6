"""Tables of text: cells in rows or in columns, separated by commas, tabs or semicolons."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import checks
from panelbench.data.readers._own import (
    Held,
    apart,
    finish,
    label_table,
    open_text,
    separator,
)
from panelbench.data.readers._shared import Files, only
from panelbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_VALUES = 20_000_000
"""Values that are dense at a time."""


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read a table (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) with a header and names of rows.

    Cells are the rows, and columns of text are their labels; or they are the columns, as in many
    tables of GEO. Which it is, the names in the table of labels say (`labels`), else columns of
    text, else what the names look like. Options as of `panelbench.data.readers.h5ad`.
    """
    import anndata
    import pandas as pd

    files, table = apart(files, labels)
    path = only(files)
    rows, columns, X, text = _parsed(path)
    notes = []
    known = None if table is None else set(label_table(table).index)
    if _genes_in_rows(rows, columns, known, not text.empty):
        if not text.empty:
            raise DataError(
                f"{path.name}: genes are in rows, but column {text.columns[0]!r} holds text; "
                "keep the names of the genes in the first column and remove this one"
            )
        rows, columns, X, text = columns, rows, X.T.tocsr(), pd.DataFrame(index=columns)
        notes.append(f"genes are in rows: {X.shape[0]} cells x {X.shape[1]} genes")
    text.index = pd.Index(rows)
    source = anndata.AnnData(X=X, obs=text, var=pd.DataFrame(index=pd.Index(columns, dtype=str)))
    return finish(
        source, path.name, layer=layer, x=x, gene_names=gene_names, labels=table, notes=notes
    )


def _genes_in_rows(rows: list[str], columns: list[str], cells: set[str] | None, text: bool) -> bool:
    """Whether the columns are cells: by the cells that have labels, if these are known."""
    if cells is not None and any(not cells.isdisjoint(names) for names in (rows, columns)):
        return sum(name in cells for name in columns) > sum(name in cells for name in rows)
    return not text and bool(checks.transposed(rows, columns))


def _parsed(path: Path) -> tuple[list[str], list[str], Any, pd.DataFrame]:
    """Names of rows and of columns with numbers, the numbers as CSR, and the columns of text."""
    import pandas as pd
    from scipy import sparse

    sep = separator(path)
    with open_text(path) as handle:
        rows = csv.reader(handle, delimiter=sep)
        header, first = next(rows, []), next(rows, [])
    if len(first) < 2:
        raise DataError(f"{path.name}: expected a header and rows of a name and numbers")
    # R leaves out the name of the column with the names.
    header = header if len(header) == len(first) - 1 else header[1:]
    if len(header) != len(first) - 1:
        raise DataError(f"{path.name}: {len(header)} names of columns for {len(first) - 1} values")
    names: list[str] = []
    numbers: list[Any] = []
    texts: list[pd.DataFrame] = []
    is_text = np.array([not _is_number(value) for value in first[1:]])
    try:
        blocks = pd.read_csv(
            path, sep=sep, header=None, skiprows=1, low_memory=False, encoding_errors="replace",
            chunksize=max(1, _VALUES // len(first)), converters={0: str},
        )  # fmt: skip
        for block in blocks:
            names += block[0].tolist()
            values = block.iloc[:, 1:]
            texts.append(values.loc[:, is_text])
            numbers.append(sparse.csr_matrix(values.loc[:, ~is_text].to_numpy(dtype=np.float32)))
    except (ValueError, OSError, EOFError) as error:  # those of pandas are ValueErrors
        raise DataError(f"{path.name}: cannot be read as a table of numbers ({error})") from error
    columns = np.array(header, dtype=object)
    text = pd.concat(texts)
    text.columns = pd.Index(columns[is_text], dtype=str)
    return names, columns[~is_text].tolist(), sparse.vstack(numbers, format="csr"), text


def _is_number(value: str) -> bool:
    """Whether pandas would read a number; what is missing counts as one, and is an error later."""
    try:
        float(value or "nan")
    except ValueError:
        return value in ("NA", "NaN", "N/A", "null", "NULL")
    return True
