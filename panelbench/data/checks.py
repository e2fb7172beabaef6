"""Checks of what a data file holds: each failure is one `DataError` that says where it is.

Every check takes `where`, the name of the file (and data set) for the message.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.blocks import blocks, totals
from panelbench.errors import DataError, hint
from panelbench.method import Matrix

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from panelbench.data.specs import TaskSpec

_BARCODE = re.compile(r"[ACGT]{12,}")
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
_EVERYWHERE = frozenset(
    ("ACTB", "B2M", "EEF1A1", "FTH1", "FTL", "GAPDH", "MALAT1", "RPL3", "RPLP0", "TMSB4X", "UBB")
)
"""Symbols found in nearly every data set (upper case: mouse names are compared likewise)."""


def values_of(X: Matrix) -> np.ndarray:
    """Stored values of a matrix (a view): the non-zero ones of CSR, all of an array."""
    return X.ravel() if isinstance(X, np.ndarray) else np.asarray(X.data)


def are_counts(X: Matrix) -> bool:
    """Whether every value is a whole number, zero or more."""
    return all(_whole(values_of(block)) for _, block in blocks(X))


def survey(X: Matrix) -> tuple[bool, float]:
    """Whether a matrix holds counts, and its largest value (0 of an empty one), by one look."""
    whole, top = True, 0.0
    for _, block in blocks(X):
        values = values_of(block)
        whole = whole and _whole(values)
        top = max(top, float(values.max(initial=0)))
    return whole, top


def _whole(values: np.ndarray) -> bool:
    if not values.size:
        return True
    return bool(
        values.min() >= 0 and np.isfinite(values).all() and (values == np.rint(values)).all()
    )


def gene_names(adata: AnnData, where: str) -> None:
    """Every gene has a name and no two have the same.

    Raises
    ------
    DataError
    """
    names = np.asarray(adata.var_names, dtype=str)
    empty = np.flatnonzero(np.isin(np.char.strip(names), ["", "nan", "None"]))
    if empty.size:
        raise DataError(
            f"{where}: genes without a name ({empty.size} in all, first: column {empty[0]}); "
            "name them or drop these columns"
        )
    unique, counts = np.unique(names, return_counts=True)
    twice = unique[counts > 1]
    if twice.size:
        raise DataError(
            f"{where}: {twice.size} gene names occur more than once ({', '.join(twice[:5])}"
            f"{', ...' if twice.size > 5 else ''}); merge them, or set the reader option "
            "make_unique (--make-unique), which appends -1, -2, ..."
        )


def matrix_values(X: Matrix, adata: AnnData, where: str, what: str = "X") -> None:
    """No value is NaN, infinite or negative.

    Raises
    ------
    DataError
        Naming the first such cell and gene.
    """
    for start, block in blocks(X):
        values = values_of(block)
        missing = ~np.isfinite(values)
        if missing.any():
            raise DataError(
                f"{where}: {what} holds NaN or infinite values "
                f"({_place(block, missing, adata, start)}); expression must be finite"
            )
        negative = values < 0
        if negative.any():
            raise DataError(
                f"{where}: {what} holds negative values ({_place(block, negative, adata, start)}); "
                f"scaled data cannot be used; {other_matrices(adata)}"
            )


def counts(X: Matrix, adata: AnnData, where: str, what: str = "X") -> None:
    """Every value is a whole number, zero or more, as raw counts are.

    Raises
    ------
    DataError
        Naming the first cell and gene with another value.
    """
    matrix_values(X, adata, where, what)
    for start, block in blocks(X):
        values = values_of(block)
        broken = values != np.rint(values)
        if broken.any():
            raise DataError(
                f"{where}: {what} should hold raw counts, but has values that are not whole "
                f"numbers ({_place(block, broken, adata, start)}, {values[broken][0]:g}); "
                + ("--layer X reads X instead" if what == "counts" else other_matrices(adata))
            )


def _place(X: Matrix, wrong: np.ndarray, adata: AnnData, start: int) -> str:
    """How many entries `wrong` (a mask over `values_of`) has, and cell and gene of the first.

    `start` cells came before; of a large file, entries are counted in this block.
    """
    first = int(np.flatnonzero(wrong)[0])
    if isinstance(X, np.ndarray):
        row, column = divmod(first, X.shape[1])
    else:
        row = int(np.searchsorted(X.indptr, first, side="right")) - 1
        column = int(X.indices[first])
    place = f"cell {adata.obs_names[start + row]!r}, gene {adata.var_names[column]!r}"
    several = "in all" if X.shape[0] == adata.n_obs else "in one part of the file"
    return f"{int(wrong.sum())} {several}, first: {place}"


def are_ensembl_ids(names: Iterable[str]) -> bool:
    """Whether most of the first names are gene ids of Ensembl."""
    return _share(_ENSEMBL, [str(name) for name in itertools.islice(names, 5000)]) > 0.5


def other_matrices(adata: AnnData) -> str:
    """Advice: which other matrices of the file could be read instead."""
    found = [str(name) for name in adata.layers] + (["raw"] if adata.raw is not None else [])
    if found:
        return f"choose another matrix with the reader option layer (--layer): {', '.join(found)}"
    return "give a file with raw counts or log-normalised values: this one has no other matrix"


def empty_cells(adata: AnnData, where: str) -> None:
    """Every cell has at least one count.

    Raises
    ------
    DataError
    """
    empty = np.flatnonzero(totals(adata.X) == 0)
    if empty.size:
        raise DataError(
            f"{where}: {empty.size} of {adata.n_obs} cells have no counts at all (first: "
            f"{adata.obs_names[empty[0]]!r}); remove them, or begin the recipe with "
            "filter_cells: {min_genes: 1} (--min-genes 1)"
        )


def orientation(adata: AnnData, columns: Iterable[str], where: str) -> None:
    """Rows are cells and columns are genes, as far as names can tell.

    Parameters
    ----------
    columns
        Label columns that are expected in ``obs``.

    Raises
    ------
    DataError
        With the evidence, when the matrix looks transposed.
    """
    evidence = []
    misplaced = [c for c in columns if c not in adata.obs and c in adata.var]
    if misplaced:
        evidence.append(f"the label column {misplaced[0]!r} is in var, not in obs")
    evidence += transposed(adata.obs_names, adata.var_names)
    if evidence:
        raise DataError(
            f"{where}: the matrix looks transposed, {adata.n_obs} cells x {adata.n_vars} genes: "
            f"{'; '.join(evidence)}. Rows must be cells: save adata.T"
        )


def transposed(rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """What speaks for genes in the rows and cells in the columns, by their names."""
    evidence = []
    first = [str(name) for name in columns[:5000]]
    if _share(_BARCODE, first) > 0.5:
        evidence.append(f"the columns are named like cell barcodes ({first[0]!r})")
    if are_ensembl_ids(rows):
        evidence.append(f"the rows are named like genes ({rows[0]!r})")
    symbols = _EVERYWHERE & {str(name).upper() for name in rows}
    if len(symbols) >= 3 and not _EVERYWHERE & {str(name).upper() for name in columns}:
        evidence.append(f"rows are named {', '.join(sorted(symbols)[:3])}")
    return evidence


def _share(pattern: re.Pattern[str], names: list[str]) -> float:
    return sum(bool(pattern.search(name)) for name in names) / max(len(names), 1)


def column(adata: AnnData, name: str, where: str, what: str = "label") -> Any:
    """Return a column of ``obs``.

    Raises
    ------
    DataError
        Listing near matches when there is none of this name.
    """
    if not len(adata.obs.columns):
        raise DataError(
            f"{where}: no {what} column {name!r}: the file says nothing of its cells. Give a table "
            "with their names in the first column and labels in others (--labels FILE)"
        )
    if name not in adata.obs:
        raise DataError(
            f"{where}: no {what} column {name!r} in obs; {hint(name, adata.obs.columns)}"
        )
    return adata.obs[name]


def class_labels(adata: AnnData, task: TaskSpec, where: str) -> pd.Categorical:
    """Labels of a classification task; rare classes (`TaskSpec.min_cells`) are missing.

    Returns
    -------
    Categorical of str, one per cell, NaN where missing. The order of a categorical column is
    kept, other columns are sorted.

    Raises
    ------
    DataError
        No such column; real numbers; names of cells; fewer than two classes.
    """
    import pandas as pd

    values = column(adata, task.source, where)
    if isinstance(values.dtype, pd.CategoricalDtype):
        levels = list(values.cat.categories)
    else:
        if pd.api.types.is_float_dtype(values):
            if (values.dropna() != values.dropna().round()).any():
                raise DataError(
                    f"{where}: label column {task.source!r} holds real numbers, not classes; "
                    "declare it as a regression task (kind: regression, --target)"
                )
            values = values.astype("Int64")  # 1.0 with gaps: the class is called "1"
        levels = sorted(values.dropna().unique(), key=_natural)
    names = list(dict.fromkeys(str(level) for level in levels if str(level).strip()))
    text = values.astype(object).where(values.notna().to_numpy(), None)
    labels = pd.Categorical(text.map(lambda v: None if v is None else str(v)), categories=names)
    counts = labels.value_counts()
    kept = [name for name in names if counts[name] >= max(task.min_cells, 1)]
    labels = labels.set_categories(kept)
    if len(kept) < 2:
        rule = f" with at least {task.min_cells} cells (min_cells)" if task.min_cells else ""
        found = f"one class{rule} ({kept[0]!r})" if kept else f"no class{rule}"
        raise DataError(f"{where}: label column {task.source!r} has {found}; a task needs two")
    if len(kept) > max(20, adata.n_obs // 2):
        raise DataError(
            f"{where}: label column {task.source!r} has {len(kept)} classes for {adata.n_obs} "
            "cells: it looks like names of cells, not like labels"
        )
    return labels


def _natural(value: Any) -> tuple[int, float, str]:
    """Order numbers as numbers, before text."""
    if isinstance(value, int | float | np.number):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def regression_target(adata: AnnData, task: TaskSpec, where: str) -> np.ndarray:
    """Values of a regression task.

    Returns
    -------
    float64 of shape (n_cells,) for a column of ``obs``, (n_cells, n_outputs) for a key of
    ``obsm``; NaN where missing.

    Raises
    ------
    DataError
        No such column or key; not numbers; no two different values.
    """
    if task.source not in adata.obs and task.source not in adata.obsm:
        known = [*adata.obs.columns, *adata.obsm]
        raise DataError(
            f"{where}: no target {task.source!r} in obs or obsm; {hint(task.source, known)}"
        )
    found = adata.obs[task.source] if task.source in adata.obs else adata.obsm[task.source]
    if hasattr(found, "toarray"):
        found = found.toarray()
    try:
        values = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: target {task.source!r} does not hold numbers; "
            "declare it as a classification task (--label)"
        ) from None
    values = np.where(np.isfinite(values), values, np.nan)
    spread = [np.unique(v[~np.isnan(v)]).size for v in values.reshape(len(values), -1).T]
    if not spread or min(spread) < 2:
        raise DataError(f"{where}: target {task.source!r} is constant or missing in all cells")
    return values


def expression_target(adata: AnnData, task: TaskSpec, where: str) -> tuple[np.ndarray, list[str]]:
    """Values of an expression task that are no genes of the matrix, and their names.

    Returns
    -------
    float32 of shape (n_cells, n_outputs), NaN where missing; names of the columns, or their
    numbers.

    Raises
    ------
    DataError
        No such key of ``obsm``; not numbers; a name twice.
    """
    if task.source not in adata.obsm:
        raise DataError(
            f"{where}: no outputs {task.source!r} in obsm; {hint(task.source, adata.obsm)}"
        )
    found = adata.obsm[task.source]
    try:
        values = np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{where}: outputs {task.source!r} do not hold numbers") from None
    columns = getattr(found, "columns", range(values.shape[1]))
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise DataError(f"{where}: outputs {task.source!r}: every name only once")
    return np.where(np.isfinite(values), values, np.nan), names


def coordinates(adata: AnnData, where: str) -> np.ndarray:
    """Places of the cells, float64 of shape (n_cells, 2).

    Raises
    ------
    DataError
        No such key of ``obsm``, or places that are no numbers.
    """
    if "spatial" not in adata.obsm:
        raise DataError(f'{where}: a split by blocks needs obsm["spatial"]; '
                        f"{hint('spatial', adata.obsm)}")  # fmt: skip
    places = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    if places.ndim != 2 or places.shape[1] < 2 or not np.isfinite(places[:, :2]).all():
        raise DataError(f'{where}: obsm["spatial"] should hold two finite numbers per cell')
    return places[:, :2]
