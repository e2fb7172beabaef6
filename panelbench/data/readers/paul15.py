"""Myeloid progenitors of Paul et al. 2015, as scanpy distributes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.readers._shared import Files, only, tidy
from panelbench.data.scale import describe
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(files: Files, *, merge: Mapping[str, tuple[int, ...]]) -> AnnData:
    """Read the counts of the authors' informative genes.

    Genes have several names, separated by semicolons; the first is kept.

    Parameters
    ----------
    merge
        Cell type -> numbers of the clusters that it is made of. The columns of ``obs`` are
        ``cluster`` (the numbers) and ``cell_type``.
    """
    import anndata
    import h5py
    import pandas as pd

    path = only(files)
    try:
        with h5py.File(path, "r") as file:
            X = np.asarray(file["data.debatched"][()]).T
            genes = _texts(file["data.debatched_rownames"])
            cells = _texts(file["data.debatched_colnames"])
            clusters = np.asarray(file["cluster.id"][()]).ravel().astype(int)
            informative = set(_texts(file["info.genes_strings"]))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not the file that scanpy distributes ({error}); get it again"
        ) from error
    if X.shape != (len(cells), len(genes)) or len(clusters) != len(cells):
        raise DataError(
            f"{path}: {X.shape[0]} x {X.shape[1]} values for {len(cells)} cells, {len(genes)} "
            f"genes and {len(clusters)} labels; get it again"
        )
    names = pd.Series([gene.split(";")[0] for gene in genes])
    keep = np.flatnonzero(names.isin(informative) & ~names.duplicated())
    types = {number: name for name, numbers in merge.items() for number in numbers}
    absent = sorted(set(clusters) - set(types))
    if absent:
        raise DataError(f"{path}: cluster {absent[0]} belongs to no cell type (option merge)")
    obs = pd.DataFrame(
        {"cluster": clusters, "cell_type": [types[number] for number in clusters]}, index=cells
    )
    adata = anndata.AnnData(
        X=tidy(X[:, keep]), obs=obs, var=pd.DataFrame(index=names[keep].to_numpy())
    )
    # The values are corrected for batches; whether they are whole is for them to say.
    kind, evidence = describe(adata.X)
    if kind not in {"counts", "linear"}:
        raise DataError(f"{path}: expected counts, found {evidence}")
    if kind == "counts":
        adata.layers["counts"] = adata.X
    note = f"{len(genes) - len(keep)} of {len(genes)} genes are not among the informative ones"
    adata.uns.update(x="counts" if kind == "counts" else "normalized", notes=[note])
    return adata


def _texts(dataset: object) -> list[str]:
    return [str(item) for item in dataset.asstr()[()].ravel()]  # type: ignore[attr-defined]
