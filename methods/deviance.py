"""Genes by deviance: how badly a constant share of each cell's counts explains them (scry)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from panelbench.method import Matrix, Selection, Task, method
from panelbench.ranking import rank_by_score


@dataclass(frozen=True)
class Params:
    """Parameters.

    Attributes
    ----------
    family
        What counts of a gene follow when its share is the same in all cells.
    """

    family: Literal["binomial", "poisson"] = "binomial"


@method(
    "deviance",
    params=Params,
    label="Deviance",
    needs="counts",
    libraries=("scipy",),
    cite="Townes et al. 2019",
    doi="10.1186/s13059-019-1861-6",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by their deviance from a constant share of each cell's counts (Townes et al. 2019).

    As ``devianceFeatureSelection`` of the package scry, without batches. The total of a cell is
    that of the candidate genes, which are all that a method is given.
    """
    return rank_by_score(task, deviances(task.X, params.family))


def deviances(X: Matrix, family: str) -> np.ndarray:
    """Deviance of each gene from a share of the counts that all cells have.

    With y_i the counts of the gene in cell i, n_i the total of the cell and p = sum y / sum n::

        binomial: 2 sum_i [y_i log(y_i / (n_i p)) + (n_i - y_i) log((n_i - y_i) / (n_i (1 - p)))]
        poisson:  2 sum_i [y_i log(y_i / (n_i p))], the rest of its terms being 0 in sum

    Parameters
    ----------
    X
        Counts, cells x genes, array or CSR. Only what is not zero takes part in the sums over
        cells, in one order for both forms.
    family
        ``"binomial"`` or ``"poisson"``.

    Returns
    -------
    float64 of shape (n_genes,); 0 for a gene without counts.
    """
    from scipy.sparse import csr_matrix
    from scipy.special import xlogy

    counts = csr_matrix(X, dtype=np.float64, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    n_cells, n_genes = counts.shape
    genes, y = counts.indices, counts.data
    cells = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    n = np.bincount(cells, weights=y, minlength=n_cells)[cells]
    whole, totals = y.sum(), np.bincount(genes, weights=y, minlength=n_genes)
    share = totals / max(whole, 1.0)
    terms, null = xlogy(y, y / n), xlogy(totals, share)
    if family == "binomial":
        terms = terms + xlogy(n - y, (n - y) / n)
        null = null + xlogy(whole - totals, 1 - share)
    own = np.bincount(genes, weights=terms, minlength=n_genes)
    return np.asarray(2 * np.maximum(own - null, 0.0))
