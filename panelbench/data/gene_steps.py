"""The steps of a recipe that keep some genes: each gives a bool array over the genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from panelbench.data import checks
from panelbench.data.states import detected, lognorm
from panelbench.errors import DataError
from panelbench.method import Matrix
from panelbench.schema import Model

if TYPE_CHECKING:
    from anndata import AnnData

Fit = Literal["train", "all"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


def _per_gene(X: Matrix) -> np.ndarray:
    return np.asarray((X > 0).sum(axis=0)).ravel()


class FilterGenes(Model):
    """Keep genes seen in at least `min_cells` cells."""

    min_cells: Annotated[int, Field(ge=0)] = 3


def filter_genes(adata: AnnData, options: FilterGenes) -> np.ndarray:
    """Genes seen in enough cells."""
    return np.asarray(_per_gene(detected(adata)) >= options.min_cells)


class ExpressedGenes(Model):
    """Keep genes that are seen in many cells, or in some cells strongly (cell2location's filter).

    A gene is kept if more than `min_fraction` of the cells have it, and if either more than
    `enough` of the cells have it or its mean over the cells that have it is above `mean`.
    """

    min_fraction: Fraction = 0.0005
    enough: Fraction = 0.03
    mean: Annotated[float, Field(ge=0)] = 1.12


def expressed_genes(adata: AnnData, options: ExpressedGenes) -> np.ndarray:
    """Genes that are common, or rare and strong; of counts, where the data have them."""
    X = detected(adata)
    cells = _per_gene(X)
    mean = np.asarray(X.sum(axis=0)).ravel() / np.maximum(cells, 1)
    share = cells / adata.n_obs
    return np.asarray(
        (share > options.min_fraction) & ((share > options.enough) | (mean > options.mean))
    )


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
