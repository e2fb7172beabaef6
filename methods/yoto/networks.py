"""Several networks of one shape trained side by side: their weights lie in one array.

Batches, panels and steps are shared, so M networks cost one matrix product of M times the width
and little else. What differs is where they start, what dropout hides, and which cells count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from panelbench.nn import Layer, to_numpy

if TYPE_CHECKING:
    import torch

    from .model import Network

    Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]

_EPSILON = 1e-5  # added to the variance by batch normalisation
_MOMENTUM = 0.1


class Networks:
    """M encoders of linear, batch normalisation, ReLU and dropout layers, with linear heads.

    Parameters
    ----------
    count
        M, networks side by side.
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
    inputs
        Genes that a network sees at once, which scale the first layer's weights.

    Attributes
    ----------
    first
        Weights of the first layers, float32, genes x (M * hidden[0]).
    """

    def __init__(
        self,
        count: int,
        n_genes: int,
        hidden: Sequence[int],
        heads: Mapping[str, int],
        generator: torch.Generator,
        device: torch.device,
        *,
        batch_norm: bool = True,
        dropout: float = 0.0,
        inputs: int | None = None,
    ) -> None:
        import torch

        def uniform(*shape: int, fan_in: int) -> torch.Tensor:
            bound = 1 / math.sqrt(fan_in)
            values = (2 * torch.rand(*shape, generator=generator) - 1) * bound
            return values.to(device).requires_grad_()

        def layer(width: int, out: int) -> tuple[torch.Tensor, torch.Tensor]:
            return uniform(count, width, out, fan_in=width), uniform(count, 1, out, fan_in=width)

        self.count, self.hidden, self.dropout = count, tuple(hidden), dropout
        fan_in = inputs or n_genes
        self.first = uniform(n_genes, count * hidden[0], fan_in=fan_in).detach()
        self.bias = uniform(count * hidden[0], fan_in=fan_in)
        self.layers = [layer(width, out) for width, out in pairwise(hidden)]
        self.heads = {name: layer(hidden[-1], out) for name, out in heads.items()}
        self.norms = [_Norm(count * out, device) for out in hidden] if batch_norm else []

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Networks:
        """Networks of several runs side by side, without their first layers.

        Those read other genes in every run; here `first` is empty.
        """
        import torch

        one, count = networks[0], len(networks)

        def stacked(pick: Callable[[Network], torch.Tensor]) -> torch.Tensor:
            return torch.stack([pick(network).detach() for network in networks]).requires_grad_()

        def layer(pick: Callable[[Network], Pair]) -> Pair:
            weight = stacked(lambda n: pick(n)[0].T.contiguous())
            return weight, stacked(lambda n: pick(n)[1][None])

        made = cls.__new__(cls)
        made.count, made.dropout = count, one.dropout
        made.hidden = (one.first.shape[1], *(len(bias) for _, bias in one.layers))
        made.first = one.first.new_empty(0)
        made.bias = stacked(lambda n: n.bias).detach().view(-1).requires_grad_()
        made.layers = [layer(lambda n, d=d: n.layers[d]) for d in range(len(one.layers))]  # type: ignore[misc]
        made.heads = {name: layer(lambda n, name=name: n.heads[name]) for name in one.heads}  # type: ignore[misc]
        made.norms = [_Norm(count * out, one.first.device) for out in made.hidden if one.norms]
        return made

    def back_to(self, networks: Sequence[Network]) -> None:
        """Give the networks that `of` was made from what was learned."""
        import torch

        with torch.no_grad():
            for number, network in enumerate(networks):
                network.bias.copy_(self.bias.view(self.count, -1)[number])
                pairs = [*zip(network.layers, self.layers, strict=True)]
                pairs += [(network.heads[name], self.heads[name]) for name in self.heads]
                for (weight, bias), (weights, biases) in pairs:
                    weight.copy_(weights[number].T)
                    bias.copy_(biases[number, 0])
                for norm, norms in zip(network.norms, self.norms, strict=True):
                    for name in ("weight", "bias", "mean", "variance"):
                        values = getattr(norms, name).view(self.count, -1)[number]
                        getattr(norm, name).copy_(values)

    @classmethod
    def joined(cls, several: Sequence[Networks]) -> Networks:
        """All networks of several runs side by side, without their first layers, as `of`."""
        import torch

        def joint(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat([part.detach() for part in parts]).requires_grad_()

        def layer(pairs: Sequence[Pair]) -> Pair:
            return joint([weight for weight, _ in pairs]), joint([bias for _, bias in pairs])

        one, made = several[0], cls.__new__(cls)
        made.count = sum(networks.count for networks in several)
        made.hidden, made.dropout = one.hidden, one.dropout
        made.first = one.first.new_empty(0)
        made.bias = joint([n.bias for n in several])
        made.layers = [layer(pairs) for pairs in zip(*(n.layers for n in several), strict=True)]
        made.heads = {name: layer([n.heads[name] for n in several]) for name in one.heads}
        device = one.first.device
        made.norms = [_Norm(made.count * out, device) for out in made.hidden if one.norms]
        return made

    def parted_to(self, several: Sequence[Networks]) -> None:
        """Give the networks that were `joined` what was learned; statistics stay as they were."""
        import torch

        with torch.no_grad():
            for mine, *theirs in zip(
                self.parameters(), *(n.parameters() for n in several), strict=True
            ):
                parts = mine.split([len(part) for part in theirs])
                for part, values in zip(theirs, parts, strict=True):
                    part.copy_(values)

    def parameters(self) -> list[torch.Tensor]:
        """Everything that is trained through autograd: all but `first`."""
        found = [self.bias]
        for weight, bias in [*self.layers, *self.heads.values()]:
            found += [weight, bias]
        for norm in self.norms:
            found += [norm.weight, norm.bias]
        return found

    def forward(
        self,
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        kept: Sequence[torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Output of every head, shape (M, n_cells, n_outputs).

        Parameters
        ----------
        hidden
            ``x @ first``, shape (n_cells, M * hidden[0]).
        generator
            Draws the dropout; None evaluates: no dropout, running statistics.
        kept
            Dropout that was drawn before, for training without a generator: what the units of
            each layer are multiplied with, (n_cells, M * width), or nothing where none is dropped.
        """
        import torch

        hidden = hidden + self.bias
        training = generator is not None or kept is not None
        for depth in range(len(self.hidden)):
            if depth:
                weight, bias = self.layers[depth - 1]
                hidden = self._flat(torch.baddbmm(bias, self._stack(hidden), weight))
            if self.norms:
                hidden = self.norms[depth].apply(hidden, training=training)
            hidden = drop(torch.relu(hidden), self.dropout, generator)
            if kept:
                hidden = hidden * kept[depth]
        stack = self._stack(hidden)
        return {
            name: torch.baddbmm(bias, stack, weight) for name, (weight, bias) in self.heads.items()
        }

    def _stack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n_cells, M * width) as (M, n_cells, width)."""
        return hidden.view(len(hidden), self.count, -1).transpose(0, 1)

    def _flat(self, stack: torch.Tensor) -> torch.Tensor:
        return stack.transpose(0, 1).reshape(stack.shape[1], -1)

    def calibrate(self, hidden: torch.Tensor) -> None:
        """Set the running statistics to those of all training cells with the final panel."""
        import torch

        with torch.no_grad():
            hidden = hidden + self.bias
            for depth, norm in enumerate(self.norms):
                if depth:
                    weight, bias = self.layers[depth - 1]
                    hidden = self._flat(torch.baddbmm(bias, self._stack(hidden), weight))
                norm.mean, norm.variance = hidden.mean(0), hidden.var(0, correction=0)
                hidden = torch.relu(norm.apply(hidden, training=False))

    def folded(self) -> tuple[list[Layer], dict[str, Layer]]:
        """Hidden layers and heads, normalisation folded into the weights.

        Returns
        -------
        Pairs of weights (M x inputs x outputs) and biases (M x 1 x outputs), float64: the hidden
        layers in order, and the head of each task.
        """
        layers = [(self._apart(self.first), self._apart(self.bias[None]))]
        layers += [(to_numpy(weight), to_numpy(bias)) for weight, bias in self.layers]
        for depth, norm in enumerate(self.norms):
            gain = to_numpy(norm.weight) / np.sqrt(to_numpy(norm.variance) + _EPSILON)
            gain = gain.reshape(self.count, 1, -1)
            shift = self._apart(norm.bias[None]) - gain * self._apart(norm.mean[None])
            weight, bias = layers[depth]
            layers[depth] = (weight * gain, bias * gain + shift)
        heads = {
            name: (to_numpy(weight), to_numpy(bias)) for name, (weight, bias) in self.heads.items()
        }
        return layers, heads

    def _apart(self, values: torch.Tensor) -> np.ndarray:
        """(rows, M * width) as (M, rows, width), float64."""
        return to_numpy(self._stack(values))


class _Norm:
    """Batch normalisation of one layer of all networks."""

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


def drop(
    values: torch.Tensor, probability: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Dropout, its probability rounded to 1/256: one drawn byte decides about one value.

    Drawing a float per value would cost more than the layer itself.
    """
    if generator is None or round(256 * probability) == 0:
        return values
    return values * kept_units(random_bytes(values.shape, generator), probability)


def kept_units(drawn: torch.Tensor, probability: float) -> torch.Tensor:
    """What the units are multiplied with for which these bytes were drawn: 0, or more than 1."""
    limit = round(256 * probability)
    return (drawn >= limit) * (256 / (256 - limit))


def random_bytes(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Bytes, each value equally likely: uint8 of this shape, on the generator's device."""
    import torch

    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=generator.device)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.uint8)
    return drawn[:count].view(*shape)
