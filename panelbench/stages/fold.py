"""The matrices of a split: what a recipe fits on training cells, applied to any cells.

`fit_fold` divides the cells of a prepared data set and fits the ``fit: train`` steps; `Fold.take`
applies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import blocks
from panelbench.data.blocks import check_memory, is_stored, share_places, size_of, take
from panelbench.data.large_genes import choose_genes_by_blocks, unsuited
from panelbench.data.recipes import choose_genes, fit_scaling, resolve, split_recipe
from panelbench.data.specs import GROUP, DatasetSpec, Step
from panelbench.data.splits import Split, split_cells
from panelbench.data.steps import Scaling
from panelbench.data.subsample import subsample
from panelbench.errors import DataError
from panelbench.method import Matrix
from panelbench.stages.prepared import SPATIAL

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@dataclass(frozen=True)
class Fold:
    """A split, with the steps that were fitted on its training cells.

    Attributes
    ----------
    train, validation, test
        Sorted int64 indices of cells.
    genes
        int64 indices of the columns that the split keeps, or None for all.
    mean, std
        float64 per kept gene, when the split scales, else None.
    clip
        Largest absolute value after scaling, or None.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    genes: np.ndarray | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    clip: float | None = None

    def take(self, adata: AnnData, rows: np.ndarray) -> AnnData:
        """Cells as the methods of this split get them.

        Parameters
        ----------
        adata
            The prepared data set; it is not changed.
        rows
            Indices of cells, in any order.

        Returns
        -------
        AnnData of these cells and the genes kept, scaled if the split scales (``uns["x"]`` is
        ``scaled`` then and ``layers["lognorm"]`` holds what was scaled). Every categorical column
        keeps all its categories, also those no cell of `rows` has.
        """
        import anndata

        columns = slice(None) if self.genes is None else self.genes
        layers = {name: _cut(layer, rows, columns) for name, layer in adata.layers.items()}
        X, state = _cut(adata.X, rows, columns), adata.uns["x"]
        if is_stored(adata.X) and "counts" in layers:
            X = share_places(X, layers["counts"])
        if self.mean is not None and self.std is not None:
            layers.setdefault(state, X)
            X, state = Scaling(self.mean, self.std, self.clip).apply(X), "scaled"
        # Built anew: subsetting an AnnData drops the categories that no cell has.
        part = anndata.AnnData(
            X=X,
            obs=adata.obs.iloc[rows],
            var=adata.var.iloc[columns],
            obsm={name: np.asarray(values)[rows] for name, values in adata.obsm.items()},
            layers=layers,
        )
        part.uns.update({**adata.uns, "x": state})
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for ``numpy.savez``; what is None is left out."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        rest = {"genes": self.genes, "mean": self.mean, "std": self.std, "clip": self.clip}
        found.update({name: np.asarray(value) for name, value in rest.items() if value is not None})
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fold:
        """Rebuild a fold from what `arrays` returned."""
        given = {name: np.asarray(arrays[name]) for name in arrays if name != "clip"}
        return cls(**given, clip=float(arrays["clip"]) if "clip" in arrays else None)


def _cut(matrix: Matrix, rows: np.ndarray, columns: Any) -> Matrix:
    """Rows and columns of a matrix as CSR or C-contiguous array."""
    if is_stored(matrix):
        return take(matrix, rows, columns)
    part = matrix[rows]
    if not isinstance(columns, slice):
        part = part[:, columns]
    return np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part


def _thinned(split: Split, obs: pd.DataFrame, labels: np.ndarray, n: int, seed: int) -> Split:
    """A split with at most n training cells; validation cells keep their proportion to them."""
    if n >= len(split.train):
        return split
    groups = obs[GROUP].cat.codes.to_numpy(dtype=np.int64) if GROUP in obs else None
    validation = split.validation
    if len(validation):
        fewer = max(1, round(n * len(validation) / len(split.train)))
        # Early stopping needs no cell of every class.
        validation = subsample(validation, np.full(len(obs), -1), groups, fewer, seed)
    return Split(subsample(split.train, labels, groups, n, seed), validation, split.test)


def _fitted(
    adata: AnnData, known: np.ndarray, steps: Sequence[Step]
) -> tuple[np.ndarray | None, Scaling | None]:
    """Genes and scaling that steps find on the cells that are no test cells."""
    everything = Fold(known, known[:0], known[:0])
    if is_stored(adata.X) and size_of(adata.X, known) > blocks.LARGE:
        step = unsuited(adata, steps)
        if step is None:
            genes = choose_genes_by_blocks(adata, known, steps)
            if not any(step.name == "scale" for step in steps):
                return genes, None
            return genes, fit_scaling(replace(everything, genes=genes).take(adata, known), steps)
        check_memory(
            adata.X,
            f"recipe step {step!r} needs all training cells in memory; --max-cells N takes a "
            "sample of them, and hvg alone (flavor seurat or seurat_v3) needs none",
        )
    cells = everything.take(adata, known)
    genes = choose_genes(cells, steps)
    return genes, fit_scaling(cells if genes is None else cells[:, genes].copy(), steps)


def fit_fold(adata: AnnData, spec: DatasetSpec, seed: int) -> Fold:
    """Split the cells and fit the recipe's ``fit: train`` steps on all that are not test cells.

    With the entry's `max_cells` the training cells are a sample; test cells are all there are.

    Parameters
    ----------
    adata
        The prepared data set.
    spec
        Its entry: the split and the recipe. Classes of the first task are stratified by.
    seed
        Seed of the run.

    Raises
    ------
    DataError
        When the cells cannot be split (see `panelbench.data.splits.split_cells`) or the steps
        cannot be fitted.
    """
    labels, classes = np.full(adata.n_obs, -1, dtype=np.int64), []
    if spec.tasks and spec.tasks[0].kind == "classification":
        column = adata.obs[spec.tasks[0].name].cat
        labels, classes = column.codes.to_numpy(dtype=np.int64), list(column.categories)
    spatial = adata.obsm.get(SPATIAL)
    split = split_cells(adata.obs, labels, spec.split, seed, classes, spatial)
    if spec.max_cells is not None:
        split = _thinned(split, adata.obs, labels, spec.max_cells, seed)
    _, steps = split_recipe(resolve(spec.recipe))
    genes, scaling = None, None
    if steps:
        known = np.sort(np.concatenate([split.train, split.validation]))
        try:
            genes, scaling = _fitted(adata, known, steps)
        except DataError as error:
            raise DataError(f"{spec.id}, split {seed}: {error}") from error
    if scaling is None:
        return Fold(split.train, split.validation, split.test, genes)
    return Fold(
        split.train, split.validation, split.test, genes, scaling.mean, scaling.std, scaling.clip
    )
