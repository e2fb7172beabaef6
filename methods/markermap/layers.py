"""Building blocks: layers whose weights come from a generator of their own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def linear(n_in: int, n_out: int) -> torch.nn.Linear:
    """A linear layer without values; `initialise` sets them."""
    import torch

    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out)  # type: ignore[no-untyped-call]
    return layer


def block(n_in: int, n_out: int, *, norm: bool = True) -> torch.nn.Sequential:
    """Linear, batch normalisation, LeakyReLU."""
    import torch

    norms = [torch.nn.BatchNorm1d(n_out)] if norm else []
    return torch.nn.Sequential(linear(n_in, n_out), *norms, torch.nn.LeakyReLU())


def initialise(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw every linear layer's weights and biases, uniform within one over root of its inputs."""
    import torch

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
