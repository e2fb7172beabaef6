"""Highly variable genes of cells on disk: from sums over blocks of cells, by scanpy's formulas.

`panelbench.data.gene_steps.hvg` leaves cells in memory to scanpy; here are the same formulas on
sums that a pass over the file gives. The sums of counts are exact; variances may differ from
scanpy's in their last bits, and with them the order of two genes that vary as much as each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.blocks import blocks
from panelbench.data.gene_steps import Hvg
from panelbench.data.recipes import options_of
from panelbench.data.specs import Step
from panelbench.data.steps import STEPS

if TYPE_CHECKING:
    from anndata import AnnData

_BINS = 20
"""Bins of genes by mean expression (flavor seurat)."""


def unsuited(adata: AnnData, steps: Sequence[Step]) -> str | None:
    """Name of a step that needs all cells in memory to choose genes, if there is one."""
    choosing = [step for step in steps if STEPS[step.name].role == "genes"]
    for step in choosing:
        options = options_of(step)
        alone = isinstance(options, Hvg) and len(choosing) == 1
        if not alone or _flavor(adata, options) not in ("seurat_v3", "seurat"):
            return step.name
    return None


def choose_genes_by_blocks(
    adata: AnnData, rows: np.ndarray, steps: Sequence[Step]
) -> np.ndarray | None:
    """Columns that a split keeps, as `panelbench.data.recipes.choose_genes`, of cells on disk."""
    for step in steps:
        if STEPS[step.name].role == "genes":
            return np.flatnonzero(hvg_by_blocks(adata, rows, options_of(step)))
    return None


def _flavor(adata: AnnData, options: Hvg) -> str:
    if options.flavor != "auto":
        return options.flavor
    return "seurat_v3" if "counts" in adata.layers else "seurat"


def hvg_by_blocks(adata: AnnData, rows: np.ndarray, options: Hvg) -> np.ndarray:
    """The `n` most variable genes of some cells (see `panelbench.data.gene_steps.hvg`).

    Parameters
    ----------
    adata
        Cells on disk; their counts in ``layers["counts"]``, or logarithms in ``X``.
    rows
        Sorted indices of the cells to fit on.

    Returns
    -------
    bool of shape (n_genes,).
    """
    keep = np.ones(adata.n_vars, dtype=bool)
    if options.n >= adata.n_vars:
        return keep
    if _flavor(adata, options) == "seurat_v3":
        badness = -_variances_of_counts(adata.layers["counts"], rows)
    else:
        lognorm = adata.layers.get("lognorm", adata.X)
        badness = -np.nan_to_num(_dispersions(lognorm, rows), nan=-np.inf)
    keep[:] = False
    keep[np.argsort(badness, kind="stable")[: options.n]] = True
    return keep


def _sums(matrix: Any, rows: np.ndarray, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of squares of each gene, after `values(data, columns)`."""
    first, second = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    for _, part in blocks(matrix, rows):
        block: Any = part
        found = values(block.data.astype(np.float64), block.indices)
        first += np.bincount(block.indices, weights=found, minlength=len(first))
        second += np.bincount(block.indices, weights=found**2, minlength=len(first))
    return first, second


def _moments(sums: tuple[np.ndarray, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n - 1 in the denominator)."""
    first, second = sums
    mean = first / n
    return mean, np.maximum(second - first * mean, 0) / (n - 1)


def _variances_of_counts(counts: Any, rows: np.ndarray) -> np.ndarray:
    """Variance of standardised counts, clipped, per gene (Stuart et al. 2019, Cell)."""
    from skmisc.loess import loess  # type: ignore[import-untyped]

    n = len(rows)
    mean, variance = _moments(_sums(counts, rows, lambda data, _: data), n)
    varies = variance > 0
    expected = np.zeros(len(mean))
    model = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=0.3, degree=2)
    model.fit()
    expected[varies] = model.outputs.fitted_values
    deviation = np.sqrt(10**expected)
    clip = deviation * np.sqrt(n) + mean
    first, second = _sums(counts, rows, lambda data, columns: np.minimum(data, clip[columns]))
    spread: np.ndarray = n * np.square(mean) + second - 2 * first * mean
    standard: np.ndarray = spread / ((n - 1) * np.square(deviation))
    return standard


def _dispersions(lognorm: Any, rows: np.ndarray) -> np.ndarray:
    """Dispersion per gene, standardised among genes of its mean (Satija et al. 2015)."""
    import pandas as pd

    def undone(data: np.ndarray, _: np.ndarray) -> np.ndarray:
        # As scanpy has it, in single precision.
        return np.expm1(data.astype(np.float32)).astype(np.float64)

    mean, variance = _moments(_sums(lognorm, rows, undone), len(rows))
    mean[mean == 0] = 1e-12
    with np.errstate(divide="ignore"):
        dispersion = np.log(np.where(variance > 0, variance / mean, np.nan))
    genes = pd.DataFrame({"value": dispersion, "bin": pd.cut(np.log1p(mean), bins=_BINS)})
    found = genes.groupby("bin", observed=True)["value"]
    centre, spread = found.transform("mean"), found.transform("std")
    # A gene that is alone in its bin gets the dispersion 1.
    alone = spread.isna()
    centre, spread = centre.where(~alone, 0.0), spread.where(~alone, centre)
    return ((genes["value"] - centre) / spread).to_numpy(dtype=np.float64)
