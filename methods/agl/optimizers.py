"""Adam and plain descent in place, alone and with the tangent of every number carried along.

They work on parts of parameters, so that the rows of a large layer can be updated in blocks, each
while it is in the cache.

Source: Kingma & Ba 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Rule = Literal["adam", "sgd"]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class Moments:
    """State of Adam for one parameter, zero at the start."""

    def __init__(self, like: torch.Tensor) -> None:
        import torch

        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    def rows(self, part: slice) -> Moments:
        """State of some rows; changes to it change the whole."""
        view = Moments.__new__(Moments)
        view.mean, view.square = self.mean[part], self.square[part]
        return view


def adam(
    parameter: torch.Tensor, gradient: torch.Tensor, state: Moments, lr: float, step: int
) -> None:
    """Move a parameter in place; `step` counts from 1."""
    state.mean.lerp_(gradient, 1 - BETA1)
    state.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    scale = (state.square.sqrt()).mul_((1 - BETA2**step) ** -0.5).add_(EPS)
    parameter.addcdiv_(state.mean, scale, value=-lr / (1 - BETA1**step))


@dataclass
class Moving:
    """A parameter, the tangent of it, and what the update rule remembers of both."""

    value: torch.Tensor
    dot: torch.Tensor
    state: Moments
    state_dot: Moments

    @classmethod
    def at(cls, value: torch.Tensor) -> Moving:
        """A copy of a parameter that does not move yet."""
        import torch

        return cls(value.clone(), torch.zeros_like(value), Moments(value), Moments(value))

    def rows(self, part: slice) -> Moving:
        """Some rows; changes to them change the whole."""
        return Moving(
            self.value[part], self.dot[part], self.state.rows(part), self.state_dot.rows(part)
        )

    def update(
        self, gradient: torch.Tensor, gradient_dot: torch.Tensor, rule: Rule, lr: float, step: int
    ) -> None:
        """Take one step; `step` counts from 1."""
        if rule == "sgd":
            self.value.add_(gradient, alpha=-lr)
            self.dot.add_(gradient_dot, alpha=-lr)
            return
        state, dot = self.state, self.state_dot
        state.mean.lerp_(gradient, 1 - BETA1)
        dot.mean.lerp_(gradient_dot, 1 - BETA1)
        state.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        dot.square.mul_(BETA2).addcmul_(gradient, gradient_dot, value=2 * (1 - BETA2))
        root = state.square.sqrt()
        correction = (1 - BETA2**step) ** -0.5
        rate = lr / (1 - BETA1**step)
        # Where nothing has ever arrived the root has no slope, and nothing moves.
        root_dot = (dot.square / root).nan_to_num_(0.0, 0.0, 0.0).mul_(0.5 * correction)
        scale = root.mul_(correction).add_(EPS)
        direction = state.mean / scale
        self.value.add_(direction, alpha=-rate)
        change = dot.mean.addcmul(direction, root_dot, value=-1).div_(scale)
        self.dot.add_(change, alpha=-rate)


class SmallAdam:
    """Adam for a NumPy array: a cut, or one weight per gene."""

    def __init__(self, lr: float) -> None:
        self.lr, self.step = lr, 0
        self.mean: np.ndarray | float = 0.0
        self.square: np.ndarray | float = 0.0

    def change(self, gradient: np.ndarray) -> np.ndarray:
        """Return what to add to the parameter."""
        self.step += 1
        self.mean = BETA1 * self.mean + (1 - BETA1) * gradient
        self.square = BETA2 * self.square + (1 - BETA2) * np.square(gradient)
        scale = np.sqrt(self.square / (1 - BETA2**self.step)) + EPS
        return np.asarray(-self.lr * self.mean / (1 - BETA1**self.step) / scale)
