"""Clusterings of cells from coarse to fine: do all genes and a panel's group cells alike?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Agreement = Callable[[np.ndarray, np.ndarray], float]

_CLOSEST = 5e-5
"""Resolutions nearer than this are not looked between."""


def neighbour_graph(space: np.ndarray, n_neighbors: int) -> Any:
    """The graph that scanpy clusters: nearest neighbours, weighted as by UMAP.

    Parameters
    ----------
    space
        Cells x features; distances are Euclidean, neighbours exact.
    n_neighbors
        Of each cell, itself among them.

    Returns
    -------
    An undirected ``igraph.Graph`` with the edge attribute ``weight``.
    """
    import scanpy as sc
    from anndata import AnnData
    from igraph import Graph
    from scipy.sparse import triu

    cells = AnnData(np.asarray(space, dtype=np.float32))
    sc.pp.neighbors(cells, n_neighbors, use_rep="X", transformer="sklearn", random_state=0)
    edges = triu(cells.obsp["connectivities"], k=1).tocoo()
    graph = Graph(n=len(space), edges=np.column_stack([edges.row, edges.col]).tolist())
    graph.es["weight"] = edges.data.astype(float).tolist()
    return graph


def leiden(graph: Any, resolution: float, seed: int) -> np.ndarray:
    """Leiden partition by modularity, two iterations (Traag, Waltman & van Eck 2019).

    Returns
    -------
    int64 of shape (n_cells,): the cluster of each cell.
    """
    import igraph

    # igraph draws from one generator for the process: it gets back what it had by default.
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)
    return np.asarray(found.membership)


def partitions(
    cluster: Callable[[float], np.ndarray], low: int, high: int
) -> dict[int, np.ndarray]:
    """Partitions by number of clusters, the resolution being searched for as by spapros.

    From resolution 1 it is halved until there are at most `low` clusters and doubled until there
    are at least `high`; then intervals of resolution are halved that have a missing number between
    their ends. Of several partitions with one number the first that was found counts.

    Parameters
    ----------
    cluster
        Partition of all cells at a resolution.
    low, high
        Smallest and largest number of clusters that is wanted.

    Returns
    -------
    Partitions by number of clusters, from `low` to `high`; numbers that no resolution gave are
    missing.
    """
    found: dict[int, np.ndarray] = {}
    tried: dict[float, int] = {}

    def attempt(resolution: float) -> int:
        labels = cluster(resolution)
        n = len(np.unique(labels))
        found.setdefault(n, labels)
        tried[resolution] = n
        return n

    resolution = 1.0
    n = attempt(resolution)
    while n > low and resolution > _CLOSEST:
        resolution /= 2
        n = attempt(resolution)
    resolution = max(tried)
    while max(tried.values()) < high and resolution < 1 / _CLOSEST:
        resolution *= 2
        attempt(resolution)
    missing = set(range(low, high + 1)) - found.keys()
    searching = True
    while missing and searching:
        order = sorted(tried)
        gaps = [
            (a + b) / 2
            for a, b in itertools.pairwise(order)
            if b - a > _CLOSEST and any(tried[a] < n < tried[b] for n in missing)
        ]
        searching = bool(gaps)
        for middle in gaps:
            missing.discard(attempt(middle))
    return {n: labels for n, labels in found.items() if low <= n <= high}


def agreement(
    one: Mapping[int, np.ndarray],
    two: Mapping[int, np.ndarray],
    low: int,
    high: int,
    *,
    measure: Agreement,
) -> float:
    """Mean agreement of partitions with the same number of clusters, from `low` to `high`.

    Numbers that one side lacks are read between the others by straight lines, beyond them as the
    nearest.

    Returns
    -------
    NaN when the sides have no number of clusters in common.
    """
    common = sorted(one.keys() & two.keys())
    if not common:
        return float("nan")
    values = [measure(one[n], two[n]) for n in common]
    return float(np.interp(np.arange(low, high + 1), common, values).mean())
