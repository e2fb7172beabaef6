"""The path of the non-negative lasso by least angle regression, from Gram columns alone.

Minimises 1/2 |y - X b|² + lambda sum(b) over b >= 0 for decreasing lambda (Mørup et al. 2008,
the solver of pyHSICLasso). It needs the inner products of the columns with the output and, for
each column on the path, its Gram column; X itself is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# As in pyHSICLasso: a shorter step is no step, and the path ends at this correlation.
_TINY = 1e-9
# A column this close to the direction of all active ones is a copy of one of them.
_COPY = 1e-6


@dataclass
class Path:
    """What happened along a path.

    Attributes
    ----------
    entries
        Columns in order of first entry.
    levels
        Value of lambda at which each of them entered.
    left
        Columns in the order in which they left the path; some may have returned.
    active
        Columns active at the end, in order of entry.
    beta
        Their coefficients, float64.
    """

    entries: list[int] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    active: list[int] = field(default_factory=list)
    beta: np.ndarray = field(default_factory=lambda: np.empty(0))

    def enter(self, column: int, level: float) -> None:
        """Make a column active."""
        self.active.append(column)
        self.beta = np.append(self.beta, 0.0)
        if column not in self.entries:
            self.entries.append(column)
            self.levels.append(level)

    def leave(self, place: int) -> None:
        """Make the active column at a place inactive."""
        self.left.append(self.active.pop(place))
        self.beta = np.delete(self.beta, place)


def nonnegative_path(
    products: np.ndarray,
    gram_column: Callable[[int, np.ndarray], np.ndarray],
    n_active: int,
    progress: Callable[[int], None] = lambda n: None,
) -> Path:
    """Follow the path until `n_active` columns are active and one more is about to enter.

    Parameters
    ----------
    products
        Inner products of the columns with the output, float64 of shape (n_columns,).
    gram_column
        ``gram_column(j, delays)`` gives the inner products of all columns with column j. The
        delays, one per column, tell which are likely to be asked for next: the step after
        which each would enter if the path went straight on.
    n_active
        Columns wanted.
    progress
        Called with the number of active columns after each step.

    Returns
    -------
    The path; its active columns and their coefficients are those of pyHSICLasso for `n_active`
    features. Fewer are active when lambda reaches zero first.
    """
    path = Path()
    correlations = products.copy()
    first = int(correlations.argmax())
    if correlations[first] < _TINY:
        return path
    path.enter(first, correlations[first])
    gram = gram_column(first, -correlations)[:, None]
    while True:
        active = path.active
        level = correlations[active].mean()
        # Along this direction the correlations of all active columns fall at the same rate, 1.
        direction = np.linalg.solve(gram[active], np.ones(len(active)))
        rate = 1 - gram @ direction
        with np.errstate(divide="ignore", invalid="ignore"):
            to_enter = (level - correlations) / rate
            to_leave = -path.beta / direction
        to_enter[(rate < _COPY) | (to_enter <= _TINY)] = np.inf
        to_enter[active] = np.inf
        to_leave[~(to_leave > _TINY)] = np.inf

        entering, leaving = int(to_enter.argmin()), int(to_leave.argmin())
        step = min(to_enter[entering], to_leave[leaving], level)
        path.beta += step * direction
        correlations = products - gram @ path.beta
        if to_leave[leaving] == step:
            path.leave(leaving)
            gram = np.delete(gram, leaving, axis=1)
        elif step == level or level - step < _TINY or len(active) == n_active:
            return path
        else:
            path.enter(entering, level - step)
            column = gram_column(entering, to_enter)
            gram = np.concatenate([gram, column[:, None]], axis=1)
        progress(len(path.active))
