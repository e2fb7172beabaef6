"""The network behind the selection: an encoder, then a decoder, a classifier or both.

    encoder     d (or k) -> h -> h -> h, then the mean and log-variance of z latent variables
    decoder     z -> h -> d, twice: mean and log-variance of every gene
    classifier  z -> h -> classes, from the latent mean

The loss is ``a L_rec + (1 - a) L_cls``: the negative log-likelihood of all genes, a sum over genes,
with a weighted Kullback-Leibler term; and cross-entropy. What a loss does not need is not built.

Source: Gregory et al. 2024, as its published code has it (their text differs in places: three
encoder layers, a Gaussian likelihood with learned variances, a weight of 0.1 on the KL term).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .layers import block, initialise, linear
from .selector import Selector

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes
    ----------
    tradeoff
        a: weight of the reconstruction, in [0, 1]; the classification weighs 1 - a.
    kl_weight
        Weight of the Kullback-Leibler term in L_rec.
    per_gene
        Divide L_rec by the number of genes, which brings it to the size of L_cls.
    variance_limit
        Bound on the magnitude of a gene's log-variance, or None.
    """

    tradeoff: float
    kl_weight: float
    per_gene: bool
    variance_limit: float | None


class Model:
    """A selector and the networks that train it.

    Parameters
    ----------
    selector
        Chooses what the encoder sees.
    n_genes, hidden, latent
        Sizes d, h, z.
    n_classes
        Classes; not used without a classifier.
    objective
        The loss; decides what is built.
    generator, device
        Source of the initial weights; where they live.
    """

    def __init__(
        self,
        selector: Selector,
        n_genes: int,
        hidden: int,
        latent: int,
        n_classes: int,
        objective: Objective,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        import torch

        def head(n_out: int) -> torch.nn.Sequential:
            return torch.nn.Sequential(block(latent, hidden), linear(hidden, n_out))

        self.selector, self.objective = selector, objective
        self.classifies, self.reconstructs = objective.tradeoff < 1, objective.tradeoff > 0
        self.first = linear(selector.width, hidden)
        layers: dict[str, torch.nn.Module] = {
            "first": self.first,
            "encoder": torch.nn.Sequential(
                torch.nn.BatchNorm1d(hidden),
                torch.nn.LeakyReLU(),
                block(hidden, hidden),
                block(hidden, hidden, norm=False),
            ),
            "mean": linear(hidden, latent),
        }
        if self.classifies:
            layers["classifier"] = head(n_classes)
        if self.reconstructs:
            layers["log_variance"] = linear(hidden, latent)
            layers["decoder"] = head(n_genes)
            layers["decoder_log_variance"] = head(n_genes)
        self.layers = torch.nn.ModuleDict(layers)
        initialise(self.layers, generator)
        self.layers.to(device)

    def parameters(self) -> list[torch.Tensor]:
        """Everything that is trained."""
        return [*self.selector.parameters(), *self.layers.parameters()]

    def training_loss(
        self, x: torch.Tensor, y: torch.Tensor | None, tau: float, noise: torch.Generator
    ) -> torch.Tensor:
        """Loss of a batch under one draw of the relaxed selection; updates running statistics.

        Parameters
        ----------
        x
            Shape (n_cells, n_genes), at least two cells.
        y
            Class codes, or None without a classifier.
        tau
            Temperature.
        noise
            Generator of all noise.
        """
        import torch

        weight = self.selector.weight(self.first.weight, x, tau, noise)
        return self.loss(torch.nn.functional.linear(x, weight, self.first.bias), x, y, noise)

    def loss(
        self,
        hidden: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor | None,
        noise: torch.Generator | None,
    ) -> torch.Tensor:
        """Mean loss per cell.

        Parameters
        ----------
        hidden
            Output of the encoder's first linear layer.
        x, y
            All genes of the cells, and their classes.
        noise
            Draws the latent variables; None takes their mean.
        """
        import torch

        hidden = self.layers["encoder"](hidden)
        mean: torch.Tensor = self.layers["mean"](hidden)
        loss = mean.new_zeros(())
        if self.classifies:
            assert y is not None
            share = 1 - self.objective.tradeoff
            logits = self.layers["classifier"](mean)
            loss = loss + share * torch.nn.functional.cross_entropy(logits, y)
        if self.reconstructs:
            log_variance = self.layers["log_variance"](hidden)
            drawn = mean if noise is None else draw(mean, log_variance, noise)
            loss = loss + self.objective.tradeoff * reconstruction_loss(
                x,
                self.layers["decoder"](drawn),
                self.layers["decoder_log_variance"](drawn),
                mean,
                log_variance,
                self.objective,
            )
        return loss

    def panel_loss(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        genes: torch.Tensor,
        weight: torch.Tensor,
        noise: torch.Generator | None,
    ) -> torch.Tensor:
        """Loss of cells seen through the panel alone, in evaluation mode; changes nothing.

        `genes` and `weight` are what `Selector.hard` returned.
        """
        import torch

        self.layers.eval()
        try:
            with torch.no_grad():
                hidden = torch.nn.functional.linear(x[:, genes], weight, self.first.bias)
                return self.loss(hidden, x, y, noise)
        finally:
            self.layers.train()


def draw(
    mean: torch.Tensor, log_variance: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Sample of the latent variables, one per cell."""
    import torch

    normal = torch.empty_like(mean).normal_(generator=generator)
    return mean + (0.5 * log_variance).exp() * normal


def reconstruction_loss(
    x: torch.Tensor,
    expected: torch.Tensor,
    spread: torch.Tensor,
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    objective: Objective,
) -> torch.Tensor:
    """Negative log-likelihood of all genes, with the KL term; a sum over genes, a mean over cells.

    Parameters
    ----------
    x, expected, spread
        Expression, its expectation and the log of its variance, shape (n_cells, n_genes).
    mean, log_variance
        Of the latent variables, shape (n_cells, latent).
    objective
        Weight of the KL term, bound on `spread`, and whether to divide by the number of genes.
    """
    if objective.variance_limit is not None:
        spread = spread.clamp(-objective.variance_limit, objective.variance_limit)
    squares = (x - expected).square() * (-spread).exp()
    likelihood = 0.5 * (x.numel() * math.log(2 * math.pi) + (spread + squares).sum())
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    loss = (likelihood + objective.kl_weight * divergence) / len(x)
    return loss / x.shape[1] if objective.per_gene else loss
