"""Folders of 10x Genomics: a matrix in Matrix Market form, and the names of genes and cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.readers._own import Held, apart, finish
from panelbench.data.readers._shared import Files, features, read_table
from panelbench.errors import ConfigError, DataError, damaged

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MATRIX, CELLS = ("matrix.mtx",), ("barcodes.tsv",)
GENES = ("features.tsv", "genes.tsv")
"""How the names of the three files end, less ``.gz``; something may stand before it."""


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (or ``genes.tsv``).

    Each may be compressed (``.gz``). Genes are named by symbols; options as of
    `panelbench.data.readers.tenx_h5`.
    """
    import anndata
    import pandas as pd
    import scipy.io
    from scipy import sparse

    files, table = apart(files, labels)
    matrix, genes, cells = (_ending(files, ends) for ends in (MATRIX, GENES, CELLS))
    with damaged(lambda error: f"{matrix.name}: not a Matrix Market file ({error})"):
        X = sparse.csr_matrix(scipy.io.mmread(matrix), dtype=np.float32)
    rows, columns = _names(genes), _names(cells)
    if X.shape == (len(rows), len(columns)):
        X = X.T.tocsr()
    elif X.shape != (len(columns), len(rows)):
        raise DataError(
            f"{matrix.name}: {X.shape[0]} x {X.shape[1]} values, but {genes.name} names "
            f"{len(rows)} genes and {cells.name} {len(columns)} cells"
        )
    symbol = rows[1] if 1 in rows else rows[0]
    var = pd.DataFrame({"gene_ids": rows[0].to_numpy()}, index=symbol.to_numpy())
    X, var, notes = features(X, var, rows[2].tolist() if 2 in rows else None)
    source = anndata.AnnData(X=X, obs=pd.DataFrame(index=columns[0].to_numpy()), var=var)
    return finish(
        source, matrix.name, layer=layer, x=x, gene_names=gene_names, labels=table, notes=notes
    )


def _ending(files: Files, ends: tuple[str, ...]) -> Path:
    """The one file whose name ends so."""
    found = [
        path for name, path in files.items() if name.lower().removesuffix(".gz").endswith(ends)
    ]
    if len(found) != 1:
        raise ConfigError(
            f"this reader takes one {' or '.join(ends)} (or .gz), found {len(found)} among "
            f"{', '.join(files)}"
        )
    return found[0]


def _names(path: Path) -> pd.DataFrame:
    """A table without header, all text."""
    return read_table(path, path.name, sep="\t", header=None, dtype=str, keep_default_na=False)
