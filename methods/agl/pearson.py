"""One minus the Pearson correlation of each gene over a batch, and its derivatives.

The outputs are linear in the hidden features, ``prediction = weight @ hidden``, and correlation
does not see what is added to them. So the features are centred instead of the predictions, which
are far more, and the outputs have no intercept.

Matrices here are genes x cells: sums over cells run along memory. With p the centred predictions
of a gene, y its targets centred and of unit length, and s the length of p::

    r = p.y / s          d(1 - r)/dp = (r p / s - y) / s

Source of the loss: Shiku et al. 2026 (AAAI 40), equation 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EPS = 1e-8
"""Added to squared lengths of predictions: a constant prediction has loss 1, finite gradient."""
_CONSTANT = 1e-12
"""Variance, as a share of the largest square, below which it is rounding."""


def centre(
    values: torch.Tensor,
    members: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Take off each row's mean.

    Parameters
    ----------
    values
        Shape (n_rows, n_cells), finite everywhere.
    members
        Shape (n_groups, n_cells), 1 where a cell belongs to a group: means are those of the
        groups. None is one group.
    observed
        Shape (n_rows, n_cells), 1 where a value counts; the result is 0 elsewhere.
    """
    if observed is None and members is None:
        return values - values.mean(dim=1, keepdim=True)
    if members is None:
        assert observed is not None
        members = observed.new_ones(1, values.shape[1])
    if observed is None:
        means = (values @ members.T) / members.sum(dim=1).clamp_min(1)
        return values - means @ members
    counts = (observed @ members.T).clamp_min(1)
    means = ((values * observed) @ members.T) / counts
    return (values - means @ members) * observed


@dataclass(frozen=True)
class Targets:
    """Targets of a batch, ready to be correlated with.

    Attributes
    ----------
    values
        Shape (n_genes, n_cells): centred, of unit length, 0 where not observed; all 0 for a gene
        that is constant in the batch, which then has loss 1 and no gradient.
    members, observed
        As in `centre`.
    """

    values: torch.Tensor
    members: torch.Tensor | None = None
    observed: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        values: torch.Tensor,
        members: torch.Tensor | None = None,
        observed: torch.Tensor | None = None,
    ) -> Targets:
        """Standardise targets of shape (n_genes, n_cells).

        Raises
        ------
        ValueError
            When there are fewer than two cells: nothing varies.
        """
        import torch

        if values.shape[1] < 2:
            raise ValueError(f"a correlation needs two cells, found {values.shape[1]}")
        centred = centre(values, members, observed)
        squares = centred.square().sum(dim=1, keepdim=True)
        largest = (values if observed is None else values * observed).abs().amax(1, keepdim=True)
        varies = squares > _CONSTANT * values.shape[1] * largest.square()
        scale = torch.where(varies, squares.rsqrt(), 0)
        return cls(centred.mul_(scale), members, observed)

    def rows(self, part: slice) -> Targets:
        """Targets of some genes."""
        return Targets(
            self.values[part],
            self.members,
            None if self.observed is None else self.observed[part],
        )

    def centre_features(self, hidden: torch.Tensor) -> torch.Tensor:
        """Features of shape (width, n_cells), centred; its own adjoint."""
        return centre(hidden, self.members)

    def centre_predictions(self, predictions: torch.Tensor) -> torch.Tensor:
        """Predictions made from centred features: only missing cells leave anything to do."""
        if self.observed is None:
            return predictions
        return centre(predictions, self.members, self.observed)


class Correlation:
    """Correlations of some genes in a batch, with first derivatives and their tangents.

    Parameters
    ----------
    weight
        Shape (n_genes, width).
    hidden
        Shape (width, n_cells), centred.
    targets
        Of the same genes and cells.

    Attributes
    ----------
    r
        Shape (n_genes,).
    r_dot
        Its tangent, after `move`.
    """

    def __init__(self, weight: torch.Tensor, hidden: torch.Tensor, targets: Targets) -> None:
        self.weight, self.hidden, self.targets = weight, hidden, targets
        self._p = targets.centre_predictions(weight @ hidden)
        self._s = (self._p.square().sum(dim=1) + _EPS).sqrt()
        self.r = (self._p * targets.values).sum(dim=1) / self._s

    def gradient(self, w: torch.Tensor) -> torch.Tensor:
        """Gradient of ``sum w (1 - r)`` by the predictions, shape (n_genes, n_cells)."""
        import torch

        scale = w / self._s
        scaled = self._p * (scale * self.r / self._s).unsqueeze(1)
        return torch.addcmul(scaled, self.targets.values, scale.unsqueeze(1), value=-1)

    def move(self, weight_dot: torch.Tensor | None, hidden_dot: torch.Tensor) -> None:
        """Set the direction in which weights (None: not at all) and centred features move."""
        p_dot = self.weight @ hidden_dot
        if weight_dot is not None:
            p_dot = p_dot.addmm_(weight_dot, self.hidden)
        self._p_dot = self.targets.centre_predictions(p_dot)
        self._s_dot = (self._p * self._p_dot).sum(dim=1) / self._s
        along = (self._p_dot * self.targets.values).sum(dim=1)
        self.r_dot = (along - self.r * self._s_dot) / self._s

    def gradient_tangent(self, w: torch.Tensor, w_dot: torch.Tensor) -> torch.Tensor:
        """Tangent of `gradient` in the direction of `move` and of the weights `w`."""
        import torch

        scale = w / self._s
        scale_dot = (w_dot - scale * self._s_dot) / self._s
        slope = scale * self.r / self._s
        slope_dot = (scale_dot * self.r + scale * self.r_dot - slope * self._s_dot) / self._s
        result = self._p * slope_dot.unsqueeze(1)
        result.addcmul_(self._p_dot, slope.unsqueeze(1))
        return torch.addcmul(result, self.targets.values, scale_dot.unsqueeze(1), value=-1)


def pearson_losses(
    predictions: torch.Tensor,
    targets: torch.Tensor,
    observed: torch.Tensor | None = None,
    members: torch.Tensor | None = None,
) -> torch.Tensor:
    """One minus the correlation of each gene, differentiable by the predictions.

    Parameters
    ----------
    predictions, targets
        Shape (n_cells, n_genes).
    observed
        Shape (n_cells, n_genes), 1 where the target is known: a cell that lacks one output counts
        for the others. Targets must be finite elsewhere too.
    members
        As in `centre`.

    Returns
    -------
    Shape (n_genes,), between 0 and 2; 1 where either side is constant.
    """
    seen = None if observed is None else observed.T.to(targets.dtype)
    known = Targets.of(targets.T, members, seen)
    p = centre(predictions.T, members, seen)
    return 1 - (p * known.values).sum(dim=1) / (p.square().sum(dim=1) + _EPS).sqrt()
