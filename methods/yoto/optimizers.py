"""Adam (Kingma and Ba 2015) for what a step touches: the weights of a panel, and the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class RowAdam:
    """AdamW for a few rows of a matrix at a time; the others keep their weights and moments."""

    def __init__(self, weights: torch.Tensor, lr: float, decay: float) -> None:
        import torch

        self.weights, self.lr, self.decay, self.steps = weights, lr, decay, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        """Update these rows with their gradient."""
        self.steps += 1
        mean = self.mean[rows].lerp_(gradient, 0.1)
        square = self.square[rows].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        self.mean[rows], self.square[rows] = mean, square
        scale = (square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        step = mean.div_(scale).mul_(self.lr / (1 - 0.9**self.steps))
        self.weights[rows] = self.weights[rows].mul_(1 - self.lr * self.decay).sub_(step)


class ScoreAdam:
    """Adam for the scores."""

    def __init__(self, scores: torch.Tensor, lr: float) -> None:
        import torch

        self.scores, self.lr, self.steps = scores, lr, 0
        self.mean, self.square = torch.zeros_like(scores), torch.zeros_like(scores)

    def step(self, gradient: torch.Tensor) -> None:
        """One step down the gradient."""
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.001)
        scale = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-12)
        self.scores.sub_(self.lr / (1 - 0.9**self.steps) * self.mean / scale)
