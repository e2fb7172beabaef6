"""One-vs-rest markers: one list of genes per class, merged into a single ranking.

The MarkerMap paper (Gregory et al. 2024) takes one marker from each class in turn, skips
duplicates, and when a round would exceed k takes the best of that round only: by p-value for the
tests, by score for COSG. Ordering every round this way and keeping each gene's first
appearance gives a ranking whose first k genes are that panel for every k, so one ranking serves
all k. With fewer genes than classes the first round alone decides.

All of it works on CSR, so dense and sparse input give the same numbers to the last bit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.method import NoParams, Selection, Task, method
from panelbench.ranking import gene_variances

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

LABEL = "class"
"""Column of ``obs`` with the class codes as text: class names may hold anything."""


@dataclass(frozen=True)
class CosgParams:
    """Parameters of COSG.

    Attributes
    ----------
    mu
        Penalty for expression in other classes.
    """

    mu: Annotated[float, Ge(0)] = 1.0


_MARKERS = {"supervised": True, "needs": "lognorm"}


@method(
    "t-test",
    label="t-test",
    cite="Welch 1947",
    doi="10.1093/biomet/34.1-2.28",
    libraries=("scanpy", "scipy"),
    **_MARKERS,
)
def t_test(task: Task, params: NoParams) -> Selection:
    """Markers by Welch's t-test of each class against the rest."""
    return _scanpy_test(task, "t-test")


@method(
    "t-test-overestim",
    label="t-test (overestimated variance)",
    cite="Wolf et al. 2018",
    doi="10.1186/s13059-017-1382-0",
    libraries=("scanpy", "scipy"),
    **_MARKERS,
)
def t_test_overestim(task: Task, params: NoParams) -> Selection:
    """Markers by a t-test that overestimates the variance of the rest (scanpy)."""
    return _scanpy_test(task, "t-test_overestim_var")


@method(
    "wilcoxon",
    label="Wilcoxon",
    cite="Wilcoxon 1945",
    doi="10.2307/3001968",
    libraries=("scipy",),
    **_MARKERS,
)
def wilcoxon(task: Task, params: NoParams) -> Selection:
    """Markers by the rank-sum test of each class against the rest."""
    return _rank_sum_test(task, ties=False)


@method(
    "wilcoxon-tie",
    label="Wilcoxon (tie-corrected)",
    cite="Wilcoxon 1945",
    doi="10.2307/3001968",
    libraries=("scipy",),
    **_MARKERS,
)
def wilcoxon_tie(task: Task, params: NoParams) -> Selection:
    """Markers by the rank-sum test with its variance corrected for ties."""
    return _rank_sum_test(task, ties=True)


