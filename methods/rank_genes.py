"""One-vs-rest markers: one list of genes per class, merged into a single ranking.

The MarkerMap paper (Gregory et al. 2024) takes one marker from each class in turn, skips
duplicates, and when a round would exceed k takes the best of that round only: by p-value for the
tests, by score for COSG. Ordering every round this way and keeping each gene's first
appearance gives a ranking whose first k genes are that panel for every k, so one ranking serves
all k. With fewer genes than classes the first round alone decides.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.method import Matrix, NoParams, Selection, Task, method
from panelbench.ranking import gene_variances

if TYPE_CHECKING:
    from anndata import AnnData

LABEL = "class"
"""Column of ``obs`` with the class codes as text: class names may hold anything."""


@dataclass(frozen=True)
class CosgParams:
    """Parameters of COSG.

    Attributes
    ----------
    mu
        Penalty for expression in other classes, at least 0.
    """

    mu: float = 1.0


_TEST = {"supervised": True, "needs": "lognorm", "libraries": ("scanpy", "scipy")}


@method("t-test", label="t-test", cite="Welch 1947", **_TEST)
def t_test(task: Task, params: NoParams) -> Selection:
    """Markers by Welch's t-test of each class against the rest."""
    return _scanpy_test(task, method="t-test")


@method(
    "t-test-overestim", label="t-test (overestimated variance)", cite="Wolf et al. 2018", **_TEST
)
def t_test_overestim(task: Task, params: NoParams) -> Selection:
    """Markers by a t-test that overestimates the variance of the rest (scanpy)."""
    return _scanpy_test(task, method="t-test_overestim_var")


@method("wilcoxon", label="Wilcoxon", cite="Wilcoxon 1945", **_TEST)
def wilcoxon(task: Task, params: NoParams) -> Selection:
    """Markers by the rank-sum test of each class against the rest."""
    return _scanpy_test(task, method="wilcoxon")


@method("wilcoxon-tie", label="Wilcoxon (tie-corrected)", cite="Wilcoxon 1945", **_TEST)
def wilcoxon_tie(task: Task, params: NoParams) -> Selection:
    """Markers by the rank-sum test with its variance corrected for ties."""
    return _scanpy_test(task, method="wilcoxon", tie_correct=True)


@method(
    "cosg",
    params=CosgParams,
    label="COSG",
    supervised=True,
    needs="lognorm",
    libraries=("cosg",),
    cite="Dai et al. 2022",
)
def cosg(task: Task, params: CosgParams) -> Selection:
    """Markers by cosine similarity to an ideal marker of each class (Dai et al. 2022)."""
    from cosg import cosg as run

    classes = _usable_classes(task, cells=1)
    # The package sums dense input in double precision and sparse input as it comes.
    data = _annotated(task, task.X if isinstance(task.X, np.ndarray) else task.X.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(
            data,
            groupby=LABEL,
            mu=params.mu,
            remove_lowly_expressed=False,
            n_genes_user=task.n_genes,
            return_by_group=False,
        )
    lists, scores = _lists(task, data.uns["cosg"], classes, "scores")
    return merge(task, classes, lists, scores, worst=-scores)


def _scanpy_test(task: Task, **options: Any) -> Selection:
    """Rank genes by one of scanpy's one-vs-rest tests."""
    import scanpy as sc

    classes = _usable_classes(task, cells=2)
    # scanpy prunes stored zeros in place, so sparse input is copied.
    data = _annotated(task, task.X if isinstance(task.X, np.ndarray) else task.X.copy())
    with warnings.catch_warnings():
        # A constant gene divides by zero, a data frame grows class by class: neither matters.
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(
            data, LABEL, groups=[str(code) for code in classes], use_raw=False, **options
        )
    found = data.uns["rank_genes_groups"]
    lists, scores, pvals = _lists(task, found, classes, "scores", "pvals")
    return merge(task, classes, lists, scores, worst=pvals)


def _usable_classes(task: Task, cells: int) -> np.ndarray:
    """Codes of the classes with at least `cells` training cells inside and outside."""
    sizes = np.bincount(task.target.values, minlength=len(task.target.classes))
    usable = np.flatnonzero((sizes >= cells) & (task.n_cells - sizes >= cells))
    if len(usable) == 0:
        raise NotApplicable(
            f"task {task.target.name}: no class has {cells} training cells inside and {cells} "
            f"outside, so no class can be compared with the rest (cells per class: "
            f"{dict(zip(task.target.classes, sizes.tolist(), strict=True))})"
        )
    return usable


def _annotated(task: Task, X: Matrix) -> AnnData:
    """AnnData of the training cells with class codes, genes named by position."""
    import pandas as pd
    from anndata import AnnData

    data = AnnData(X)
    codes = pd.Series(task.target.values, index=data.obs_names).astype(str)
    data.obs[LABEL] = codes.astype("category")
    return data


def _lists(task: Task, found: Any, classes: np.ndarray, *columns: str) -> list[np.ndarray]:
    """Genes of every class, best first, and the named columns in the same order.

    Every array has shape (n_classes, n_genes). A library breaks ties as its sort happens to; here
    ties go by variance, then by position, and constant genes come last.
    """
    variances = gene_variances(task.X)
    parts: list[list[np.ndarray]] = []
    for code in classes.astype(str):
        genes = np.asarray(found["names"][code]).astype(np.int64)
        scores = np.asarray(found["scores"][code], dtype=np.float64)
        order = np.lexsort((genes, -variances[genes], -scores, variances[genes] == 0))
        values = [np.asarray(found[column][code], dtype=np.float64) for column in columns]
        parts.append([item[order] for item in (genes, *values)])
    return [np.stack(column) for column in zip(*parts, strict=True)]


def merge(
    task: Task, classes: np.ndarray, lists: np.ndarray, scores: np.ndarray, worst: np.ndarray
) -> Selection:
    """Merge the lists of the classes, a round of one gene per class at a time.

    Parameters
    ----------
    task
        The task.
    classes
        Codes of the classes, shape (n_classes,).
    lists
        Gene indices of every class, best first, shape (n_classes, n_genes).
    scores
        Signed scores in the same order; ties within a round go to the larger magnitude, then to
        the first class.
    worst
        What orders a round, smallest first, in the same shape: p-values, or negative scores.

    Returns
    -------
    A ranking of all genes; the score of a gene is the one in the class that brought it.
    """
    n_classes, n_genes = lists.shape
    rounds = np.tile(np.arange(n_genes), n_classes)
    position = np.repeat(np.arange(n_classes), n_genes)
    order = np.lexsort((position, -np.abs(scores.ravel()), worst.ravel(), rounds))
    _, first = np.unique(lists.ravel()[order], return_index=True)
    chosen = order[np.sort(first)]
    names = np.asarray(task.target.classes)
    info: dict[str, Any] = {
        "marker_of": names[classes[position[chosen[: task.k]]]].tolist(),
    }
    if n_classes < len(names):
        info["classes_left_out"] = names[np.setdiff1d(np.arange(len(names)), classes)].tolist()
    return Selection(
        ranking=task.genes[lists.ravel()[chosen]].tolist(),
        scores=np.nan_to_num(scores.ravel()[chosen]),
        info=info,
    )
