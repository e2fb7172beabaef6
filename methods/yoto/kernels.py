"""The soft mask's gradient on a CPU: two multiplications an entry instead of an exponential.

Within a column r of the relaxed permutation (see `mask`) entries fall from 1 at row r to both
sides, and the ratio of neighbours changes by a factor that all columns share::

    E(m + 1, r) / E(m, r) = exp((2 u_r - u_m - u_(m+1)) / tau)

so a row follows from the one before. Going away from the peak all factors are at most 1: nothing
overflows, and what has vanished stays away. Columns left of the peak are swept with the rows,
those right of it against them, which is the same with all ranks in reverse. Compiled code keeps a
row in cache; it is float64 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np
from numba import njit


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep what was compiled where a folder can be written to."""
    options: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "nogil": True}
    try:
        made: Callable[..., Any] = njit(function, cache=True, **options)
    except RuntimeError:
        made = njit(function, **options)
    return made


@_compiled
def reach(values: np.ndarray, k: int, depth: float) -> int:
    """Ranks before the first that lies more than `depth` below the peak of the last of k rows."""
    fall = 0.0
    for t in range(len(values) - k):
        fall += (1 + 2 * t) * (values[k - 1 + t] - values[k + t])
        if fall > depth:
            return k + t
    return len(values)


@_compiled
def gradient(
    values: np.ndarray, upstream: np.ndarray, k: int, tau: float, floor: float
) -> np.ndarray:
    """Gradient of a loss with respect to scores, through their soft mask.

    Parameters
    ----------
    values
        float64: scores of the leading ranks, descending.
    upstream
        float64: gradient with respect to the mask of these ranks.
    k, tau
        Rows and temperature.
    floor
        Entries below this part of their row's peak count for nothing.

    Returns
    -------
    float64, one number per rank.
    """
    n = len(upstream)
    gaps = np.zeros(n)
    gaps[: n - 1] = (values[: n - 1] - values[1:n]) / tau
    back = np.zeros(n)
    back[: n - 1] = gaps[: n - 1][::-1]
    fade, faded, mirrored = np.exp(-gaps), np.exp(-back), upstream[::-1].copy()
    left = _totals(gaps, fade, upstream, 0, k, floor)
    right = _totals(back, faded, mirrored, n - k, n, floor)
    # Of each row: one over its sum, the mean of what comes from above, its number.
    rows = np.zeros((3, n))
    # Of each column: the sums over rows m of D and of m D, D the gradient of the logits.
    columns = np.zeros((2, n))
    for m in range(k):
        rows[0, m] = 1 / (1 + left[0, m] + right[0, n - 1 - m])
        rows[1, m] = (upstream[m] + left[1, m] + right[1, n - 1 - m]) * rows[0, m]
        rows[2, m] = m
        columns[0, m] = rows[0, m] * (upstream[m] - rows[1, m])
        columns[1, m] = m * columns[0, m]
    _spread(gaps, fade, upstream, 0, k, floor, rows, columns)
    columns = columns[:, ::-1].copy()
    _spread(back, faded, mirrored, n - k, n, floor, rows[:, ::-1].copy(), columns)
    # A gap g_q enters u_r and c_r of every r > q; a score ends one gap and begins the next.
    by_rank = np.zeros(n)
    plain = weighted = 0.0
    for q in range(n - 2, -1, -1):
        plain += columns[0, n - 2 - q]
        weighted += columns[1, n - 2 - q]
        by_gap = (2 * weighted - (1 + 2 * q) * plain) / tau
        by_rank[q] += by_gap
        by_rank[q + 1] -= by_gap
    return by_rank


@_compiled
def _start(
    gaps: np.ndarray, row: int, floor: float, entries: np.ndarray, ratios: np.ndarray
) -> int:
    """Fill in a row left of its peak, and its ratios to the next; give the first that counts."""
    fall = far = 0.0
    for r in range(row - 1, -1, -1):
        fall += (2 * (row - r) - 1) * gaps[r]
        far += gaps[r]
        entries[r] = exp(-fall)
        if entries[r] < floor:
            return r + 1
        ratios[r] = exp(-2 * far - gaps[row])
    return 0


@_compiled
def _next(
    entries: np.ndarray, ratios: np.ndarray, fade: np.ndarray, low: int, row: int, floor: float
) -> int:
    """Leave out what has vanished, add the entry next to the peak; give the first that counts."""
    while low < row - 1 and entries[low] < floor:
        low += 1
    # The new entry goes through the loop of the row too: times its ratio of 1.
    entries[row - 1], ratios[row - 1] = fade[row - 1], 1.0
    return low


@_compiled
def _totals(
    gaps: np.ndarray, fade: np.ndarray, upstream: np.ndarray, first: int, last: int, floor: float
) -> np.ndarray:
    """Sums of each row's entries left of the peak, and of the same times `upstream`, (2, n)."""
    n = len(gaps)
    entries, ratios, sums = np.zeros(n), np.zeros(n), np.zeros((2, n))
    low = _start(gaps, first - 1, floor, entries, ratios)
    for m in range(max(first, 1), last):
        low = _next(entries, ratios, fade, low, m, floor)
        after = fade[m - 1] * fade[m]
        entry, ratio, above = entries[low:m], ratios[low:m], upstream[low:m]
        total = dot = 0.0
        for r in range(len(entry)):
            here = entry[r] * ratio[r]
            entry[r] = here
            ratio[r] *= after
            total += here
            dot += here * above[r]
        ratios[m - 1] = fade[m - 1] * after
        sums[0, m], sums[1, m] = total, dot
    return sums


@_compiled
def _spread(
    gaps: np.ndarray,
    fade: np.ndarray,
    upstream: np.ndarray,
    first: int,
    last: int,
    floor: float,
    rows: np.ndarray,
    columns: np.ndarray,
) -> None:
    """Add the gradients of the logits left of the peaks to their columns."""
    n = len(gaps)
    entries, ratios = np.zeros(n), np.zeros(n)
    low = _start(gaps, first - 1, floor, entries, ratios)
    for m in range(max(first, 1), last):
        low = _next(entries, ratios, fade, low, m, floor)
        after = fade[m - 1] * fade[m]
        scale, mean, number = rows[0, m], rows[1, m], rows[2, m]
        entry, ratio, above = entries[low:m], ratios[low:m], upstream[low:m]
        plain, weighted = columns[0, low:m], columns[1, low:m]
        for r in range(len(entry)):
            here = entry[r] * ratio[r]
            entry[r] = here
            ratio[r] *= after
            slope = here * scale * (above[r] - mean)
            plain[r] += slope
            weighted[r] += number * slope
        ratios[m - 1] = fade[m - 1] * after