@method(
    "cosg",
    params=CosgParams,
    label="COSG",
    cite="Dai et al. 2022",
    doi="10.1093/bib/bbab579",
    libraries=("cosg",),
    **_MARKERS,
)
def cosg(task: Task, params: CosgParams) -> Selection:
    """Markers by cosine similarity to an ideal marker of each class (Dai et al. 2022)."""
    from cosg import cosg as run  # type: ignore[import-untyped]

    classes = usable_classes(task, cells=1)
    X = _csr(task)
    data = _annotated(task, X.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", FutureWarning)
        run(
            data,
            groupby=LABEL,
            mu=params.mu,
            remove_lowly_expressed=False,
            n_genes_user=task.n_genes,
            return_by_group=False,
        )
    (scores,) = _tables(data.uns["cosg"], classes, task.n_genes, "scores")
    return merge(task, classes, scores, worst=-scores, variances=gene_variances(X))


def _scanpy_test(task: Task, test: str) -> Selection:
    """Rank genes by one of scanpy's one-vs-rest t-tests."""
    import scanpy as sc
    from pandas.errors import PerformanceWarning

    classes = usable_classes(task, cells=2)
    X = _csr(task)
    data = _annotated(task, X)
    with warnings.catch_warnings():
        # A constant gene divides by zero; the table of results grows class by class.
        for noise in (RuntimeWarning, FutureWarning, PerformanceWarning):
            warnings.simplefilter("ignore", noise)
        sc.tl.rank_genes_groups(
            data, LABEL, groups=classes.astype(str).tolist(), use_raw=False, method=test
        )
    found = data.uns["rank_genes_groups"]
    scores, pvals = _tables(found, classes, task.n_genes, "scores", "pvals")
    return merge(task, classes, scores, worst=pvals, variances=gene_variances(X))


def _rank_sum_test(task: Task, ties: bool) -> Selection:
    """Rank genes by rank-sum tests, the cells being ranked once for all classes."""
    from scipy.stats import norm

    classes = usable_classes(task, cells=2)
    X = _csr(task)
    scores = rank_sum_scores(X, task.target.values, classes, ties)
    pvals = 2 * norm.sf(np.abs(scores))
    return merge(task, classes, scores, worst=pvals, variances=gene_variances(X))


def rank_sum_scores(
    X: sparse.csr_matrix, codes: np.ndarray, classes: np.ndarray, ties: bool
) -> np.ndarray:
    """Normal scores of the Wilcoxon rank-sum test of each class against the rest.

    The numbers are those of scanpy's ``rank_genes_groups(method="wilcoxon")``, which ranks dense
    columns and corrects for ties once per class; here only the expressing cells are sorted.

    Parameters
    ----------
    X
        Expression, cells x genes, CSR.
    codes
        Class code of each cell, shape (n_cells,).
    classes
        Codes of the classes to test, shape (n_classes,).
    ties
        Correct the variance for ties.

    Returns
    -------
    float64 array of shape (n_classes, n_genes); 0 for a gene without variance.
    """
    from scipy.sparse import csc_matrix, csr_matrix
    from scipy.stats import rankdata

    n_cells, n_genes = X.shape
    columns = X.tocsc()
    offsets = np.empty(columns.nnz)  # rank of an expressing cell, above the rank of a zero
    zero_rank, squares = np.empty(n_genes), np.empty(n_genes)
    for gene in range(n_genes):
        part = slice(columns.indptr[gene], columns.indptr[gene + 1])
        values = columns.data[part]
        zeros = n_cells - len(values)
        ranks = rankdata(values) + zeros * (values > 0)
        zero_rank[gene] = (values < 0).sum() + (zeros + 1) / 2
        offsets[part] = ranks - zero_rank[gene]
        squares[gene] = (ranks**2).sum() + zeros * zero_rank[gene] ** 2
    rows = (codes == classes[:, None]).astype(np.float64)
    sizes = rows.sum(axis=1)[:, None]
    above = csc_matrix((offsets, columns.indices, columns.indptr), shape=X.shape)
    sums = (csr_matrix(rows) @ above).toarray() + sizes * zero_rank
    variance = sizes * (n_cells - sizes) * (n_cells + 1) / 12
    if ties:
        # The spread of the mid-ranks, over what it would be without ties.
        untied = n_cells * (n_cells**2 - 1) / 12
        variance = variance * ((squares - n_cells * (n_cells + 1) ** 2 / 4) / untied)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (sums - sizes * (n_cells + 1) / 2) / np.sqrt(variance)
    return np.asarray(np.nan_to_num(scores))


def usable_classes(task: Task, cells: int) -> np.ndarray:
    """Codes of the classes with at least `cells` training cells inside and outside.

    Raises
    ------
    NotApplicable
        When there is none.
    """
    sizes = np.bincount(task.target.values, minlength=len(task.target.classes))
    usable = np.flatnonzero((sizes >= cells) & (task.n_cells - sizes >= cells))
    if len(usable) == 0:
        found = dict(zip(task.target.classes, sizes.tolist(), strict=True))
        raise NotApplicable(
            f"task {task.target.name}: a class is compared with the rest, but none has {cells} "
            f"training cells and as many outside (cells per class: {found})"
        )
    return usable


def _csr(task: Task) -> sparse.csr_matrix:
    """CSR copy of `X` without stored zeros: scanpy prunes those in place."""
    from scipy.sparse import csr_matrix

    X = csr_matrix(task.X, copy=True)
    X.sum_duplicates()
    X.eliminate_zeros()
    return X


def _annotated(task: Task, X: sparse.csr_matrix) -> AnnData:
    """AnnData with class codes as text; its genes are named by position."""
    import pandas as pd
    from anndata import AnnData

    data = AnnData(X)
    codes = pd.Series(task.target.values, index=data.obs_names).astype(str)
    data.obs[LABEL] = codes.astype("category")
    return data


def _tables(found: Any, classes: np.ndarray, n_genes: int, *columns: str) -> list[np.ndarray]:
    """Columns of a library's lists in gene order, each float64 of shape (n_classes, n_genes)."""
    tables = [np.empty((len(classes), n_genes)) for _ in columns]
    for row, code in enumerate(classes.astype(str)):
        genes = np.asarray(found["names"][code]).astype(np.int64)
        for table, column in zip(tables, columns, strict=True):
            table[row, genes] = found[column][code]
    return tables


def merge(
    task: Task, classes: np.ndarray, scores: np.ndarray, worst: np.ndarray, variances: np.ndarray
) -> Selection:
    """Merge the lists of the classes, a round of one gene per class at a time.

    Parameters
    ----------
    task
        The task.
    classes
        Codes of the classes, shape (n_classes,).
    scores
        Signed scores, shape (n_classes, n_genes). The list of a class is sorted by them, highest
        first, ties by variance and then by position; constant genes come last.
    worst
        What orders a round, smallest first, in the same shape: p-values, or negative scores. Ties
        go to the larger magnitude of the score, then to the first class.
    variances
        Variance of each gene, shape (n_genes,).

    Returns
    -------
    A ranking of all genes; the score of a gene is the one in the class that brought it.
    """
    n_classes, n_genes = scores.shape
    lists = np.stack([np.lexsort((-variances, -row, variances == 0)) for row in scores])
    position = np.repeat(np.arange(n_classes), n_genes)
    genes, rounds = lists.ravel(), np.tile(np.arange(n_genes), n_classes)
    value = scores[position, genes]
    order = np.lexsort((position, -np.abs(value), worst[position, genes], rounds))
    _, first = np.unique(genes[order], return_index=True)
    chosen = order[np.sort(first)]

    names = np.asarray(task.target.classes)
    left_out = np.setdiff1d(np.arange(len(names)), classes)
    return Selection(
        ranking=task.genes[genes[chosen]].tolist(),
        scores=np.nan_to_num(value[chosen]),
        info={
            "marker_of": names[classes[position[chosen[: task.k]]]].tolist(),
            **({"classes_left_out": names[left_out].tolist()} if len(left_out) else {}),
        },
    )
