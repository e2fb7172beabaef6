"""Feature-barcode matrices of 10x Genomics in HDF5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.readers._own import Held, apart, finish
from panelbench.data.readers._shared import Files, features, only, open_hdf5, texts
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read a ``.h5`` file of Cell Ranger (2 or later); genes are named by symbols.

    Features that are no genes (antibodies, guides) are left out, with a note. The matrix has no
    labels: `labels` names a table of them. ``gene_names: gene_ids`` names genes by Ensembl ids.
    Other options as of `panelbench.data.readers.h5ad`.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    files, table = apart(files, labels)
    path = only(files)
    with open_hdf5(path) as file:
        groups = [name for name, group in file.items() if "barcodes" in group]
        if len(groups) != 1:
            found = f"several genomes: {', '.join(groups)}" if groups else "no group with barcodes"
            raise DataError(f"{path.name}: expected one feature-barcode matrix, found {found}")
        stored = file[groups[0]]
        # Genes x cells by column are cells x genes by row.
        parts = tuple(stored[name][()] for name in ("data", "indices", "indptr"))
        X = sparse.csr_matrix(parts, shape=tuple(stored["shape"][()][::-1]), dtype=np.float32)
        if "features" in stored:
            names, kinds = stored["features/name"], texts(stored["features/feature_type"])
            ids = stored["features/id"]
        else:
            names, ids, kinds = stored["gene_names"], stored["genes"], None
        var = pd.DataFrame({"gene_ids": texts(ids)}, index=texts(names))
        obs = pd.DataFrame(index=texts(stored["barcodes"]))
    X, var, notes = features(X, var, kinds)
    source = anndata.AnnData(X=X, obs=obs, var=var)
    return finish(
        source, path.name, layer=layer, x=x, gene_names=gene_names, labels=table, notes=notes
    )
