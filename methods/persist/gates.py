"""Binary gates: one per gene, all open at first, closed by a penalty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .noise import Noise

if TYPE_CHECKING:
    import torch

INITIAL = 0.99
"""Probability that a gate is open before training."""
_STEEPNESS = 2.0
"""Logits are this multiple of the parameter, so that one learning rate serves both stages."""
_TOLERANCE = 0.01


class BinaryGates:
    """Relaxed Bernoulli gates, drawn anew for every cell (Covert et al. 2023, elimination).

    Parameters
    ----------
    n_genes
        Candidate genes.
    noise
        Source of the randomness.

    Attributes
    ----------
    theta
        The trained parameter, float32 of shape (n_genes,).
    """

    def __init__(self, n_genes: int, noise: Noise) -> None:
        import torch

        start = math.log(INITIAL / (1 - INITIAL)) / _STEEPNESS
        self.theta = torch.full((n_genes,), start, device=noise.device, requires_grad=True)
        self.noise = noise

    @property
    def probabilities(self) -> torch.Tensor:
        """Probability of each gate to be open, shape (n_genes,)."""
        return (_STEEPNESS * self.theta.detach()).sigmoid()

    @property
    def open(self) -> torch.Tensor:
        """Genes whose gate is more likely open than closed, int64, ascending."""
        return (self.theta.detach() > 0).nonzero()[:, 0]

    def sample(self, n_cells: int, temperature: float) -> torch.Tensor:
        """Masks of shape (n_cells, n_genes) in [0, 1]."""
        noise = self.noise.logistic(n_cells, len(self.theta))
        return ((_STEEPNESS * self.theta + noise) / temperature).sigmoid()

    def repair(self) -> int:
        """Do nothing: gates do not collide."""
        return 0

    def converged(self, n_cells: int, temperature: float) -> bool:
        """Whether every gate is open, or closed, in practically all of `n_cells` masks."""
        import torch

        with torch.no_grad():
            mean = self.sample(n_cells, temperature).mean(dim=0)
            return bool(mean.minimum(1 - mean).max() < _TOLERANCE)
