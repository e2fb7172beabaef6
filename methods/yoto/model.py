"""The network: a shared encoder whose first layer is read gene by gene, one head per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from panelbench.nn import Layer, drop, fold_norm, to_numpy

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-5  # added to the variance by batch normalisation
_MOMENTUM = 0.1


class Network:
    """Linear, batch normalisation, ReLU and dropout per hidden layer; linear heads.

    The first layer is kept apart: training multiplies only the selected columns of its input
    and needs the gradient at its output (`hidden` starts there).

    Parameters
    ----------
    n_genes
        Candidate genes.
    hidden
        Widths of the hidden layers, at least one.
    heads
        Outputs per task.
    generator
        CPU generator of the initial weights (uniform within one over the root of the inputs).
    device
        Where the weights live.
    batch_norm
        False leaves normalisation out.
    dropout
        Probability of dropping a hidden unit in training.
    """

    def __init__(
        self,
        n_genes: int,
        hidden: Sequence[int],
        heads: Mapping[str, int],
        generator: torch.Generator,
        device: torch.device,
        *,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        import torch

        def uniform(*shape: int, fan_in: int) -> torch.Tensor:
            bound = 1 / math.sqrt(fan_in)
            values = (2 * torch.rand(*shape, generator=generator) - 1) * bound
            return values.to(device).requires_grad_()

        self.dropout = dropout
        self.first = uniform(n_genes, hidden[0], fan_in=n_genes).detach()
        """First layer's weights, float32, genes x hidden units."""
        self.bias = uniform(hidden[0], fan_in=n_genes)
        self.layers = [
            (uniform(out, width, fan_in=width), uniform(out, fan_in=width))
            for width, out in pairwise(hidden)
        ]
        width = hidden[-1]
        self.heads = {
            name: (uniform(out, width, fan_in=width), uniform(out, fan_in=width))
            for name, out in heads.items()
        }
        self.norms = [_Norm(out, device) for out in hidden] if batch_norm else []

    def parameters(self) -> list[torch.Tensor]:
        """Everything that is trained through autograd: all but `first`."""
        found = [self.bias]
        for weight, bias in [*self.layers, *self.heads.values()]:
            found += [weight, bias]
        for norm in self.norms:
            found += [norm.weight, norm.bias]
        return found

    def forward(
        self, hidden: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Output of every head.

        Parameters
        ----------
        hidden
            ``x @ first``, shape (n_cells, hidden[0]).
        generator
            Draws the dropout; None evaluates: no dropout, running statistics.
        """
        import torch

        hidden = hidden + self.bias
        for depth in range(len(self.layers) + 1):
            if depth:
                hidden = torch.nn.functional.linear(hidden, *self.layers[depth - 1])
            if self.norms:
                hidden = self.norms[depth].apply(hidden, training=generator is not None)
            hidden = drop(torch.relu(hidden), self.dropout, generator)
        return {
            name: torch.nn.functional.linear(hidden, *head) for name, head in self.heads.items()
        }

    def calibrate(self, hidden: torch.Tensor) -> None:
        """Set the running statistics to those of all training cells with the final panel.

        In training they follow panels that noise still changes, through dropout.
        """
        import torch

        with torch.no_grad():
            hidden = hidden + self.bias
            for depth, norm in enumerate(self.norms):
                if depth:
                    hidden = torch.nn.functional.linear(hidden, *self.layers[depth - 1])
                norm.mean, norm.variance = hidden.mean(0), hidden.var(0, correction=0)
                hidden = torch.relu(norm.apply(hidden, training=False))

    def folded(self, genes: torch.Tensor) -> tuple[list[Layer], dict[str, Layer]]:
        """Hidden layers and heads for these genes alone, normalisation folded into the weights.

        Returns
        -------
        Pairs of weights (inputs x outputs) and biases, float64: the hidden layers in order, and
        the head of each task.
        """
        layers = [(to_numpy(self.first[genes]), to_numpy(self.bias))]
        layers += [(to_numpy(weight.T), to_numpy(bias)) for weight, bias in self.layers]
        if self.norms:
            layers = [norm.fold(layer) for norm, layer in zip(self.norms, layers, strict=True)]
        heads = {name: (to_numpy(w.T), to_numpy(b)) for name, (w, b) in self.heads.items()}
        return layers, heads


class _Norm:
    """Batch normalisation of one layer."""

    def __init__(self, width: int, device: torch.device) -> None:
        import torch

        self.weight = torch.ones(width, device=device, requires_grad=True)
        self.bias = torch.zeros(width, device=device, requires_grad=True)
        self.mean = torch.zeros(width, device=device)
        self.variance = torch.ones(width, device=device)

    def apply(self, values: torch.Tensor, *, training: bool) -> torch.Tensor:
        import torch

        return torch.nn.functional.batch_norm(
            values, self.mean, self.variance, self.weight, self.bias, training, _MOMENTUM, _EPSILON
        )

    def fold(self, layer: Layer) -> Layer:
        return fold_norm(
            layer,
            mean=to_numpy(self.mean),
            variance=to_numpy(self.variance),
            weight=to_numpy(self.weight),
            bias=to_numpy(self.bias),
            epsilon=_EPSILON,
        )
