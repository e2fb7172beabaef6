"""The soft top-k mask over ranked auxiliary genes, and what is read from it.

The n auxiliary genes stand in a fixed order; the gene of rank i has position ``i / (n - 1)``. One
scalar, the cut, decides how many count::

    mask_i = exp(cut / tau) / (exp(position_i / tau) + exp(cut / tau))
           = sigmoid((cut - position_i) / tau)

The published formula has the ranks themselves; with its tau of 0.01 that would be a step without a
usable gradient, and the published code divides by n - 1, as here.

Source: Shiku et al. 2026 (AAAI 40), equation 6.
"""

from __future__ import annotations

import numpy as np

NEGLIGIBLE = 1e-6
"""Genes whose weight is below this are left out of a training step."""


def positions(n: int) -> np.ndarray:
    """Positions of n ranked genes: float64, from 0 to 1."""
    return np.arange(n) / max(n - 1, 1)


def usable_tau(tau: float, n: int) -> float:
    """Temperature, raised where the boundary would otherwise hold less than a few genes."""
    return max(tau, 2 / max(n - 1, 1))


def soft_mask(cut: float, n: int, tau: float) -> np.ndarray:
    """Mask of n ranked genes.

    Parameters
    ----------
    cut
        Position at which the mask is a half: 0 is the first gene, 1 the last.
    n
        Number of genes.
    tau
        Temperature in units of position; positive.

    Returns
    -------
    float64 in [0, 1], not increasing.
    """
    from scipy.special import expit

    return np.asarray(expit((cut - positions(n)) / tau))


def mask_slope(mask: np.ndarray, tau: float) -> np.ndarray:
    """Derivative of the mask by the cut, at most 1 / (4 tau)."""
    return np.asarray(mask * (1 - mask) / tau)


def n_kept(mask: np.ndarray) -> int:
    """Genes whose mask is at least a half: the learned k."""
    return int((mask >= 0.5).sum())
