"""Loom files: HDF5 with genes in rows and cells in columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.readers._own import Held, apart, finish, matrix_of
from panelbench.data.readers._shared import Files, only, open_hdf5, texts
from panelbench.errors import DataError, hint

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

_BLOCK = 512
"""Cells that are read at a time: chunks of loom files have 64 x 64 values, all dense."""
_CELLS, _GENES = ("CellID", "obs_names", "cell_id"), ("Gene", "var_names", "gene_names")
"""Usual attributes with the names of cells and genes; the first are those of loompy."""


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read a ``.loom`` file: labels are its column attributes, `gene_names` one of its rows'.

    Only the matrix asked for is read; other options as of `panelbench.data.readers.h5ad`.
    """
    import anndata

    files, table = apart(files, labels)
    path = only(files)
    with open_hdf5(path) as file:
        if not {"matrix", "row_attrs", "col_attrs"} <= set(file):
            raise DataError(f"{path}: not a loom file: it lacks matrix, row_attrs or col_attrs")
        known = list(file.get("layers", ()))
        chosen, _, _ = matrix_of(known, layer, x)
        if chosen is not None and chosen not in known:
            raise DataError(f"{path.name}: no layer {chosen!r}; {hint(chosen, [*known, 'X'])}")
        matrix = _cells_by_genes(file["matrix" if chosen is None else f"layers/{chosen}"])
        source = anndata.AnnData(
            X=matrix if chosen is None else None,
            obs=_table(file["col_attrs"], _CELLS, "cell", path),
            var=_table(file["row_attrs"], _GENES, "gene", path),
            layers={} if chosen is None else {chosen: matrix},
        )
    return finish(source, path.name, layer=layer, x=x, gene_names=gene_names, labels=table)


def _cells_by_genes(stored: h5py.Dataset) -> csr_matrix:
    from scipy import sparse

    n = stored.shape[1]
    blocks = [
        sparse.csr_matrix(stored[:, start : start + _BLOCK].T, dtype=np.float32)
        for start in range(0, n, _BLOCK)
    ]
    return sparse.vstack(blocks, format="csr")


def _table(attributes: h5py.Group, usual: tuple[str, ...], what: str, path: Path) -> pd.DataFrame:
    """Attributes with one value each as a table, its index the names."""
    import pandas as pd

    columns: dict[str, Any] = {
        name: texts(item) if item.dtype.kind in "OS" else item[()]
        for name, item in attributes.items()
        if item.ndim == 1
    }
    named = next((name for name in usual if name in columns), None)
    if named is None:
        raise DataError(
            f"{path.name}: no attribute with the names of the {what}s ({' or '.join(usual)}); "
            f"there is {', '.join(columns) or 'none'}"
        )
    return pd.DataFrame(columns, index=pd.Index(columns[named], dtype=str))
