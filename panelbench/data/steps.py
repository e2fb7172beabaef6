"""The steps of a recipe: what happens between the matrix of a file and the one that methods get.

A step is a small function with options. Its role decides what it returns:

- ``cells`` and ``genes``: bool array of the cells or genes to keep;
- ``values``: nothing, it changes ``X`` of the AnnData it is given;
- ``scale``: see `Scaling`.

What ``X`` holds is said in `panelbench.data.states`. Notes for people are appended to
``adata.uns["notes"]``. Steps that keep genes have a module of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from panelbench.data import checks
from panelbench.data.gene_steps import (
    ClassExpressionFilter,
    DropGenes,
    ExpressedGenes,
    FilterGenes,
    Fit,
    Hvg,
    Positive,
    class_expression_filter,
    drop_genes,
    expressed_genes,
    filter_genes,
    hvg,
)
from panelbench.data.scale import describe
from panelbench.data.states import detected, need
from panelbench.errors import DataError
from panelbench.method import Matrix
from panelbench.schema import Model

if TYPE_CHECKING:
    from anndata import AnnData

# --- steps that keep some cells ---------------------------------------------------------------


class FilterCells(Model):
    """Keep cells in which at least `min_genes` genes and `min_counts` counts are seen."""

    min_genes: Annotated[int, Field(ge=0)] = 1
    min_counts: Annotated[float, Field(ge=0)] = 0


def filter_cells(adata: AnnData, options: FilterCells) -> np.ndarray:
    """Cells with enough genes and counts."""
    X = detected(adata)
    genes = np.asarray((X > 0).sum(axis=1)).ravel()
    keep = genes >= options.min_genes
    if options.min_counts:
        keep &= np.asarray(X.sum(axis=1)).ravel() >= options.min_counts
    return np.asarray(keep)


class MaxMito(Model):
    """Keep cells with at most `percent` of their counts in mitochondrial genes."""

    percent: Annotated[float, Field(ge=0, le=100)] = 10.0
    prefix: Annotated[str, Field(min_length=1)] = "MT-"


def max_mito(adata: AnnData, options: MaxMito) -> np.ndarray:
    """Cells with few mitochondrial counts."""
    need(adata, "max_mito", "counts")
    mito = adata.var_names.str.startswith(options.prefix)
    if not mito.any():
        raise DataError(
            f"recipe step 'max_mito': no gene name starts with {options.prefix!r} "
            "(human genes: prefix MT-, mouse: mt-)"
        )
    total = np.asarray(adata.X.sum(axis=1)).ravel()
    share = np.asarray(adata.X[:, np.flatnonzero(mito)].sum(axis=1)).ravel() / np.maximum(total, 1)
    return np.asarray(100 * share <= options.percent)


class MinCellsPerClass(Model):
    """Keep cells whose class in `column` has at least `cells` cells, or whose label is missing."""

    column: str
    cells: Positive


def min_cells_per_class(adata: AnnData, options: MinCellsPerClass) -> np.ndarray:
    """Cells of classes that are not rare."""
    labels = checks.column(adata, options.column, "recipe step 'min_cells_per_class'")
    sizes = labels.map(labels.value_counts()).astype("float64")
    return np.asarray(labels.isna() | (sizes >= options.cells))


class DropCells(Model):
    """Drop cells with one of `values` in `column` and, if `missing`, those without a label."""

    column: str
    values: tuple[str, ...] = ()
    missing: bool = False


def drop_cells(adata: AnnData, options: DropCells) -> np.ndarray:
    """Cells whose label is wanted."""
    labels = checks.column(adata, options.column, "recipe step 'drop_cells'")
    drop = labels.astype(object).map(str).isin(options.values).to_numpy()
    absent = labels.isna().to_numpy()
    return np.asarray(~np.where(absent, options.missing, drop))


# --- steps that change values -----------------------------------------------------------------


class Normalize(Model):
    """Bring the counts of every cell to `target_sum`, or to the median of all cells' counts."""

    target_sum: Annotated[float, Field(gt=0)] | Literal["median"] = 1e4


def normalize(adata: AnnData, options: Normalize) -> None:
    """Scale every cell to the same total; keep the counts."""
    import scanpy as sc

    need(adata, "normalize", "counts")
    adata.layers["counts"] = adata.X
    adata.X = adata.X.copy()
    # scanpy takes the median when it is given no target.
    target = None if options.target_sum == "median" else options.target_sum
    sc.pp.normalize_total(adata, target_sum=target)
    adata.uns["x"] = "normalized"


class NoOptions(Model):
    """A step without options."""


