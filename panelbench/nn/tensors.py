"""Between numpy and torch, and dropout from a generator of its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch


def tensor_of(array: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Tensor of an array that is only read: on the CPU it shares the array's memory."""
    import torch

    with warnings.catch_warnings():  # torch warns that a read-only array could be written to
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array).to(device)


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """Values of a tensor as float64, in C order; a copy."""
    return np.array(values.detach().cpu().numpy(), dtype=np.float64, order="C")


def drop(
    values: torch.Tensor,
    probability: float,
    generator: torch.Generator | None,
    draw: Literal["uniform", "bernoulli"] = "uniform",
) -> torch.Tensor:
    """Dropout (Srivastava et al. 2014): what stays is scaled up, so that the mean stays.

    Parameters
    ----------
    values
        Any shape, floating point.
    probability
        Of dropping a value, at least 0 and below 1.
    generator
        Draws what is dropped, on the device of `values`. None evaluates: nothing is.
    draw
        How the generator is used. ``"uniform"`` is the faster, and the same on every CPU.
    """
    import torch

    if generator is None or probability == 0:
        return values
    kept = torch.empty_like(values)
    if draw == "uniform":
        kept = kept.uniform_(generator=generator) >= probability
    else:
        kept.bernoulli_(1 - probability, generator=generator)
    return values * kept / (1 - probability)
