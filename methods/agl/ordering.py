"""Which genes are primary, and the order in which the others are auxiliary.

The order is that of Seurat's highly variable genes (`panelbench.ranking.dispersion_order`). It is
not learned, and a list cut from it is a list of variable genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.errors import InputError
from panelbench.ranking import dispersion_order


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
