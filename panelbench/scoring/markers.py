"""How well single genes tell classes apart, and what they are like in each class."""

from __future__ import annotations

import itertools

import numpy as np

from panelbench.method import Matrix


def class_means(values: Matrix, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean of each gene in each class; float64, classes x genes, 0 for a class without cells."""
    from scipy import sparse

    known = np.flatnonzero(codes >= 0)
    member = sparse.csr_matrix(
        (np.ones(len(known)), (codes[known], known)), shape=(n_classes, len(codes))
    )
    sums = member @ values
    dense = sums.toarray() if sparse.issparse(sums) else np.asarray(sums)
    sizes = np.maximum(np.bincount(codes[known], minlength=n_classes), 1)
    return np.asarray(dense, dtype=np.float64) / sizes[:, None]


def auroc(
    values: Matrix, codes: np.ndarray, n_classes: int, columns: np.ndarray, block: int = 256
) -> np.ndarray:
    """How well each gene alone tells each class from all other cells.

    Parameters
    ----------
    values
        Cells x genes; only the order of a gene's values counts.
    codes
        Class of each cell; cells with -1 are left out.
    n_classes
        Number of classes.
    columns
        Genes to look at.
    block
        Genes at a time.

    Returns
    -------
    float64, classes x columns: the rank-sum statistic over its largest value, 0.5 without cells in
    or outside a class.
    """
    from scipy.stats import rankdata

    known = codes >= 0
    member = np.eye(n_classes)[codes[known]].T
    sizes = member.sum(axis=1, keepdims=True)
    pairs = sizes * (known.sum() - sizes)
    found = np.full((n_classes, len(columns)), 0.5)
    rows = values[np.flatnonzero(known)]
    for start in range(0, len(columns), block):
        part = rows[:, columns[start : start + block]]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        sums = member @ rankdata(dense, axis=0)
        wins = sums - sizes * (sizes + 1) / 2
        found[:, start : start + block] = np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)
    return found


def pair_auroc(
    values: np.ndarray, codes: np.ndarray, n_classes: int
) -> dict[tuple[int, int], float]:
    """For each two classes, how well the best gene tells them apart, in either direction.

    Parameters
    ----------
    values
        Dense, cells x genes.
    codes
        Class of each cell; cells with -1 are left out.
    n_classes
        Number of classes.

    Returns
    -------
    AUROC from 0.5 to 1 by pair of codes, the smaller first; pairs of classes that have cells.
    """
    parts = {code: np.sort(values[codes == code], axis=0) for code in range(n_classes)}
    parts = {code: part for code, part in parts.items() if len(part)}
    found = {}
    for (a, first), (b, second) in itertools.combinations(parts.items(), 2):
        best = 0.5
        for one, two in zip(first.T, second.T, strict=True):
            below = np.searchsorted(two, one, side="left").sum()
            upto = np.searchsorted(two, one, side="right").sum()
            wins = (below + upto) / (2 * len(one) * len(two))
            best = max(best, wins, 1 - wins)
        found[a, b] = float(best)
    return found
