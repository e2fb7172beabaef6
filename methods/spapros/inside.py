"""Calls spapros, in its own environment."""

from __future__ import annotations

import warnings
from typing import Any


def select(given: dict[str, Any]) -> dict[str, Any]:
    """Rank all genes by number.

    Parameters
    ----------
    given
        ``X`` (log-normalised, cells x genes), ``codes`` of classes, numbers of the genes to
        ``include``, ``n_jobs``, and the parameters.

    Returns
    -------
    ``order``: numbers of genes, best first; ``rank``: the library's group of each, 0 without one.
    """
    import gc

    import anndata
    import numpy as np
    import pandas as pd
    import spapros
    from scipy.sparse import csr_matrix

    # The library collects garbage for every tree, and would look at all modules each time.
    gc.freeze()
    warnings.simplefilter("ignore")
    X = csr_matrix(given["X"])
    n_cells, n_genes = X.shape
    cells = anndata.AnnData(
        X,
        obs=pd.DataFrame(
            {"class": pd.Categorical([f"class {code}" for code in given["codes"]])},
            index=[f"cell {i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(index=[f"{i:07d}" for i in range(n_genes)]),
    )
    selector = spapros.se.ProbesetSelector(
        cells,
        celltype_key="class",
        genes_key=None,
        preselected_genes=[f"{i:07d}" for i in given["include"]],
        n_pca_genes=min(given["n_pca_genes"], n_genes),
        n_min_markers=given["n_min_markers"],
        DE_selection_hparams={"n": given["n_de_genes"], "per_group": True},
        forest_hparams={
            "n_trees": given["n_trees"],
            "subsample": given["subsample"],
            "test_subsample": given["test_subsample"],
        },
        verbosity=0,
        n_jobs=given["n_jobs"],
    )
    selector.select_probeset()
    table = selector.probeset
    return {
        "order": np.array([int(name) for name in table.index]),
        "rank": table["rank"].fillna(0).to_numpy(dtype=np.int64),
    }
