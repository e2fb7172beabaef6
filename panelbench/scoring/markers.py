"""How well single genes tell two classes apart."""

from __future__ import annotations

import itertools

import numpy as np


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
