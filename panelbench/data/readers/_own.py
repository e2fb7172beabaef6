"""What the readers of one's own data share: which matrix, what it holds, names of genes, labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from panelbench.data import checks
from panelbench.data.blocks import is_large, is_stored, open_stored, stored
from panelbench.data.readers._shared import Files, read_table, tidy
from panelbench.data.scale import TOO_LARGE, describe
from panelbench.errors import ConfigError, DataError, damaged, hint

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Held = Literal["auto", "counts", "linear", "lognorm"]
_SYMBOLS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol")
"""Usual columns of ``var`` with gene symbols; the first is CELLxGENE's."""


def finish(
    source: AnnData,
    where: str,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: Path | None = None,
    notes: Iterable[str] = (),
) -> AnnData:
    """Make what a reader returns of what was in the file.

    Parameters
    ----------
    source
        The matrices of the file with its tables of cells and genes.
    where
        Name of the file, for messages.
    layer
        Which matrix to take: a name in ``layers``, ``raw`` for ``.raw``, or ``X``. None with
        ``x: auto`` is ``layers["counts"]`` where it exists, else ``X``.
    x
        What that matrix holds. ``auto`` looks at the values: counts, 0 and 1 only, or logarithms;
        anything else is an error. ``linear`` takes normalised values or fractional counts as they
        are, for a recipe with ``log1p``.
    gene_names
        Column of ``var`` with the names of the genes, if not its index.
    labels
        Table of cells with their labels.
    notes
        For people.
    """
    import anndata

    layer, x, told = matrix_of(list(source.layers), layer, x)
    matrix, var = _matrix(source, layer, where)
    obs, missing = (source.obs, []) if labels is None else labelled(source.obs, labels, where)
    adata = anndata.AnnData(X=_kept(matrix), obs=obs, var=var, obsm=dict(source.obsm))
    state = _state(adata, source, x, where, layer)
    notes = [*notes, *told, *missing]
    if state == "counts":
        adata.layers["counts"] = adata.X
    elif layer is None and source.raw is not None and checks.are_counts(_kept(source.raw.X)):
        notes.append("the file has counts in .raw, which are not used; --layer raw reads them")
    notes += name_genes(adata, gene_names, where)
    adata.uns.update(x=state, notes=notes)
    return adata


def _kept(matrix: Any) -> Any:
    """A matrix as CSR or array of float32; what is on disk stays there."""
    return matrix if is_stored(matrix) else tidy(matrix)


def matrix_of(layers: list[str], layer: str | None, x: Held) -> tuple[str | None, Held, list[str]]:
    """Which matrix to take (None for ``X``), what it should hold, and a note."""
    if x not in get_args(Held):
        raise ConfigError(f"reader option x: {x!r} is none of {', '.join(get_args(Held))}")
    notes = []
    if layer is None and x == "auto" and "counts" in layers:
        layer = "counts"
        notes.append('counts are read from layers["counts"]')
    if layer == "counts" and x == "auto":
        # A layer of this name that holds something else is a mistake worth stopping for.
        x = "counts"
    return (None if layer == "X" else layer), x, notes


def _matrix(source: AnnData, layer: str | None, where: str) -> tuple[Any, Any]:
    """The matrix asked for, and the table of its genes."""
    known = [*source.layers, *(["raw"] if source.raw is not None else [])]
    if layer is None:
        if source.X is None:
            raise DataError(f"{where}: X is empty; choose a layer (--layer): {', '.join(known)}")
        return source.X, source.var
    if layer == "raw" and source.raw is not None:
        return source.raw.X, source.raw.var
    if layer not in source.layers:
        raise DataError(f"{where}: no layer {layer!r}; {hint(layer, known)}")
    return source.layers[layer], source.var


def _state(adata: AnnData, source: AnnData, x: Held, where: str, layer: str | None) -> str:
    """What the matrix holds, as `panelbench.data.states.State`; its values must agree."""
    # Advice about other matrices is of use where X was read, not where one was asked for.
    of, what = (source, "X") if layer is None else (adata, layer)
    if x == "counts":
        checks.counts(adata.X, of, where, what)
        return "counts"
    survey = checks.survey(adata.X)
    if not survey[0]:
        checks.matrix_values(adata.X, of, where, what)
    kind, evidence = ("lognorm", "") if x == "lognorm" else describe(adata.X, survey)
    others = checks.other_matrices(source if layer is None else adata)
    return state_of(kind, evidence, survey[1], x, f"{where}: {what}", others)


