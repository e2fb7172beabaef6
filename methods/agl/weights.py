"""How much each gene's loss counts: the training strategies.

A strategy gives weights to the auxiliary genes; primary genes have weight 1, except under
uncertainty weighting, which weighs all genes. What a strategy learns it learns either from the
validation loss (`step`) or from the training losses (`observe`).

Sources: the learned cut, Shiku et al. 2026 (AAAI 40); one free weight per gene, after
Sivasubramanian et al. 2023 (there per cell); uncertainty weighting, Kendall et al. 2018.
"""

from __future__ import annotations

import numpy as np

from .mask import mask_slope, positions, soft_mask, usable_tau
from .optimizers import SmallAdam


class Weights:
    """Fixed weights of 1 for all genes that are trained on.

    Attributes
    ----------
    learns
        Whether the validation loss teaches it.
    watches
        Whether the training losses do.
    """

    learns = watches = False

    def __init__(self, n_primary: int, n_auxiliary: int) -> None:
        self.n_primary, self.n_auxiliary = n_primary, n_auxiliary

    def mask(self) -> np.ndarray:
        """Weights of the auxiliary genes: float64, shape (n_auxiliary,)."""
        return np.ones(self.n_auxiliary)

    def all(self) -> np.ndarray:
        """Weights of all genes, primary first."""
        return np.concatenate([np.ones(self.n_primary), self.mask()])

    def observe(self, losses: np.ndarray) -> None:
        """Take the losses of a training step."""


class LearnedCut(Weights):
    """The soft top-k mask, with its cut as the one thing learned.

    Attributes
    ----------
    cut
        In [0, 1]: it is clamped after every step, since there is no gradient far outside.
    at_bound
        Passes in a row after which the cut stood at 0 or 1.
    """

    learns = True

    def __init__(
        self, n_primary: int, n_auxiliary: int, *, start: float, tau: float, lr: float
    ) -> None:
        super().__init__(n_primary, n_auxiliary)
        self.tau, self.cut, self.at_bound = usable_tau(tau, n_auxiliary), start, 0
        self._adam = SmallAdam(lr)

    def mask(self) -> np.ndarray:
        """Soft mask in the order of the genes."""
        return soft_mask(self.cut, self.n_auxiliary, self.tau)

    def slope(self) -> np.ndarray:
        """Derivative of `mask` by the cut."""
        return mask_slope(self.mask(), self.tau)

    def window(self) -> slice:
        """Auxiliary genes whose mask can change noticeably; never empty."""
        reach = 14 * self.tau
        inside = np.flatnonzero(np.abs(positions(self.n_auxiliary) - self.cut) <= reach)
        return slice(int(inside[0]), int(inside[-1]) + 1)

    def step(self, gradient: float) -> None:
        """Move the cut against the derivative of the validation loss."""
        moved = self.cut + float(self._adam.change(np.asarray(gradient)))
        self.cut = min(max(moved, 0.0), 1.0)

    def end_pass(self) -> bool:
        """Count passes at a bound; True when it has stood there for more than one."""
        self.at_bound = self.at_bound + 1 if self.cut in (0.0, 1.0) else 0
        return self.at_bound > 1


class FreeWeights(Weights):
    """One learned weight per auxiliary gene: ``sigmoid(logit / tau)``, a half at the start."""

    learns = True

    def __init__(self, n_primary: int, n_auxiliary: int, *, tau: float, lr: float) -> None:
        super().__init__(n_primary, n_auxiliary)
        self.tau, self.logits = tau, np.zeros(n_auxiliary)
        self._adam = SmallAdam(lr)

    def mask(self) -> np.ndarray:
        """Weights in the order of the genes."""
        from scipy.special import expit

        return np.asarray(expit(self.logits / self.tau))

    def step(self, alignments: np.ndarray) -> None:
        """Move each logit along the alignment of its gene with the validation loss."""
        self.logits += self._adam.change(-mask_slope(self.mask(), self.tau) * alignments)


class Uncertainty(Weights):
    """Weights ``exp(-s)`` with the sum of ``exp(-s) loss + s`` minimised by s, 0 at the start."""

    watches = True

    def __init__(self, n_primary: int, n_auxiliary: int, *, lr: float) -> None:
        super().__init__(n_primary, n_auxiliary)
        self.log_variances = np.zeros(n_primary + n_auxiliary)
        self._adam = SmallAdam(lr)

    def mask(self) -> np.ndarray:
        """Weights of the auxiliary genes, relative to the mean of the primary ones."""
        weights = self.all()
        return np.asarray(weights[self.n_primary :] / weights[: self.n_primary].mean())

    def all(self) -> np.ndarray:
        """Weights of all genes, primary first."""
        return np.exp(-self.log_variances)

    def observe(self, losses: np.ndarray) -> None:
        """Take one step on s."""
        self.log_variances += self._adam.change(1 - self.all() * losses)
