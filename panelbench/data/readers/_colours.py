"""Colours of image patches, as features for prediction where nothing better is at hand."""

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
