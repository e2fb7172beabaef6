"""AnnData files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from panelbench.data import checks
from panelbench.data.readers._shared import Files, only, open_h5ad, tidy
from panelbench.data.scale import TOO_LARGE, describe
from panelbench.errors import ConfigError, DataError, hint

if TYPE_CHECKING:
    from anndata import AnnData

Held = Literal["auto", "counts", "linear", "lognorm"]
_SYMBOLS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol")
"""Usual columns of ``var`` with gene symbols; the first is CELLxGENE's."""


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read an ``.h5ad`` file.

    Parameters
    ----------
    layer
        Which matrix to take: a name in ``layers``, ``raw`` for ``.raw``, or ``X``. None with
        ``x: auto`` is ``layers["counts"]`` where it exists, else ``X``.
    x
        What that matrix holds. ``auto`` looks at the values: counts, 0 and 1 only, or logarithms;
        anything else is an error. ``linear`` takes normalised values or fractional counts as they
        are, for a recipe with ``log1p``.
    gene_names
        Column of ``var`` with the names of the genes, if not its index.
    make_unique
        Append -1, -2, ... to repeated gene names (done by `panelbench.data.read.read`).
    """
    import anndata

    if x not in get_args(Held):
        raise ConfigError(f"reader option x: {x!r} is none of {', '.join(get_args(Held))}")
    path = only(files)
    source = open_h5ad(path)
    notes = []
    if layer is None and x == "auto" and "counts" in source.layers:
        layer = "counts"
        notes.append('counts are read from layers["counts"]')
    if layer == "counts" and x == "auto":
        # A layer of this name that holds something else is a mistake worth stopping for.
        x = "counts"
    layer = None if layer == "X" else layer
    matrix, var = _matrix(source, layer, path.name)
    adata = anndata.AnnData(X=tidy(matrix), obs=source.obs, var=var, obsm=dict(source.obsm))
    state = _state(adata, source, x, path.name, layer)
    if state == "counts":
        adata.layers["counts"] = adata.X
    elif layer is None and source.raw is not None and checks.are_counts(tidy(source.raw.X)):
        notes.append("the file has counts in .raw, which are not used; --layer raw reads them")
    notes += _name_genes(adata, gene_names, path.name)
    adata.uns.update(x=state, notes=notes)
    return adata


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
    """What the matrix holds, as `panelbench.data.steps.State`; its values must agree."""
    # Advice about other matrices is of use where X was read, not where one was asked for.
    of, what = (source, "X") if layer is None else (adata, layer)
    if x == "counts":
        checks.counts(adata.X, of, where, what)
        return "counts"
    checks.matrix_values(adata.X, of, where, what)
    top = checks.values_of(adata.X).max(initial=0)
    if x == "lognorm":
        if top > TOO_LARGE:
            raise DataError(
                f"{where}: {what} should hold log-normalised values, but those up to {top:,.4g} "
                "are no logarithms; --log1p takes their logarithm"
            )
        return "lognorm"
    kind, evidence = describe(adata.X)
    if x == "linear":
        return "counts" if kind == "counts" else "normalized"
    if kind == "linear":
        perhaps = "" if top > TOO_LARGE else "; if they are logarithms, --lognorm (x: lognorm)"
        raise DataError(
            f"{where}: {what} holds {evidence}: neither counts nor log-normalised values. To take "
            f"their logarithm, --log1p (reader option x: linear, recipe step log1p){perhaps}; or "
            f"{checks.other_matrices(source if layer is None else adata)}"
        )
    return kind


def _name_genes(adata: AnnData, column: str | None, where: str) -> list[str]:
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
