"""SCMER: genes that keep the similarities of cells (the library scmer, an extra)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.nn import one_thread
from panelbench.ranking import gene_variances, score_order

_PER_PAIR = 100
"""Bytes that the library holds, at its peak, for each pair of cells."""


@dataclass(frozen=True)
class Params:
    """Parameters, with the library's defaults but for a wider search, which small panels need.

    Attributes
    ----------
    perplexity
        Neighbours of a cell, about.
    n_components
        Principal components of all genes in which cells are alike.
    min_lasso, max_lasso
        Strengths of the penalty between which one is looked for that leaves k genes.
    steps
        Trainings of that search, at most; each halves what is left.
    outer_iterations, inner_iterations
        Of the optimiser in each training.
    """

    perplexity: Annotated[float, Gt(1)] = 30.0
    n_components: Annotated[int, Ge(1)] = 50
    min_lasso: Annotated[float, Gt(0)] = 1e-6
    max_lasso: Annotated[float, Gt(0)] = 1.0
    steps: Annotated[int, Ge(1)] = 12
    outer_iterations: Annotated[int, Ge(1)] = 5
    inner_iterations: Annotated[int, Ge(1)] = 20

    def __post_init__(self) -> None:
        if self.min_lasso >= self.max_lasso:
            raise ValueError("min_lasso must be below max_lasso")


@method(
    "scmer",
    params=Params,
    label="SCMER",
    nested=False,
    needs="lognorm",
    libraries=("scmer", "scikit-learn", "torch"),
    minutes=240.0,
    cite="Liang et al. 2021",
    doi="10.1038/s43588-021-00070-7",
)
def select(task: Task, params: Params) -> Selection:
    """Weigh genes so that cells that are alike by all genes are alike by few (SCMER).

    Weights minimise the divergence of similarities like those of UMAP, with a penalty on their sum
    that is searched for until k of them are left (Liang et al. 2021, Nature Computational Science).
    The library (0.1.3, MIT licence) does it, on one thread; genes are ranked by weight, then by
    variance. Nothing is drawn but, with many cells, principal components.

    Raises
    ------
    NotApplicable
        With fewer cells than the perplexity, or so many that their pairs do not fit into memory.
    """
    from scmer import UmapL1
    from sklearn.decomposition import PCA

    n = task.n_cells
    if n <= params.perplexity:
        raise NotApplicable(f"scmer: {n} cells, and a perplexity of {params.perplexity:g}")
    if task.memory_limit is not None and n**2 * _PER_PAIR > task.memory_limit:
        most = int((task.memory_limit / _PER_PAIR) ** 0.5)
        raise NotApplicable(
            f"scmer compares all pairs of {n} cells, and memory suffices for {most}: --max-cells "
            f"{most} trains on a sample"
        )
    X = task.dense()
    size = min(params.n_components, *X.shape)
    solver = "full" if min(X.shape) <= 500 else "randomized"
    seed = task.int_seed("components")
    space = PCA(size, svd_solver=solver, random_state=seed).fit_transform(X)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its own threads would also change the perplexity: they take another logarithm.
        model = UmapL1.tune(
            task.k,
            np.array(X),
            X_teacher=space,
            perplexity=params.perplexity,
            min_lasso=params.min_lasso,
            max_lasso=params.max_lasso,
            max_iter=params.steps,
            max_outer_iter=params.outer_iterations,
            max_inner_iter=params.inner_iterations,
            verbosity=0,
            n_threads=1,
        )
    weights = np.maximum(np.asarray(model.w, dtype=np.float64).ravel(), 0.0)
    order = score_order(weights, gene_variances(task.X))
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=weights[order],
        info={"nonzero": int((weights > 0).sum())},
    )