def state_of(kind: str, evidence: str, top: float, x: Held, what: str, others: str) -> str:
    """The state of a matrix whose values look like `kind`, of which `x` was said.

    Parameters
    ----------
    evidence, top
        The values in words, and the largest.
    what
        File and matrix, for messages.
    others
        Advice: other matrices that could be read.

    Raises
    ------
    DataError
        For values that are neither counts nor logarithms, unless they were said to be.
    """
    if x == "lognorm":
        if top > TOO_LARGE:
            raise DataError(
                f"{what} should hold log-normalised values, but those up to {top:,.4g} "
                "are no logarithms; --log1p takes their logarithm"
            )
        return "lognorm"
    if x == "linear":
        return "counts" if kind == "counts" else "normalized"
    if kind == "linear":
        perhaps = "" if top > TOO_LARGE else "; if they are logarithms, --lognorm (x: lognorm)"
        raise DataError(
            f"{what} holds {evidence}: neither counts nor log-normalised values. To take "
            f"their logarithm, --log1p (reader option x: linear, recipe step log1p){perhaps}; or "
            f"{others}"
        )
    return kind


def name_genes(adata: AnnData, column: str | None, where: str) -> list[str]:
    """Name the genes by a column of ``var``; return a note where one would serve better."""
    if column is not None:
        if column not in adata.var:
            raise DataError(
                f"{where}: no column {column!r} with gene names in var; "
                f"{hint(column, adata.var.columns)}"
            )
        adata.var_names = adata.var[column].astype(str).to_numpy()
        return []
    if not checks.are_ensembl_ids(adata.var_names):
        return []
    found = next((name for name in _SYMBOLS if name in adata.var), None)
    if found is None:
        return []
    return [f"genes are named by Ensembl ids; --gene-names {found} names them by symbols"]


def open_large(root: Any, path: Path) -> AnnData | None:
    """An AnnData in HDF5 or Zarr with a matrix that is large, and stays there; None without one.

    Raises
    ------
    DataError
        When the rest of it cannot be read.
    """
    from anndata.io import read_elem

    matrices = {name: root[name] for name in ("X", "raw/X") if name in root}
    if "layers" in root:
        matrices |= {name: root[f"layers/{name}"] for name in root["layers"]}
    if not any(is_large(group) for group in matrices.values()):
        return None
    with damaged(lambda error: f"{path}: cannot be read ({type(error).__name__}: {error})"):
        parts = {name: read_elem(root[name]) for name in ("obs", "var", "obsm") if name in root}
        if "raw/X" in matrices:
            parts["raw"] = {"X": stored(matrices.pop("raw/X")), "var": read_elem(root["raw/var"])}
        return open_stored(matrices, **parts)


# -- labels from a table -------------------------------------------------------------------


def apart(files: Files, labels: str | None) -> tuple[Files, Path | None]:
    """Files of the matrix, and the table of labels that the reader option names.

    Raises
    ------
    ConfigError
        When no file has that name.
    """
    if labels is None:
        return files, None
    named = {name: path for name, path in files.items() if Path(name).name == labels}
    if len(named) != 1:
        near = hint(labels, [Path(name).name for name in files])
        raise ConfigError(f"reader option labels: no file {labels!r}; {near}")
    rest = {name: path for name, path in files.items() if name not in named}
    return rest, next(iter(named.values()))


def label_table(path: Path) -> pd.DataFrame:
    """Read a table whose first column names cells: CSV or, by its name or look, tab-separated.

    Raises
    ------
    DataError
        No table, no column beside the names, or a cell twice.
    """
    table = read_table(path, path.name, index_col=0, converters={0: str}, sep=separator(path))
    table.index = table.index.astype(str)
    if not len(table.columns):
        raise DataError(
            f"{path.name}: a table of labels has the names of the cells in its first column and "
            "labels in others, below a line with the names of the columns; this one has one column"
        )
    if table.index.duplicated().any():
        twice = table.index[table.index.duplicated()][0]
        raise DataError(f"{path.name}: cell {twice!r} occurs more than once")
    return table


def labelled(obs: pd.DataFrame, path: Path, where: str) -> tuple[pd.DataFrame, list[str]]:
    """The table of the cells with the labels of another; cells that it lacks have none.

    Raises
    ------
    DataError
        When it lists none of the cells.
    """
    table = label_table(path)
    known = obs.index.isin(table.index)
    if not known.any():
        raise DataError(
            f"{path.name}: none of the cells of {where} is listed "
            f"(there is {table.index[0]!r}, here {obs.index[0]!r}): names must be the same"
        )
    joined = obs.drop(columns=[name for name in table.columns if name in obs])
    joined = joined.join(table)
    missing = int((~known).sum())
    notes = [f"{missing} of {len(obs)} cells are not in {path.name}: no labels"] if missing else []
    return joined, notes


def separator(path: Path) -> str:
    """What stands between the values of a table: the most frequent of tab, comma, semicolon."""
    with open_text(path) as handle:
        line = handle.readline()
    return max("\t,;", key=line.count)


def open_text(path: Path) -> Any:
    """Open a text that may be compressed with gzip."""
    import gzip

    opened = gzip.open if path.suffix.lower() == ".gz" else open
    return opened(path, "rt", encoding="utf-8-sig", errors="replace")
