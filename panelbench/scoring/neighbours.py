"""Neighbourhoods of cells: are those that are alike by all genes alike by the panel's?

Everything is on cells x features; neighbours are the nearest in Euclidean distance, a cell is
none of its own, and of cells at one distance any may be taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def nearest(X: np.ndarray, k: int) -> np.ndarray:
    """The k nearest neighbours of each cell, nearest first.

    Returns
    -------
    int64 of shape (n_cells, k).
    """
    from sklearn.neighbors import NearestNeighbors

    # On one thread: the order of cells at one distance may depend on their number.
    model = NearestNeighbors(n_neighbors=k, n_jobs=1).fit(X)
    return np.asarray(model.kneighbors(return_distance=False))


def components(X: np.ndarray, n: int, seed: int) -> np.ndarray:
    """First principal components of cells, at most `n`; float64 of shape (n_cells, n)."""
    from sklearn.decomposition import PCA

    n = min(n, *X.shape)
    solver = "full" if min(X.shape) <= 500 else "randomized"
    model = PCA(n_components=n, svd_solver=solver, random_state=seed)
    return np.asarray(model.fit_transform(X.astype(np.float64)))


def overlap(full: np.ndarray, panel: np.ndarray, sizes: Sequence[int]) -> float:
    """Share of neighbours that two spaces have in common (spapros, Kuemmerle et al. 2024).

    With N_k(i) and M_k(i) the k nearest cells of cell i by all genes and by the panel's:
    o_k = mean over i of |N_k(i) & M_k(i)| / k, read between the sizes by straight lines and
    averaged over all whole k from the smallest size to the largest.

    Parameters
    ----------
    full, panel
        Cells in both spaces.
    sizes
        Numbers of neighbours, ascending; the largest below the number of cells.

    Returns
    -------
    A value from 0 to 1; panels that know nothing score about k / (n_cells - 1).
    """
    most = max(sizes)
    one, two = nearest(full, most), nearest(panel, most)
    shares = [
        np.mean([len(np.intersect1d(a[:k], b[:k])) for a, b in zip(one, two, strict=True)]) / k
        for k in sizes
    ]
    return float(np.interp(np.arange(min(sizes), most + 1), sizes, shares).mean())


def preservation(full: np.ndarray, panel: np.ndarray, k: int) -> np.ndarray:
    """How near, by all genes, the neighbours are that the panel finds (Missarova et al. 2021).

    geneBasis' cell score: with d the distance by all genes, N(i) and M(i) the k nearest cells of
    cell i by all genes and by the panel's, and dbar_i the mean distance of cell i to the others::

        s_i = (dbar_i - median_{j in M(i)} d_ij) / (dbar_i - median_{j in N(i)} d_ij)

    Parameters
    ----------
    full, panel
        Cells in both spaces.
    k
        Number of neighbours, below the number of cells.

    Returns
    -------
    float64 of shape (n_cells,): 1 where they are as near as can be, 0 where they are like any
    cell, negative where they are farther; NaN for a cell that has all others at one distance.
    """
    from sklearn.metrics import pairwise_distances

    distance = pairwise_distances(full)
    rows = np.arange(len(full))[:, None]
    mean = distance.sum(axis=1) / (len(full) - 1)
    best = mean - np.median(distance[rows, nearest(full, k)], axis=1)
    found = mean - np.median(distance[rows, nearest(panel, k)], axis=1)
    safe = np.where(best > 0, best, 1.0)
    return np.where(best > 0, found / safe, np.nan)


def neighbour_correlation(X: np.ndarray, neighbours: np.ndarray, block: int = 512) -> np.ndarray:
    """Spearman's correlation of each gene with its mean over each cell's neighbours.

    Parameters
    ----------
    X
        Cells x genes.
    neighbours
        int of shape (n_cells, k).
    block
        Genes at a time.

    Returns
    -------
    float64 of shape (n_genes,), at least 1e-5; that is also what a gene without variance gets.
    """
    from scipy.stats import rankdata

    found = np.full(X.shape[1], 1e-5)
    for start in range(0, X.shape[1], block):
        values = X[:, start : start + block].astype(np.float64)
        told = values[neighbours].mean(axis=1)
        ranks = [rankdata(part, axis=0) for part in (values, told)]
        one, two = (part - part.mean(axis=0) for part in ranks)
        spread = np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
        r = (one * two).sum(axis=0) / np.where(spread > 0, spread, 1.0)
        found[start : start + block] = np.maximum(np.where(spread > 0, r, 0.0), 1e-5)
    return found
