"""Which genes are primary, and the order in which the others are auxiliary.

The order is that of Seurat's highly variable genes: dispersion, standardised within bins of mean
expression. It is not learned, and a list cut from it is a list of variable genes.

Source: Satija et al. 2015, as `scanpy.pp.highly_variable_genes` with flavour ``"seurat"`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.errors import InputError

_BINS = 20


def dispersion_scores(expression: np.ndarray, n_bins: int = _BINS) -> np.ndarray:
    """Normalised dispersion of each gene over the cells where it is known.

    Parameters
    ----------
    expression
        Shape (n_cells, n_genes), log(1 + x); NaN where missing.
    n_bins
        Equally wide bins of log(1 + mean).

    Returns
    -------
    float32, NaN for a gene that is never expressed. A gene alone in its bin has 1.
    """
    import pandas as pd

    moments = [
        _moments(expression[:, start : start + 1024])
        for start in range(0, expression.shape[1], 1024)
    ]
    mean, variance = (np.concatenate(parts) for parts in zip(*moments, strict=True))
    mean = np.where(mean == 0, 1e-12, mean)
    ratio = variance / mean
    dispersion = np.log(np.where(ratio == 0, np.nan, ratio))
    table = pd.DataFrame({"value": dispersion, "bin": pd.cut(np.log1p(mean), n_bins, labels=False)})
    groups = table.groupby("bin")["value"]
    average, spread = groups.transform("mean"), groups.transform("std")
    alone = spread.isna() & table["value"].notna()
    score = (table["value"] - average.mask(alone, 0)) / spread.mask(alone, table["value"])
    # Sums in another order must not decide a tie.
    return np.asarray(score, dtype=np.float32)


def _moments(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (by n - 1) of expression before the logarithm; 0 where never known."""
    values = np.expm1(part.astype(np.float64))
    seen = ~np.isnan(values)
    n = seen.sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(n, 1)
    squares = np.nansum(np.square(values - mean), axis=0)
    return mean, squares / np.maximum(n - 1, 1)


def dispersion_order(expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genes by normalised dispersion, best first, and their scores in the genes' own order.

    Ties go to the larger variance of `expression`, then to the earlier gene; genes without a score
    are last.
    """
    scores = dispersion_scores(expression)
    seen = ~np.isnan(expression)
    n = np.maximum(seen.sum(axis=0), 1)
    filled = np.where(seen, expression, 0).astype(np.float64)
    mean = filled.sum(axis=0) / n
    variances = np.where(seen, np.square(filled - mean), 0).sum(axis=0) / n
    unscored = np.isnan(scores)
    keys = (-variances, np.where(unscored, 0, -scores), unscored, variances == 0)
    return np.lexsort(keys), scores


@dataclass(frozen=True)
class Roles:
    """Genes by what they are used for, as positions in the list of all genes.

    Attributes
    ----------
    primary
        int64, in the order given, or by score.
    auxiliary
        int64, by score, best first.
    scores
        float32 of every gene; NaN for those left out.
    """

    primary: np.ndarray
    auxiliary: np.ndarray
    scores: np.ndarray


def assign_roles(
    expression: np.ndarray,
    genes: np.ndarray,
    primary: Sequence[str] | int,
    *,
    auxiliary: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    min_cells: int = 3,
) -> Roles:
    """Choose primary genes and order the auxiliary ones on the cells given.

    Parameters
    ----------
    expression
        Shape (n_cells, n_genes), log(1 + x); NaN where missing. Training cells only.
    genes
        Names.
    primary
        Names of the primary genes, or how many of the most variable ones to take.
    auxiliary
        Names of the auxiliary genes in an order of one's own; None: all others, by variability.
    exclude
        Genes that are neither, for example those that the inputs are made of.
    min_cells
        Genes expressed in fewer cells are not auxiliary, and not chosen as primary.

    Raises
    ------
    InputError
        When primary genes are unknown or excluded, or too few are left.
    """
    column = {name: i for i, name in enumerate(genes.tolist())}
    names = [] if isinstance(primary, int) else list(primary)
    others = list(auxiliary or ())
    for role, found in (("primary", names), ("auxiliary", others), ("excluded", exclude)):
        if unknown := [name for name in found if name not in column]:
            raise InputError(f"{role} genes that are not in the data: {', '.join(unknown[:5])}")
        if len(set(found)) < len(found):
            raise InputError(f"{role} genes: each only once")
    for left, right in ((names, exclude), (names, others), (others, exclude)):
        if both := set(left) & set(right):
            raise InputError(f"genes in two roles: {', '.join(sorted(both)[:5])}")
    allowed = np.count_nonzero(np.nan_to_num(expression), axis=0) >= min_cells
    allowed[[column[name] for name in exclude]] = False
    allowed[[column[name] for name in names]] = True
    kept = np.flatnonzero(allowed)
    order, found_scores = dispersion_order(expression[:, kept])
    scores = np.full(len(genes), np.nan, dtype=np.float32)
    scores[kept] = found_scores
    ranked = kept[order]
    if auxiliary is not None:
        given = np.array([column[name] for name in others], dtype=np.int64)
        ranked_others = given[allowed[given]]
    else:
        ranked_others = ranked
    if isinstance(primary, int):
        free = ranked if auxiliary is None else ranked[~np.isin(ranked, ranked_others)]
        chosen = free[:primary]
        if len(chosen) < primary or primary < 1:
            raise InputError(f"{primary} primary genes wanted, {len(free)} genes can be chosen")
    else:
        chosen = np.array([column[name] for name in names], dtype=np.int64)
        if not len(chosen):
            raise InputError("needs at least one primary gene")
    return Roles(chosen, ranked_others[~np.isin(ranked_others, chosen)], scores)
