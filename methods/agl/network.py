"""The regressor: a shared trunk, and one row of weights per gene on top of it.

The rows are nearly all of the work, at 20,000 genes. They are taken in blocks that fit the cache:
outputs, derivatives and the update of a block, before the next is touched (`pearson`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .optimizers import Moments, adam
from .pearson import Correlation, Targets

if TYPE_CHECKING:
    import torch

    from .images import Encoder

BLOCK = 256
"""Genes in a block."""
_NORM_EPS = 1e-5


def blocks(n: int) -> Iterator[slice]:
    """Slices that cover n rows."""
    for start in range(0, n, BLOCK):
        yield slice(start, min(start + BLOCK, n))


@dataclass(frozen=True)
class Batch:
    """Some cells: inputs of shape (n_cells, n_features), or pixels, and their targets."""

    inputs: torch.Tensor
    targets: Targets


class Network:
    """Trunk and rows, with Adam's state.

    The trunk is linear layers, each followed by layer normalisation (if wanted) and ReLU; batch
    normalisation would carry statistics from one batch into the unrolled steps of another.

    Parameters
    ----------
    widths
        Number of inputs, then units of each hidden layer; at least one of these, or an encoder.
    n_primary, n_auxiliary
        Rows; the primary genes come first.
    rng
        Draws trunk and primary rows; auxiliary rows come from generators of their own (one per
        `rng`), so that the former are the same however many auxiliaries there are.
    normalise
        Layer normalisation in the trunk.
    encoder
        Makes the trunk's inputs from patches, with parameters that are part of the trunk.
    dtype, device
        Of everything.

    Attributes
    ----------
    trunk
        Parameters of the encoder, if there is one, then weight (n_out, n_in), bias, gain and shift
        of each layer.
    weight
        Shape (n_genes, width).
    """

    def __init__(
        self,
        widths: Sequence[int],
        n_primary: int,
        n_auxiliary: int,
        rng: np.random.Generator,
        *,
        normalise: bool = True,
        encoder: Encoder | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        import torch

        if len(widths) < 2 and encoder is None:
            raise ValueError(
                "needs a hidden layer: without a shared one, auxiliary genes change nothing"
            )
        kind: dict[str, Any] = {"dtype": dtype or torch.float32, "device": device}

        def uniform(generator: np.random.Generator, *shape: int, fan_in: int) -> torch.Tensor:
            values = generator.uniform(-1, 1, size=shape) / math.sqrt(max(fan_in, 1))
            return torch.from_numpy(values).to(**kind)

        self.normalise, self.n_primary, self.encoder = normalise, n_primary, encoder
        self.trunk: list[torch.Tensor] = [] if encoder is None else encoder.parameters()
        self.n_encoding = len(self.trunk)
        for n_in, n_out in pairwise(widths):
            self.trunk += [uniform(rng, n_out, n_in, fan_in=n_in), uniform(rng, n_out, fan_in=n_in)]
            self.trunk += [torch.ones(n_out, **kind), torch.zeros(n_out, **kind)]
        width = widths[-1]
        primary = uniform(rng, n_primary, width, fan_in=width)
        auxiliary = uniform(rng.spawn(1)[0], n_auxiliary, width, fan_in=width)
        self.weight = torch.cat([primary, auxiliary])
        self.restart()

    def restart(self) -> None:
        """Forget Adam's state."""
        self.steps = 0
        self._trunk_state = [Moments(part) for part in self.trunk]
        self._state = Moments(self.weight)

    def copy(self) -> Network:
        """Return a network with the same parameters and a fresh optimiser."""
        twin = Network.__new__(Network)
        twin.normalise, twin.n_primary = self.normalise, self.n_primary
        twin.encoder, twin.n_encoding = self.encoder, self.n_encoding
        twin.trunk, twin.weight = [part.clone() for part in self.trunk], self.weight.clone()
        twin.restart()
        return twin

    def hidden(self, trunk: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Hidden features under given parameters, shape (n_cells, width)."""
        values, start = inputs, self.n_encoding
        if self.encoder is not None:
            values = self.encoder(trunk[:start], inputs)
        for i in range(start, len(trunk), 4):
            weight, bias, gain, shift = trunk[i : i + 4]
            values = values @ weight.T + bias
            if self.normalise:
                values = values - values.mean(dim=1, keepdim=True)
                spread = (values.square().mean(dim=1, keepdim=True) + _NORM_EPS).rsqrt()
                values = values * spread * gain + shift
            values = values.relu()
        return values

    def train(self, batch: Batch, w: torch.Tensor, lr: float) -> torch.Tensor:
        """Take one step of Adam on ``sum w (1 - r)``.

        Parameters
        ----------
        batch
            Cells; targets of all genes, or of the first ones only.
        w
            Weights of the first genes, shape (n_active,): later ones are left alone.
        lr
            Learning rate.

        Returns
        -------
        Losses of the active genes before the step, shape (n_active,).
        """
        import torch

        self.steps += 1
        leaves = [part.detach().requires_grad_() for part in self.trunk]
        features = self.hidden(leaves, batch.inputs)
        hidden = batch.targets.centre_features(features.detach().T)
        arriving = torch.zeros_like(hidden)
        losses = torch.empty_like(w)
        for part in blocks(len(w)):
            weight = self.weight[part]
            found = Correlation(weight, hidden, batch.targets.rows(part))
            outgoing = found.gradient(w[part])
            arriving.addmm_(weight.T, outgoing)
            adam(weight, outgoing @ hidden.T, self._state.rows(part), lr, self.steps)
            losses[part] = 1 - found.r
        arriving = batch.targets.centre_features(arriving).T
        gradients = torch.autograd.grad(features, leaves, arriving, allow_unused=True)
        for parameter, gradient, state in zip(
            self.trunk, gradients, self._trunk_state, strict=True
        ):
            if gradient is not None:
                adam(parameter, gradient, state, lr, self.steps)
        return losses

    def predict_primary(self, inputs: torch.Tensor) -> torch.Tensor:
        """Primary outputs without gain and offset, shape (n_cells, n_primary)."""
        import torch

        rows = self.weight[: self.n_primary].T
        parts = inputs.split(len(inputs) if self.encoder is None else BLOCK)
        return torch.cat([self.hidden(self.trunk, part) @ rows for part in parts])
