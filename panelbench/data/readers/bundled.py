"""The small data set that comes with scanpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.readers._shared import Files, only, open_h5ad, tidy
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(files: Files, *, total: str = "n_counts", target_sum: float = 1e4) -> AnnData:
    """Read scanpy's ``10x_pbmc68k_reduced.h5ad``.

    ``X`` of the file is scaled. ``raw.X`` is log1p(target_sum * count / total) with the total over
    the whole transcriptome, so the counts of the genes kept are recovered exactly by rounding
    expm1(raw.X) * total / target_sum (on this file no value is further than 0.09 from a whole
    number).

    Parameters
    ----------
    total
        Column of ``obs`` with the counts of each cell over all genes.
    target_sum
        Total per cell that the file was normalised to.
    """
    import anndata

    path = only(files)
    source = open_h5ad(path)
    if source.raw is None or total not in source.obs:
        raise DataError(f"{path.name}: expected .raw and obs[{total!r}]; is it the right file?")
    X: Any = tidy(source.raw.X)
    counts = X.astype(np.float64)
    per_cell = np.repeat(source.obs[total].to_numpy(dtype=np.float64), np.diff(X.indptr))
    exact = np.expm1(counts.data) * per_cell / target_sum
    if np.abs(exact - np.rint(exact)).max(initial=0) > 0.25:
        raise DataError(f"{path.name}: counts cannot be recovered from raw.X and obs[{total!r}]")
    counts.data = np.rint(exact)
    adata = anndata.AnnData(X=X, obs=source.obs, var=source.raw.var)
    adata.layers["counts"] = counts.astype(np.float32)
    notes = [
        "X is raw.X of the file: log1p of counts per 10,000 over the whole transcriptome",
        "counts are recovered from X and n_counts by rounding",
    ]
    adata.uns.update(x="lognorm", notes=notes)
    return adata
