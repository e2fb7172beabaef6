"""Learning rate by a range test: raise it step by step and take where the loss falls fastest.

Source: Smith 2017, in the form of PyTorch Lightning that the MarkerMap benchmark used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

LOWEST = 1e-8
_SMOOTHING = 0.98
_FIRST, _LAST = 10, 1  # points left out at either end
_DIVERGED = 4.0


def find_lr(step: Callable[[float], float], max_lr: float, n_steps: int) -> float:
    """Learning rate at which the smoothed loss falls fastest.

    The rate rises linearly from 1e-8 to `max_lr`, one training step each. The search ends early
    when the smoothed loss exceeds four times its best value.

    Parameters
    ----------
    step
        Does one training step at the given rate and returns its loss; whatever it trains should
        be a copy.
    max_lr
        Largest rate.
    n_steps
        Steps of the search.

    Returns
    -------
    A rate above 1e-8 and at most `max_lr`; half of `max_lr` when there are too few steps to tell.
    """
    rates, losses = [], []
    average, best = 0.0, math.inf
    for i in range(n_steps):
        rate = LOWEST + (i + 1) / n_steps * (max_lr - LOWEST) if i else LOWEST
        average = _SMOOTHING * average + (1 - _SMOOTHING) * step(rate)
        smoothed = average / (1 - _SMOOTHING ** (i + 2))
        if i and smoothed > _DIVERGED * best:
            break
        best = min(best, smoothed)
        rates.append(rate)
        losses.append(smoothed)
    return steepest(rates, losses) or max_lr / 2


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """Rate at the most negative slope of the losses; None when no two points are finite."""
    kept = slice(_FIRST, len(rates) - _LAST)
    x, y = np.array(rates[kept]), np.array(losses[kept])
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(y) < 2:
        return None
    return float(x[np.gradient(y, x).argmin()])
