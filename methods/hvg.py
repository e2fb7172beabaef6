"""Highly variable genes, as scanpy finds them: Seurat, Seurat v3 and Cell Ranger."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import NotApplicable
from panelbench.method import Matrix, NoParams, Selection, Task, method
from panelbench.ranking import gene_variances, rank_by_score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SeuratParams:
    """Parameters of the Seurat flavour.

    Attributes
    ----------
    n_bins
        Number of equally wide bins of log mean expression.
    """

    n_bins: Annotated[int, Ge(1)] = 20


@dataclass(frozen=True)
class SeuratV3Params:
    """Parameters of the Seurat v3 flavour.

    Attributes
    ----------
    span
        Share of the genes that each local fit of variance on mean uses.
    """

    span: Annotated[float, Gt(0), Le(1)] = 0.3


@method(
    "seurat",
    params=SeuratParams,
    label="Seurat",
    needs="lognorm",
    libraries=("scanpy",),
    cite="Satija et al. 2015",
    doi="10.1038/nbt.3192",
)
def seurat(task: Task, params: SeuratParams) -> Selection:
    """Genes by dispersion, normalised within bins of mean expression (Satija et al. 2015)."""
    return _dispersions(task, "seurat", n_bins=params.n_bins)


@method(
    "cell-ranger",
    label="Cell Ranger",
    needs="lognorm",
    libraries=("scanpy",),
    cite="Zheng et al. 2017",
    doi="10.1038/ncomms14049",
)
def cell_ranger(task: Task, params: NoParams) -> Selection:
    """Genes by dispersion, normalised within quantiles of the mean (Zheng et al. 2017)."""
    return _dispersions(task, "cell_ranger")


@method(
    "seurat-v3",
    params=SeuratV3Params,
    label="Seurat v3",
    needs="counts",
    libraries=("scanpy", "scikit-misc"),
    cite="Stuart et al. 2019",
    doi="10.1016/j.cell.2019.05.031",
)
def seurat_v3(task: Task, params: SeuratV3Params) -> Selection:
    """Genes by the variance of clipped, standardised raw counts (Stuart et al. 2019)."""
    task = _sparse(task)
    try:
        table = _scanpy(task.X, flavor="seurat_v3", n_top_genes=task.n_genes, span=params.span)
    except ValueError as error:
        raise NotApplicable(
            f"seurat-v3: the loess fit of variance on mean failed over {task.n_genes} genes "
            f"({error}); use more genes or a wider fit (parameter span, now {params.span})"
        ) from error
    # Without batches scanpy's `highly_variable_rank` is the order of `variances_norm`.
    return rank_by_score(task, table["variances_norm"].to_numpy())


def _dispersions(task: Task, flavor: str, **options: Any) -> Selection:
    """Rank genes by scanpy's normalised dispersion."""
    task = _sparse(task)
    # Single precision: sums in another order, by other threads, must not decide a tie.
    scores = np.full(task.n_genes, np.nan, dtype=np.float32)
    info: dict[str, object] = {}
    use = np.ones(task.n_genes, dtype=bool)
    try:
        table = _scanpy(task.X, flavor=flavor, **options)
    except ValueError:
        # Many genes without expression make equal bin edges: leave the constant genes out.
        use = gene_variances(task.X) > 0
        if not use.any():
            raise NotApplicable(f"{flavor.replace('_', '-')}: no gene varies") from None
        info["constant_genes_left_out"] = int((~use).sum())
        try:
            table = _scanpy(task.X[:, use], flavor=flavor, **options)
        except ValueError as error:
            raise NotApplicable(
                f"{flavor.replace('_', '-')}: the means of {int(use.sum())} varying genes cannot "
                f"be binned ({error}); use seurat-v3, which fits a curve instead of bins"
            ) from error
    scores[use] = table["dispersions_norm"].to_numpy()
    scored = int((~np.isnan(scores)).sum())
    if scored < task.k:
        warnings.warn(
            f"{scored} genes have a normalised dispersion, fewer than the {task.k} asked for: "
            "the rest follow in order of variance",
            stacklevel=3,
        )
    return rank_by_score(task, scores, **info)


def _sparse(task: Task) -> Task:
    """Give the task with `X` as CSR: the sums are then the same for dense input, and faster."""
    from scipy.sparse import csr_matrix

    return replace(task, X=csr_matrix(task.X))


def _scanpy(X: Matrix, **options: Any) -> pd.DataFrame:
    """Run ``scanpy.pp.highly_variable_genes`` on a matrix, one row per gene in its order."""
    import scanpy as sc
    from anndata import AnnData

    with warnings.catch_warnings():
        # Constant genes divide by zero inside scanpy; they come out as NaN and rank last.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", FutureWarning)
        table: pd.DataFrame = sc.pp.highly_variable_genes(AnnData(X), inplace=False, **options)
    return table
