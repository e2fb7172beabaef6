"""AnnData files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from panelbench.data import checks
from panelbench.data.readers._shared import Files, only, open_h5ad, tidy
from panelbench.errors import DataError, hint
from panelbench.method import Matrix

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Literal["auto", "counts", "lognorm"] = "auto",
    make_unique: bool = False,
) -> AnnData:
    """Read an ``.h5ad`` file.

    Parameters
    ----------
    layer
        Which matrix to take: a name in ``layers``, ``raw`` for ``.raw``, or ``X``. None with
        ``x: auto`` is ``layers["counts"]`` where it exists, else ``X``.
    x
        What that matrix holds; ``auto`` looks: whole numbers are counts (binary, if only 0 and 1),
        others are taken as log-normalised.
    make_unique
        Append -1, -2, ... to repeated gene names (done by `read`).
    """
    import anndata

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
    var = source.var
    if layer is None:
        matrix = source.X
    elif layer == "raw" and source.raw is not None:
        matrix, var = source.raw.X, source.raw.var
    elif layer in source.layers:
        matrix = source.layers[layer]
    else:
        known = [*source.layers, *(["raw"] if source.raw is not None else [])]
        raise DataError(f"{path.name}: no layer {layer!r}; {hint(layer, known)}")
    if matrix is None:
        known = [*source.layers, *(["raw"] if source.raw is not None else [])]
        raise DataError(f"{path.name}: X is empty; choose a layer (--layer): {', '.join(known)}")
    adata = anndata.AnnData(X=tidy(matrix), obs=source.obs, var=var, obsm=dict(source.obsm))
    state = _state(adata.X) if x == "auto" else x
    if state == "counts":
        checks.counts(adata.X, source if layer is None else adata, path.name, layer or "X")
        adata.layers["counts"] = adata.X
    elif layer is None:
        checks.matrix_values(adata.X, source, path.name)
    adata.uns.update(x=state, notes=notes)
    return adata


def _state(X: Matrix) -> str:
    if not checks.are_counts(X):
        return "lognorm"
    return "counts" if checks.values_of(X).max(initial=0) > 1 else "binary"
