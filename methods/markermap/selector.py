"""Three ways to learn which genes the encoder sees, with one interface.

The encoder's first layer reads ``x~ = x P`` for a selection P that changes with every batch, but is
the same for all cells of it. So a selector hands out the product of P and the layer's weights: one
small product, and no selected copy of the cells. In training P is relaxed; `hard` gives the
panel's columns alone.

- `RunningLogits` (MarkerMap): a network turns each cell into logits; their running mean over
  batches, with noise, is the key of the relaxed top-k.
- `FreeLogits` (global Gumbel VAE): the logits are parameters.
- `Concrete` (concrete VAE): k independent softmax rows over the genes.

Sources: Gregory et al. 2024; Abid et al. 2019 for the concrete rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from panelbench.nn import drop

from .layers import block, initialise, linear
from .subset import gumbel, relaxed_topk

if TYPE_CHECKING:
    import torch

_DROPOUT = 0.5


class Selector(Protocol):
    """What the model asks of a selector."""

    width: int
    """Inputs of the encoder's first layer."""

    def parameters(self) -> list[torch.Tensor]:
        """What is trained."""
        ...

    def weight(
        self, first: torch.Tensor, x: torch.Tensor, tau: float, noise: torch.Generator
    ) -> torch.Tensor:
        """First layer with one draw of the relaxed selection, for a training batch.

        Parameters
        ----------
        first
            Weights of the first layer, shape (hidden, width).
        x
            The batch, shape (n_cells, n_genes).
        tau
            Temperature.
        noise
            Generator of the draw.

        Returns
        -------
        Shape (hidden, n_genes).
        """
        ...

    def hard(
        self, first: torch.Tensor, tau: float, noise: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The panel, and the first layer on it.

        Returns
        -------
        int64 of shape (k,), best gene first; weights of shape (hidden, k), no gradient recorded.
        """
        ...

    def scores(self) -> torch.Tensor:
        """One number per gene; higher is better."""
        ...


class RunningLogits:
    """Logits from the cells, averaged within a batch and over the batches so far.

    Parameters
    ----------
    n_genes, k, hidden
        Candidates, panel size and width of the network.
    beta
        Share of the old logits that a batch keeps.
    generator, device
        Source of the initial weights; where they live.
    """

    def __init__(
        self,
        n_genes: int,
        k: int,
        hidden: int,
        beta: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        import torch

        self.width, self.k, self.beta = n_genes, k, beta
        self.lower = block(n_genes, hidden)
        self.upper = torch.nn.Sequential(*block(hidden, hidden), torch.nn.LeakyReLU())
        self.out = linear(hidden, n_genes)
        for part in (self.lower, self.upper, self.out):
            initialise(part, generator)
            part.to(device)
        self.logits = torch.zeros(n_genes, device=device)

    def parameters(self) -> list[torch.Tensor]:
        return [p for part in (self.lower, self.upper, self.out) for p in part.parameters()]

    def update(self, x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        """Running logits after a batch; the gradient flows to what the batch brought."""
        hidden = self.upper(drop(self.lower(x), _DROPOUT, noise, "bernoulli"))
        # The last layer is linear: its mean over cells is its value at their mean.
        present: torch.Tensor = self.out(hidden.mean(0))
        logits = self.beta * self.logits + (1 - self.beta) * present
        self.logits = logits.detach()
        return logits

    def weight(
        self, first: torch.Tensor, x: torch.Tensor, tau: float, noise: torch.Generator
    ) -> torch.Tensor:
        keys = self.update(x, noise) + gumbel(self.logits.shape, noise)
        return first * relaxed_topk(keys, self.k, tau)

    def hard(
        self, first: torch.Tensor, tau: float, noise: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        genes = top(self.logits, self.k)
        return genes, first.detach()[:, genes]

    def scores(self) -> torch.Tensor:
        return self.logits


class FreeLogits:
    """One logit per gene, a parameter, drawn from N(0, 1)."""

    def __init__(
        self, n_genes: int, k: int, generator: torch.Generator, device: torch.device
    ) -> None:
        import torch

        self.width, self.k = n_genes, k
        self.logits = torch.randn(n_genes, generator=generator).to(device).requires_grad_()

    def parameters(self) -> list[torch.Tensor]:
        return [self.logits]

    def weight(
        self, first: torch.Tensor, x: torch.Tensor, tau: float, noise: torch.Generator
    ) -> torch.Tensor:
        keys = self.logits + gumbel(self.logits.shape, noise)
        return first * relaxed_topk(keys, self.k, tau)

    def hard(
        self, first: torch.Tensor, tau: float, noise: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        genes = top(self.logits.detach(), self.k)
        return genes, first.detach()[:, genes]

    def scores(self) -> torch.Tensor:
        return self.logits.detach()


class Concrete:
    """k rows of logits, drawn from N(0, 1); each row chooses one gene.

    Parameters
    ----------
    readout
        ``"argmax"``: the panel is what the rows have as their largest logit; rows that agree
        leave places, which the genes with the largest total weight over rows fill. ``"noisy"``:
        the genes with the largest total weight under fresh noise, in that order, whichever row
        chose them, which is what the MarkerMap benchmark did.
    """

    def __init__(
        self,
        n_genes: int,
        k: int,
        readout: Literal["argmax", "noisy"],
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        import torch

        self.width, self.k, self.readout = k, k, readout
        self.logits = torch.randn((k, n_genes), generator=generator).to(device).requires_grad_()
        self.last_totals: torch.Tensor | None = None

    def parameters(self) -> list[torch.Tensor]:
        return [self.logits]

    def weight(
        self, first: torch.Tensor, x: torch.Tensor, tau: float, noise: torch.Generator
    ) -> torch.Tensor:
        return first @ self._rows(tau, noise)

    def hard(
        self, first: torch.Tensor, tau: float, noise: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        with torch.no_grad():
            if self.readout == "noisy":
                self.last_totals = self._rows(tau, noise).sum(0)
                return top(self.last_totals, self.k), first.detach()
            chosen = torch.zeros_like(self.logits).scatter_(1, self.logits.argmax(1)[:, None], 1.0)
            genes = top(self.scores(), self.k)
            return genes, first.detach() @ chosen[:, genes]

    def _rows(self, tau: float, noise: torch.Generator) -> torch.Tensor:
        import torch

        return torch.softmax((self.logits + gumbel(self.logits.shape, noise)) / tau, dim=1)

    def scores(self) -> torch.Tensor:
        """Total weight over rows, and k more for a gene that some row has as its largest logit.

        With the noisy readout: the totals that gave the last panel.
        """
        import torch

        if self.readout == "noisy" and self.last_totals is not None:
            return self.last_totals
        logits = self.logits.detach()
        picked = torch.zeros_like(logits[0]).index_fill_(0, logits.argmax(1), float(self.k))
        return torch.softmax(logits, dim=1).sum(0) + picked


def top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k largest scores, descending; equal ones in the order of the genes."""
    return scores.sort(descending=True, stable=True).indices[:k]
