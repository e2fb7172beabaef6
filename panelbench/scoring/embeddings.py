"""Coordinates of cells for pictures, computed once with the evaluations and stored with them."""

from __future__ import annotations

import warnings

import numpy as np


def umap(X: np.ndarray, *, n_neighbors: int, min_dist: float, seed: int) -> np.ndarray:
    """UMAP of cells (McInnes, Healy & Melville 2018).

    Parameters
    ----------
    X
        Cells x genes of a panel.
    n_neighbors, min_dist
        As in umap-learn; with fewer cells than neighbours, all others are neighbours.
    seed
        Makes it deterministic, on one core.

    Returns
    -------
    float32 of shape (n_cells, 2).
    """
    from umap import UMAP

    with warnings.catch_warnings():
        # It says that a seed keeps it to one core, which is what is wanted.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        model = UMAP(
            n_neighbors=max(2, min(n_neighbors, len(X) - 1)),
            min_dist=min_dist,
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(X.astype(np.float32)), dtype=np.float32)


def principal_components(X: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Two principal components of the true cells, and both kinds of cells in them.

    Parameters
    ----------
    X, again
        True and reconstructed expression, cells x genes.

    Returns
    -------
    float32 of shape (2, n_cells, 2): true, then reconstructed cells.
    """
    from sklearn.decomposition import PCA

    model = PCA(n_components=2, svd_solver="full" if min(X.shape) < 500 else "arpack",
                random_state=0).fit(X)  # fmt: skip
    return np.stack([model.transform(X), model.transform(again)]).astype(np.float32)
