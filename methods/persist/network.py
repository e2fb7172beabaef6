"""The network behind the mask, and the losses it is trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

ZERO_WEIGHT = 10.0
"""Weight of the "is it zero" part of the hurdle loss."""


class Network:
    """Linear layers with ReLU in between.

    Parameters
    ----------
    widths
        Inputs, hidden units of each layer, outputs.
    generator
        CPU generator of the initial weights and biases: uniform within one over the root of
        the layer's inputs.
    device
        Where the weights live.

    Attributes
    ----------
    layers
        Weight (outputs x inputs) and bias of each layer, float32.
    """

    def __init__(
        self, widths: Sequence[int], generator: torch.Generator, device: torch.device
    ) -> None:
        import torch

        def uniform(*shape: int, fan_in: int) -> torch.Tensor:
            values = 2 * torch.rand(*shape, generator=generator) - 1
            return (values / math.sqrt(max(fan_in, 1))).to(device).requires_grad_()

        self.layers = [
            (uniform(outputs, inputs, fan_in=inputs), uniform(outputs, fan_in=inputs))
            for inputs, outputs in pairwise(widths)
        ]

    def parameters(self) -> list[torch.Tensor]:
        """All weights and biases."""
        return [part for layer in self.layers for part in layer]

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Outputs for masked cells.

        Parameters
        ----------
        x
            Shape (n_cells, n_inputs), float32.
        mask
            Shape (n_cells, n_masked) or (n_masked,): for the last inputs; those before them are
            seen as they are.
        """
        import torch

        seen = x.shape[1] - mask.shape[-1]
        masked = x[:, seen:] * mask
        hidden = torch.cat([x[:, :seen], masked], dim=1) if seen else masked
        for depth, (weight, bias) in enumerate(self.layers):
            hidden = torch.nn.functional.linear(
                torch.relu(hidden) if depth else hidden, weight, bias
            )
        return hidden


def cross_entropy(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean over cells; `truth` holds class codes."""
    import torch

    return torch.nn.functional.cross_entropy(output, truth)


def squared_error(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Sum over outputs, mean over cells."""
    return (output - truth).square().sum(dim=1).mean()


def hurdle(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Loss of a gene that is first zero or not, and then has a value (Covert et al. 2023).

    Parameters
    ----------
    output
        Shape (n_cells, 2 x n_genes): for each gene its value where it is expressed, and the
        logit that it is not.
    truth
        Shape (n_cells, n_genes); not expressed means zero or less.

    Returns
    -------
    Sum over genes, mean over cells, of the cross-entropy of "is zero" times 10 and the squared
    error of the genes expressed.
    """
    import torch

    if output.shape[1] != 2 * truth.shape[1]:
        raise ValueError(
            f"the hurdle loss needs 2 outputs per gene: {output.shape[1]} for {truth.shape[1]}"
        )
    value, zero = output[:, 0::2], output[:, 1::2]
    absent = (truth <= 0).float()
    surprise = torch.nn.functional.binary_cross_entropy_with_logits(zero, absent, reduction="sum")
    squares = ((1 - absent) * (truth - value).square()).sum()
    total: torch.Tensor = ZERO_WEIGHT * surprise + squares
    return total / len(truth)
