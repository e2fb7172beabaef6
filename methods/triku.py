"""Triku: genes whose counts gather among neighbouring cells (the library triku, an extra)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import rank_by_score

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Params:
    """Parameters.

    Attributes
    ----------
    n_neighbors
        Neighbours of a cell, itself among them; half the square root of the number of cells by
        default, as the authors advise, and at least 5.
    n_components
        Principal components of log-normalised counts in which neighbours are near.
    n_windows
        Windows of mean expression whose median distance is subtracted.
    """

    n_neighbors: Annotated[int, Ge(2)] | None = None
    n_components: Annotated[int, Ge(1)] = 50
    n_windows: Annotated[int, Ge(1)] = 75


@method(
    "triku",
    params=Params,
    label="Triku",
    needs="counts",
    libraries=("triku", "scikit-learn"),
    cite="Ascension et al. 2022",
    doi="10.1093/gigascience/giac017",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by how much their counts gather among neighbours (Ascension et al. 2022).

    Of each gene the counts summed over each cell's neighbours are compared with what neighbours
    drawn at random would have (Wasserstein distance), less the median of genes of like mean. The
    library does that; the neighbours are ours, exact and in principal components.
    """
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from triku.tl import triku

    counts = csr_matrix(task.X, dtype=np.float64, copy=True)
    seen = np.flatnonzero(np.asarray((counts > 0).sum(axis=0)).ravel() > 0)
    if len(seen) < 3:
        raise NotApplicable(f"triku: {len(seen)} genes have counts")
    n = params.n_neighbors or max(5, round(0.5 * task.n_cells**0.5))
    if n > task.n_cells:
        raise NotApplicable(f"triku: {task.n_cells} cells have fewer than {n} neighbours each")
    cells = AnnData(counts[:, seen])
    cells.obsp["distances"] = _distances(cells.X, n, params.n_components, task.int_seed("pca"))
    cells.uns["neighbors"] = {"params": {"n_neighbors": n}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        triku(cells, len(seen) - 1, use_raw=False, n_windows=params.n_windows, verbose="error")
    scores = np.full(task.n_genes, np.nan)
    # Single precision: sums in another order must not decide a tie.
    scores[seen] = cells.var["triku_distance"].to_numpy(dtype=np.float32)
    return rank_by_score(task, scores)


def _distances(counts: csr_matrix, n: int, n_components: int, seed: int) -> csr_matrix:
    """Distances to the nearest cells, cells x cells, the cell itself left out."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    X = counts.toarray()
    depth = np.maximum(X.sum(axis=1, keepdims=True), 1)
    X = np.log1p(X / depth * np.median(depth))
    size = min(n_components, *X.shape)
    solver = "full" if min(X.shape) <= 500 else "randomized"
    space = PCA(size, svd_solver=solver, random_state=seed).fit_transform(X)
    return (
        NearestNeighbors(n_neighbors=n - 1, n_jobs=1).fit(space).kneighbors_graph(mode="distance")
    )
