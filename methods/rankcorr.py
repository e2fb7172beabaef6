"""RankCorr: markers of each class by sparse correlation of ranks, merged over the classes.

With z the standardised ranks of a gene over the cells and t = +1 in a class and -1 outside, the
gene's statistic is v = sum of t z. A class takes the genes whose |v| stands above a threshold,
and lowers the threshold until the soft-thresholded statistics S have |S|_1 / |S|_2 > sqrt(lambda).
That ratio grows as the threshold falls (Cauchy and Schwarz), so every gene has one smallest
lambda at which a class takes it, and all panels can be read from these numbers.

Source: Vargo & Gilbert 2020, as the MarkerMap paper (Gregory et al. 2024) uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.method import Matrix, Selection, Task, method
from panelbench.ranking import gene_variances

_GENES = 256
"""Genes that are ranked at a time: no dense copy of the whole matrix is made."""


@dataclass(frozen=True)
class Params:
    """Parameters of RankCorr.

    Attributes
    ----------
    mode
        ``"fair"``: the smallest lambda at which the classes take k genes between them, and of
        those the k with the largest |v|. ``"parity"``: as in the MarkerMap benchmark, which takes
        one lambda for every k and keeps the first k genes in the order of the data, however good.
    sparsity
        The lambda of the mode ``"parity"``.
    """

    mode: Literal["fair", "parity"] = "fair"
    sparsity: Annotated[float, Ge(1)] = 20.0


@method(
    "rankcorr",
    params=Params,
    label="RankCorr",
    supervised=True,
    nested=False,
    needs="prepared",
    libraries=("scipy",),
    cite="Vargo & Gilbert 2020",
    doi="10.1186/s12859-020-03641-z",
)
def select(task: Task, params: Params) -> Selection:
    """Markers of all classes by sparse rank correlation (RankCorr, Vargo & Gilbert 2020).

    Fair panels of different sizes are not prefixes of one another: each class takes its second
    gene at the same lambda, and the best k of all these may leave out a first one.
    ``info["lambda"]`` is the lambda that was used and ``info["union"]`` the number of genes that
    the classes take there. Where that is less than k, the genes with the next larger lambda
    follow. `Selection.scores` are the largest |v| over the classes, divided by the cells.

    Raises
    ------
    NotApplicable
        When all training cells have one class.
    """
    codes = task.target.values
    classes = np.unique(codes)
    if len(classes) < 2:
        raise NotApplicable(f"task {task.target.name}: all training cells have the same class")
    statistics = rank_statistics(task.X, codes == classes[:, None])
    entry = entry_lambdas(statistics).min(axis=0)
    strength = np.abs(statistics).max(axis=0)
    variances = gene_variances(task.X)

    fair = params.mode == "fair"
    finite = entry[np.isfinite(entry)]
    used = float(np.sort(finite)[: task.k].max(initial=0.0)) if fair else params.sparsity
    union = entry <= used
    # Without a union of k genes: by lambda, then by strength, then as the suite fills panels.
    rest = np.lexsort((-variances, -strength, entry, variances == 0))
    rest = rest[~union[rest]]
    taken = np.flatnonzero(union)
    if fair:
        taken = taken[np.argsort(-strength[taken], kind="stable")]
    order = np.concatenate([taken, rest])
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=strength[order] / task.n_cells,
        info={"lambda": used, "union": int(union.sum())},
    )


def rank_statistics(X: Matrix, members: np.ndarray) -> np.ndarray:
    """Sum over cells of (+1 in the class, -1 outside) times the gene's standardised rank.

    Parameters
    ----------
    X
        Expression, cells x genes, array or CSR. Ties get average ranks.
    members
        Bool of shape (n_classes, n_cells): which cells a class has.

    Returns
    -------
    float64 array of shape (n_classes, n_genes); 0 for a gene without variance.
    """
    from scipy.stats import rankdata

    columns = X if isinstance(X, np.ndarray) else X.tocsc()
    inside = members.astype(np.float64)
    n_cells, n_genes = X.shape
    found = np.empty((len(members), n_genes))
    for start in range(0, n_genes, _GENES):
        block = columns[:, start : start + _GENES]
        block = block if isinstance(block, np.ndarray) else block.toarray()
        # Centred ranks are multiples of a half, so that all sums of them are exact, and those
        # over all cells vanish: outside the class the sum is minus that inside.
        ranks = rankdata(block, axis=0) - (n_cells + 1) / 2
        spread = np.sqrt((ranks**2).mean(axis=0))
        found[:, start : start + _GENES] = 2 * (inside @ ranks) / np.where(spread > 0, spread, 1e-7)
    return found


def entry_lambdas(statistics: np.ndarray) -> np.ndarray:
    """Smallest lambda at which a class takes each gene.

    A class takes a gene when the ratio |S|_1^2 / |S|_2^2 at the gene's own |v| as the threshold is
    no more than lambda: 0 for its best gene (and those tied with it), 1 for the next.

    Parameters
    ----------
    statistics
        v, shape (n_classes, n_genes).

    Returns
    -------
    float64 array of shape (n_classes, n_genes); infinite where v is 0.
    """
    size = np.abs(statistics)
    order = np.argsort(-size, axis=1, kind="stable")
    sorted_size = np.take_along_axis(size, order, axis=1)
    # The threshold falls from one gene's |v| to the next: `above` genes grow by `step` each. The
    # norms are sums of such growth, never differences of large numbers.
    step = -np.diff(sorted_size, axis=1, prepend=sorted_size[:, :1])
    above = np.arange(size.shape[1])
    l1 = np.cumsum(above * step, axis=1)
    squares = np.cumsum(step * (2 * l1 - above * step), axis=1)
    ratio = np.divide(l1**2, squares, out=np.zeros_like(l1), where=squares > 0)
    found = np.empty(size.shape)
    np.put_along_axis(found, order, np.maximum.accumulate(ratio, axis=1), axis=1)
    found[size == 0] = np.inf
    return found
