"""What the values of an expression matrix are: counts, their logarithms, or something between.

Nothing in a file says so reliably, so the values are asked. A wrong guess would give other panels
without a word: what cannot be told is an error that names the options.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from panelbench.data import checks
from panelbench.method import Matrix

Kind = Literal["counts", "binary", "lognorm", "linear"]

TOO_LARGE = 50.0
"""No logarithm of an expression value is as large: e to that power has 22 digits."""
_SPREAD = 1e4
"""Cells' totals may differ by this factor after undoing a logarithm. On five data sets the largest
cell has at most 23 times the median cell's total when values are logarithms of any usual kind, and
at least 1e80 times when they are not."""
_EQUAL = 0.01
"""Relative standard deviation of the totals of normalised cells."""
_WHOLE = 0.25
"""Share of whole numbers from which values are called fractional counts."""
_CELLS = 2000


def describe(X: Matrix, survey: tuple[bool, float] | None = None) -> tuple[Kind, str]:
    """What a matrix holds, judged by its values.

    Parameters
    ----------
    X
        Cells x genes; finite and not negative.
    survey
        What `checks.survey` says of it, if it is known.

    Returns
    -------
    kind
        ``counts`` (whole numbers), ``binary`` (0 and 1), ``lognorm`` (logarithms), or ``linear``:
        neither, such as RPKM, values normalised to a total, or fractional counts.
    evidence
        The values in words, for people.
    """
    whole, top = survey or checks.survey(X)
    if whole:
        return ("counts", f"whole numbers up to {top:g}") if top > 1 else ("binary", "0 and 1 only")
    evidence = f"real numbers up to {top:,.4g}"
    rows = np.unique(np.linspace(0, X.shape[0] - 1, _CELLS).astype(int))
    cells = X[rows].astype(np.float64)
    if top > TOO_LARGE:
        return "linear", f"{evidence}, too large for logarithms"
    totals, undone = _totals(cells), _undone(cells)
    if undone.max(initial=0) > _SPREAD * np.median(undone):
        return "linear", f"{evidence}, too far apart for logarithms"
    if totals.size > 1 and totals.std() < _EQUAL * totals.mean():
        return "linear", f"{evidence} that add up to {np.median(totals):,.4g} in every cell"
    # log2(1 + count) is whole for counts of 1, 3, 7, ...; so undo that first.
    nonzero = checks.values_of(cells)
    nonzero = nonzero[nonzero != 0]
    share = _whole_share(nonzero)
    if share >= _WHOLE and _whole_share(np.exp2(nonzero)) < 1:
        return "linear", f"{evidence}, {share:.0%} of them whole, like fractional counts"
    return "lognorm", evidence


def _totals(cells: Matrix) -> np.ndarray:
    """Sum of each cell that is not empty."""
    totals = np.asarray(cells.sum(axis=1)).ravel()
    return totals[totals > 0]


def _undone(cells: Matrix) -> np.ndarray:
    """Totals of the cells if their values were natural logarithms of 1 + x."""
    undone = np.expm1(cells) if isinstance(cells, np.ndarray) else cells.expm1()
    return _totals(undone)


def _whole_share(values: np.ndarray) -> float:
    """Share of values within 0.001 of a whole number."""
    return float((np.abs(values - np.rint(values)) < 1e-3).mean())