def log1p(adata: AnnData, options: NoOptions) -> None:
    """Natural logarithm of 1 + x; of normalised values, or of the counts themselves."""
    need(adata, "log1p", "normalized", "counts")
    if adata.uns["x"] == "counts":
        adata.layers["counts"] = adata.X
    adata.X = np.log1p(adata.X) if isinstance(adata.X, np.ndarray) else adata.X.log1p()
    adata.uns["x"] = "lognorm"


def to_lognorm(adata: AnnData, options: Normalize) -> None:
    """`normalize` and `log1p` if X holds counts; leave it alone, with a note, if not."""
    if adata.uns["x"] == "counts":
        normalize(adata, options)
        log1p(adata, NoOptions())
        return
    need(adata, "to_lognorm", "counts", "lognorm", "binary")
    _, known = describe(adata.X)
    adata.uns["notes"].append(f"X holds {known}: taken as {adata.uns['x']}, not changed")


class Binarize(Model):
    """1 where X is above `threshold`, else 0."""

    threshold: float = 0.0


def binarize(adata: AnnData, options: Binarize) -> None:
    """Turn X into 0 and 1; keep what it was."""
    need(adata, "binarize", "counts", "lognorm")
    adata.layers[adata.uns["x"]] = adata.X
    adata.X = (adata.X > options.threshold).astype(np.float32)  # noqa: SIM300
    adata.uns["x"] = "binary"


class Scale(Model):
    """Bring every gene to mean 0 and standard deviation 1, then clip to [-clip, clip].

    With ``by: matrix`` there is one mean and one deviation for all genes (MarkerMap's Table 4).
    """

    by: Literal["gene", "matrix"] = "gene"
    clip: Annotated[float, Field(gt=0)] | None = 10.0
    fit: Fit = "train"


@dataclass(frozen=True)
class Scaling:
    """A fitted `scale` step.

    Attributes
    ----------
    mean, std
        float64 of shape (n_genes,); std with n - 1 in the denominator, 1 for constant genes.
    clip
        Largest absolute value, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: float | None

    @classmethod
    def fit(cls, X: Matrix, options: Scale) -> Scaling:
        """Measure the genes of a matrix, cells x genes."""
        if isinstance(X, np.ndarray):
            mean = X.mean(axis=0, dtype=np.float64)
            variance = X.var(axis=0, dtype=np.float64)
        else:
            from sklearn.utils.sparsefuncs import mean_variance_axis

            mean, variance = mean_variance_axis(X.astype(np.float64), axis=0)
        n = X.shape[0]
        if options.by == "matrix":
            n *= X.shape[1]
            whole = np.mean(variance + np.square(mean)) - np.mean(mean) ** 2
            mean, variance = np.full_like(mean, np.mean(mean)), np.full_like(variance, whole)
        std = np.sqrt(variance * (n / max(n - 1, 1)))
        # Rounding leaves a constant gene a tiny spread; dividing by it would make noise of it.
        std[std <= 1e-6 * np.abs(mean)] = 1.0
        return cls(np.asarray(mean), std, options.clip)

    def apply(self, X: Matrix) -> np.ndarray:
        """Scaled matrix, float32, dense."""
        dense = X if isinstance(X, np.ndarray) else X.toarray()
        scaled = (dense - self.mean.astype(np.float32)) / self.std.astype(np.float32)
        if self.clip is not None:
            np.clip(scaled, -self.clip, self.clip, out=scaled)
        return np.ascontiguousarray(scaled, dtype=np.float32)


# --- the table of steps ----------------------------------------------------------------------


@dataclass(frozen=True)
class StepType:
    """What a step is: its options, its role and its function (none for ``scale``)."""

    options: type[Model]
    role: Literal["cells", "genes", "values", "scale"]
    function: Callable[[AnnData, Any], Any] | None = None


STEPS: dict[str, StepType] = {
    "filter_cells": StepType(FilterCells, "cells", filter_cells),
    "max_mito": StepType(MaxMito, "cells", max_mito),
    "min_cells_per_class": StepType(MinCellsPerClass, "cells", min_cells_per_class),
    "drop_cells": StepType(DropCells, "cells", drop_cells),
    "filter_genes": StepType(FilterGenes, "genes", filter_genes),
    "expressed_genes": StepType(ExpressedGenes, "genes", expressed_genes),
    "drop_genes": StepType(DropGenes, "genes", drop_genes),
    "class_expression_filter": StepType(ClassExpressionFilter, "genes", class_expression_filter),
    "hvg": StepType(Hvg, "genes", hvg),
    "normalize": StepType(Normalize, "values", normalize),
    "log1p": StepType(NoOptions, "values", log1p),
    "to_lognorm": StepType(Normalize, "values", to_lognorm),
    "binarize": StepType(Binarize, "values", binarize),
    "scale": StepType(Scale, "scale"),
}
