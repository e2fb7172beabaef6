"""scGeneFit: the genes that keep classes apart, by one linear programme.

Genes get weights x between 0 and 1 that sum to at most k. Every constraint is a pair that must
stay apart, measured by the weighted squared differences of its two ends::

    minimise    the sum of the slacks s
    subject to  A x >= delta - s,   s >= 0,   0 <= x <= 1,   sum(x) <= k

The rows of A are the squared differences, gene by gene, of class centres, of cells and their
neighbours in other classes, or of what separates a cell from the wrong and the right centre.

Source: Dumitrascu et al. 2021. Its programme is solved by HiGHS, through scipy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import NotApplicable, PanelbenchError
from panelbench.method import Selection, Task, method
from panelbench.ranking import gene_variances


@dataclass(frozen=True)
class Params:
    """Parameters of scGeneFit, with the defaults of its authors.

    Attributes
    ----------
    constraints
        What must stay apart. ``"centers"``: the centres of classes. ``"pairwise"``: a cell and its
        nearest neighbours in every other class. ``"pairwise_centers"``: a cell must be nearer to
        the centre of its class than to any other.
    epsilon
        delta, as a multiple of the smallest constraint (the smallest sum of absolute values of a
        row of A; for distances that is the nearest pair's, over all genes).
    sampling_rate
        Share of the cells that ``"pairwise"`` and ``"pairwise_centers"`` look at.
    n_neighbors
        Neighbours per other class for ``"pairwise"``.
    max_constraints
        Most constraints; of more, that many are drawn.
    redundancy
        Share of the pairs of classes that ``"centers"`` takes besides the consecutive ones.
    """

    constraints: Literal["centers", "pairwise", "pairwise_centers"] = "centers"
    epsilon: Annotated[float, Gt(0)] = 1.0
    sampling_rate: Annotated[float, Gt(0), Le(1)] = 1.0
    n_neighbors: Annotated[int, Ge(1)] = 3
    max_constraints: Annotated[int, Ge(1)] = 1000
    redundancy: Annotated[float, Ge(0), Le(1)] = 0.01


@method(
    "scgenefit",
    params=Params,
    label="scGeneFit",
    supervised=True,
    nested=False,
    needs="prepared",
    libraries=("scipy", "scikit-learn"),
    cite="Dumitrascu et al. 2021",
    doi="10.1038/s41467-021-21453-4",
)
def select(task: Task, params: Params) -> Selection:
    """Genes whose weights keep the classes apart in a linear programme (Dumitrascu et al. 2021).

    `Selection.scores` are the weights. Genes of equal weight, most often 0 or 1, are ordered by
    the mean separation they bring. ``info`` holds the number of constraints, how many of them the
    weights meet, the sum of the slacks as a multiple of delta, and how many genes have weight.

    Raises
    ------
    NotApplicable
        When all training cells have one class, or nothing separates the classes.
    PanelbenchError
        When the solver gives up.
    """
    separations = _separations(task, params)
    sizes = np.abs(separations).sum(axis=1)
    if not sizes.any():
        raise NotApplicable(f"task {task.target.name}: no gene separates the classes")
    delta = params.epsilon * sizes[sizes > 0].min()
    weights, slacks = _solve(separations / delta, task.k)
    order = np.lexsort((-separations.mean(axis=0), -weights, gene_variances(task.X) == 0))
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=weights[order],
        info={
            "constraints": len(separations),
            "met": int((slacks < 1e-6).sum()),
            "slack": float(slacks.sum()),
            "weighted": int((weights > 0).sum()),
        },
    )


def _solve(separations: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the genes and slacks of the constraints, for delta = 1."""
    from scipy.optimize import linprog
    from scipy.sparse import bmat, csr_matrix, eye

    n_constraints, n_genes = separations.shape
    found = linprog(
        np.concatenate([np.zeros(n_genes), np.ones(n_constraints)]),
        A_ub=bmat(
            [
                [csr_matrix(-separations), -eye(n_constraints)],
                [csr_matrix(np.ones((1, n_genes))), None],
            ],
            format="csr",
        ),
        b_ub=np.concatenate([-np.ones(n_constraints), [k]]),
        bounds=[(0, 1)] * n_genes + [(0, None)] * n_constraints,
        method="highs",
    )
    if found.x is None:
        raise PanelbenchError(
            f"scgenefit: the linear programme with {n_constraints} constraints on {n_genes} genes "
            f"was not solved ({found.message}); fewer constraints may help (max_constraints)"
        )
    # Weights that differ by the solver's tolerance are equal.
    return np.round(found.x[:n_genes], 7), found.x[n_genes:]


def _separations(task: Task, params: Params) -> np.ndarray:
    """Rows of A: float64, shape (n_constraints, n_genes)."""
    X, codes = task.dense(), task.target.values
    classes, codes = np.unique(codes, return_inverse=True)
    if len(classes) < 2:
        raise NotApplicable(f"task {task.target.name}: all training cells have the same class")
    rng = task.rng("constraints")
    if params.constraints == "pairwise":
        return _between_neighbours(X, codes, params, rng)
    centres = np.stack(
        [X[codes == code].mean(axis=0, dtype=np.float64) for code in range(len(classes))]
    )
    if params.constraints == "centers":
        first, second = np.triu_indices(len(classes), k=1)
        distant = np.flatnonzero(second > first + 1)
        rng.shuffle(distant)
        kept = np.r_[
            np.flatnonzero(second == first + 1),
            distant[: round(params.redundancy * len(distant))],
        ]
        kept = _at_most(params.max_constraints, kept, rng)
        return np.asarray((centres[first[kept]] - centres[second[kept]]) ** 2)
    cells = _cells(len(X), params, rng)
    pairs = np.stack([np.repeat(cells, len(classes)), np.tile(np.arange(len(classes)), len(cells))])
    cell, other = _at_most(params.max_constraints, pairs[:, codes[pairs[0]] != pairs[1]], rng)
    wrong = (X[cell] - centres[other]) ** 2
    return np.asarray(wrong - (X[cell] - centres[codes[cell]]) ** 2)


def _between_neighbours(
    X: np.ndarray, codes: np.ndarray, params: Params, rng: np.random.Generator
) -> np.ndarray:
    """Squared differences of cells and their nearest neighbours in each of the other classes."""
    from sklearn.neighbors import NearestNeighbors

    cells = _cells(len(X), params, rng)
    first, second = [], []
    # The cells are cut to what the cap can hold before any distance is computed.
    n_classes = len(np.unique(codes))
    enough = -(-params.max_constraints // (params.n_neighbors * (n_classes - 1)))
    cells = _at_most(max(enough, n_classes), cells, rng)
    for code in range(n_classes):
        members, queries = np.flatnonzero(codes == code), cells[codes[cells] != code]
        if len(queries) == 0:
            continue
        n_neighbors = min(params.n_neighbors, len(members))
        search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(X[members])
        found = search.kneighbors(X[queries], return_distance=False)
        first.append(np.repeat(queries, n_neighbors))
        second.append(members[found.ravel()])
    pairs = np.stack([np.concatenate(first), np.concatenate(second)])
    one, other = _at_most(params.max_constraints, pairs, rng)
    return np.asarray((X[one].astype(np.float64) - X[other]) ** 2)


def _cells(n_cells: int, params: Params, rng: np.random.Generator) -> np.ndarray:
    """The sampled cells, in order."""
    return _at_most(max(1, round(params.sampling_rate * n_cells)), np.arange(n_cells), rng)


def _at_most(n: int, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most n items along the last axis, drawn without replacement, in their order."""
    size = items.shape[-1]
    return items if size <= n else items[..., np.sort(rng.choice(size, n, replace=False))]
