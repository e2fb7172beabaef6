"""Image patches: their colours, as features where nothing better is at hand, and small ones."""

from __future__ import annotations

import numpy as np


def colours(patch: np.ndarray) -> list[float]:
    """Nine numbers of a patch.

    Parameters
    ----------
    patch
        Height x width x 3, uint8.

    Returns
    -------
    Mean and standard deviation of red, green and blue, and the 10, 50 and 90% quantiles of their
    mean, all in 0 to 1.
    """
    pixels = patch.reshape(-1, patch.shape[-1])[:, :3] / 255.0
    return [
        *pixels.mean(axis=0),
        *pixels.std(axis=0),
        *np.quantile(pixels.mean(axis=1), [0.1, 0.5, 0.9]),
    ]


def averaged(patch: np.ndarray, side: int) -> np.ndarray:
    """A patch of fewer pixels, each the mean of a square of the given ones.

    Parameters
    ----------
    patch
        Square, height x width x 3, uint8.
    side
        Pixels along each side; divides those of the patch.

    Returns
    -------
    uint8 of shape (side * side * 3,), row by row.
    """
    step = len(patch) // side
    squares = patch[..., :3].reshape(side, step, side, step, 3)
    means: np.ndarray = np.rint(squares.mean(axis=(1, 3))).astype(np.uint8)
    return means.ravel()
