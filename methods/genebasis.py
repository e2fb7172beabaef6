"""geneBasis: genes one by one, each the one whose expression the panel's neighbours tell worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import gene_variances, score_order


@dataclass(frozen=True)
class Params:
    """Parameters, with the package's defaults.

    Attributes
    ----------
    n_neighbors
        Neighbours of a cell.
    n_components
        Principal components of all genes in which the true neighbours are near.
    p
        Order of the Minkowski distance over cells.
    n_starts
        Graphs of random neighbours that choose the first gene.
    """

    n_neighbors: Annotated[int, Ge(1)] = 5
    n_components: Annotated[int, Ge(1)] = 50
    p: Annotated[float, Ge(1)] = 3.0
    n_starts: Annotated[int, Ge(1)] = 5


@method(
    "genebasis",
    params=Params,
    label="geneBasis",
    needs="lognorm",
    libraries=("scikit-learn", "scipy"),
    cite="Missarova et al. 2021",
    doi="10.1186/s13059-021-02548-z",
)
def select(task: Task, params: Params) -> Selection:
    """Add the gene that is farthest from its mean over neighbours by the panel (geneBasis).

    With x_i the expression of a gene in cell i, N(i) the nearest cells by principal components of
    all genes and M(i) those by the genes chosen so far, the next gene is that with the largest::

        (sum_i |x_i - mean_{j in M(i)} x_j|^p)^(1/p) - (sum_i |x_i - mean_{j in N(i)} x_j|^p)^(1/p)

    The first is the one that most of `n_starts` graphs of random neighbours name, unless genes are
    to be included: it goes on from these. Neighbours are exact, batches are not told apart
    (Missarova et al. 2021, Genome Biology; package geneBasisR, which is not imported).

    Raises
    ------
    NotApplicable
        With no more cells than neighbours.
    """
    X, k = task.dense(), params.n_neighbors
    if task.n_cells <= k:
        raise NotApplicable(f"genebasis: {task.n_cells} cells have fewer than {k} neighbours each")
    variances = gene_variances(task.X)
    true = unlikeness(X, nearest(_components(X, params, task.int_seed("components")), k), params.p)

    def best(neighbours: np.ndarray, chosen: list[int]) -> tuple[int, float]:
        gain = unlikeness(X, neighbours, params.p) - true
        gain[chosen] = -np.inf
        order = score_order(gain, variances)
        first = next(gene for gene in order.tolist() if gene not in known)
        return first, float(gain[first])

    position = {gene: number for number, gene in enumerate(task.genes.tolist())}
    chosen = [position[gene] for gene in task.include]
    known = set(chosen)
    gains: list[float] = []
    if not chosen:
        rng = task.rng("random neighbours")
        starts = [best(_random(task.n_cells, k, rng), []) for _ in range(params.n_starts)]
        names = [gene for gene, _ in starts]
        chosen.append(max(names, key=lambda gene: (names.count(gene), -names.index(gene))))
        known.add(chosen[0])
        gains.append(next(gain for gene, gain in starts if gene == chosen[0]))
    while len(chosen) < task.k:
        gene, gain = best(nearest(X[:, chosen], k), chosen)
        chosen.append(gene)
        known.add(gene)
        gains.append(gain)
        task.progress(len(chosen) / task.k, f"{len(chosen)} genes")
    return Selection(ranking=task.genes[chosen].tolist(), info={"gain": gains})


def nearest(space: np.ndarray, k: int) -> np.ndarray:
    """The k nearest cells of each, itself left out; int64 of shape (n_cells, k)."""
    from sklearn.neighbors import NearestNeighbors

    # On one thread: the order of cells at one distance may depend on their number.
    model = NearestNeighbors(n_neighbors=k, n_jobs=1).fit(space)
    return np.asarray(model.kneighbors(return_distance=False))


def unlikeness(X: np.ndarray, neighbours: np.ndarray, p: float, block: int = 512) -> np.ndarray:
    """Minkowski distance of each gene to its mean over each cell's neighbours.

    Parameters
    ----------
    X
        Cells x genes.
    neighbours
        int of shape (n_cells, k).
    p
        Order of the distance.
    block
        Genes at a time.

    Returns
    -------
    float64 of shape (n_genes,).
    """
    from scipy.sparse import csr_matrix

    n, k = neighbours.shape
    weights = np.full(n * k, 1 / k, dtype=np.float32)
    mean = csr_matrix((weights, neighbours.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    found = np.empty(X.shape[1])
    for start in range(0, X.shape[1], block):
        part = np.ascontiguousarray(X[:, start : start + block])
        apart = np.abs(part - mean @ part).astype(np.float64)
        found[start : start + block] = (apart**p).sum(axis=0) ** (1 / p)
    return found


def _components(X: np.ndarray, params: Params, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    size = min(params.n_components, *X.shape)
    solver = "full" if min(X.shape) <= 500 else "randomized"
    return np.asarray(PCA(size, svd_solver=solver, random_state=seed).fit_transform(X))


def _random(n_cells: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Other cells at random, each once, for every cell."""
    drawn = np.stack([rng.choice(n_cells - 1, size=k, replace=False) for _ in range(n_cells)])
    return np.asarray(drawn + (drawn >= np.arange(n_cells)[:, None]))
