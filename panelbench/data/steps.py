"""The steps of a recipe: what happens between the matrix of a file and the one that methods get.

A step is a small function with options. Its role decides what it returns:

- ``cells`` and ``genes``: bool array of the cells or genes to keep;
- ``values``: nothing, it changes ``X`` of the AnnData it is given;
- ``scale``: see `Scaling`.

``adata.uns["x"]`` says what ``X`` holds, a `State`: ``counts``, ``normalized`` (counts brought to
one total per cell, not yet logarithms), ``lognorm``, ``scaled`` or ``binary``. Once ``X`` stops
being counts, they stay in ``layers["counts"]``; once it stops being log-normalised, that stays in
``layers["lognorm"]``. Notes for people are appended to ``adata.uns["notes"]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from panelbench.data import checks
from panelbench.data.scale import describe
from panelbench.errors import DataError
from panelbench.method import Matrix
from panelbench.schema import Model

if TYPE_CHECKING:
    from anndata import AnnData

State = Literal["counts", "normalized", "lognorm", "scaled", "binary"]
Fit = Literal["train", "all"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


def detected(adata: AnnData) -> Matrix:
    """Matrix whose non-zero entries say which gene is seen in which cell."""
    return adata.layers.get("counts", adata.layers.get("lognorm", adata.X))


def lognorm(adata: AnnData) -> Matrix:
    """Log-normalised values of the cells.

    Raises
    ------
    DataError
        When the recipe has not made any.
    """
    if "lognorm" in adata.layers:
        return adata.layers["lognorm"]
    if adata.uns["x"] == "lognorm":
        return adata.X
    raise DataError(
        f"log-normalised values are needed, but X is {adata.uns['x']}: "
        "put normalize and log1p earlier in the recipe"
    )


def need(adata: AnnData, step: str, *states: State) -> None:
    if adata.uns["x"] not in states:
        raise DataError(
            f"recipe step {step!r} works on {' or '.join(states)}, but X is {adata.uns['x']} "
            "at this point"
        )


def _per_gene(X: Matrix) -> np.ndarray:
    return np.asarray((X > 0).sum(axis=0)).ravel()


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


# --- steps that keep some genes ---------------------------------------------------------------


class FilterGenes(Model):
    """Keep genes seen in at least `min_cells` cells."""

    min_cells: Annotated[int, Field(ge=0)] = 3


def filter_genes(adata: AnnData, options: FilterGenes) -> np.ndarray:
    """Genes seen in enough cells."""
    return np.asarray(_per_gene(detected(adata)) >= options.min_cells)


class DropGenes(Model):
    """Drop genes by name, or whose name starts with one of `prefixes` (case-sensitive).

    `file` is a text file with one name a line; its names are read when the recipe is resolved and
    belong to the recipe from then on.
    """

    prefixes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    file: str | None = None


def drop_genes(adata: AnnData, options: DropGenes) -> np.ndarray:
    """Genes that are not listed."""
    drop = adata.var_names.isin(options.names)
    if options.prefixes:
        drop |= adata.var_names.str.startswith(options.prefixes)
    return np.asarray(~drop)


class ClassExpressionFilter(Model):
    """Keep genes specific to some classes (MarkerMap's recipe).

    First keep genes that at least `min_fraction` of the cells of some class express; then drop
    those that at least `max_fraction` of the cells express in at least `max_classes` of the
    classes. On a whole data set this looks at the labels of all cells, test cells included, as the
    paper does.
    """

    column: str
    min_fraction: Fraction = 0.30
    max_fraction: Fraction = 0.75
    max_classes: Fraction = 0.50


def class_expression_filter(adata: AnnData, options: ClassExpressionFilter) -> np.ndarray:
    """Genes expressed in enough cells of some class and not in most cells of most classes."""
    labels = checks.column(adata, options.column, "recipe step 'class_expression_filter'")
    seen = detected(adata) > 0
    groups = [np.flatnonzero((labels == name).to_numpy()) for name in labels.dropna().unique()]
    fractions = np.stack(
        [np.asarray(seen[rows].sum(axis=0)).ravel() / len(rows) for rows in groups]
    )
    expressed = (fractions >= options.min_fraction).any(axis=0)
    everywhere = (fractions >= options.max_fraction).mean(axis=0) >= options.max_classes
    return np.asarray(expressed & ~everywhere)


class Hvg(Model):
    """Keep the `n` most variable genes (all, if there are fewer).

    `flavor` as in scanpy; ``seurat_v3`` reads counts, the others log-normalised values; ``auto``
    is ``seurat_v3`` where the data have counts and ``seurat`` elsewhere. With ``fit: train``
    the genes are chosen on the training cells of each split.
    """

    n: Positive = 2000
    flavor: Literal["auto", "seurat_v3", "seurat", "cell_ranger"] = "seurat_v3"
    fit: Fit = "train"


def hvg(adata: AnnData, options: Hvg) -> np.ndarray:
    """Exactly `n` highly variable genes: ties at the cut go to the gene that comes first."""
    if options.n >= adata.n_vars:
        return np.ones(adata.n_vars, dtype=bool)
    import anndata
    import scanpy as sc

    has_counts = "counts" in adata.layers or adata.uns["x"] == "counts"
    flavor: str = options.flavor
    if flavor == "auto":
        flavor = "seurat_v3" if has_counts else "seurat"
    if flavor == "seurat_v3" and not has_counts:
        raise DataError(
            "recipe step 'hvg': flavor seurat_v3 needs raw counts and the data have none; "
            "use flavor seurat, or auto"
        )
    X = detected(adata) if flavor == "seurat_v3" else lognorm(adata)
    bare = anndata.AnnData(X=X, var=adata.var[[]])
    try:
        table = sc.pp.highly_variable_genes(
            bare, n_top_genes=options.n, flavor=flavor, inplace=False
        )
    except ValueError as error:
        raise DataError(
            f"recipe step 'hvg' ({flavor}) cannot be fitted on {adata.n_obs} cells x "
            f"{adata.n_vars} genes: {error}; filter rare genes first, or use another flavor"
        ) from error
    if flavor == "seurat_v3":
        badness = table["highly_variable_rank"].fillna(np.inf).to_numpy()
    else:
        badness = -table["dispersions_norm"].fillna(-np.inf).to_numpy()
    keep = np.zeros(adata.n_vars, dtype=bool)
    keep[np.argsort(badness, kind="stable")[: options.n]] = True
    return keep


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
    "drop_genes": StepType(DropGenes, "genes", drop_genes),
    "class_expression_filter": StepType(ClassExpressionFilter, "genes", class_expression_filter),
    "hvg": StepType(Hvg, "genes", hvg),
    "normalize": StepType(Normalize, "values", normalize),
    "log1p": StepType(NoOptions, "values", log1p),
    "to_lognorm": StepType(Normalize, "values", to_lognorm),
    "binarize": StepType(Binarize, "values", binarize),
    "scale": StepType(Scale, "scale"),
}
