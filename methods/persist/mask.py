"""The mask of the selection: k rows, each settling on one gene.

A row holds a logit per gene. For every cell, each row draws a relaxed one-hot vector (softmax of
logits and Gumbel noise over the temperature), and the mask of a gene is the largest entry that
any row gave it. The work of a training step lies here: cells x rows x genes exponentials. They
are computed block by block in memory that is allocated once, and so is the gradient, which needs
no graph: only the largest entry of a gene passes it on, through the softmax of its row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .noise import Noise

if TYPE_CHECKING:
    import torch

_STEEPNESS = 3.0
_TOLERANCE = 0.01
_BLOCK = 1 << 17
"""Entries that are computed at a time on the CPU: what its cache holds."""


class BinaryMask:
    """Relaxed choice of one gene by each row, drawn anew for every cell (Covert et al. 2023).

    Parameters
    ----------
    n_rows
        Genes to select.
    n_genes
        Candidate genes.
    noise
        Source of the randomness.

    Attributes
    ----------
    theta
        The trained parameter, float32 of shape (n_rows, n_genes); 0 before training.
    """

    def __init__(self, n_rows: int, n_genes: int, noise: Noise) -> None:
        import torch

        self.theta = torch.zeros(n_rows, n_genes, device=noise.device, requires_grad=True)
        self.noise = noise
        self._entries = torch.empty(0, n_rows, n_genes, device=noise.device)
        small = torch.uint8 if n_rows <= 256 else torch.int16
        self._rows = torch.arange(n_rows, dtype=small, device=noise.device)[:, None]

    @property
    def logits(self) -> torch.Tensor:
        """Logits, shape (n_rows, n_genes)."""
        return _STEEPNESS * self.theta.detach()

    @property
    def genes(self) -> torch.Tensor:
        """The gene that each row prefers, int64 of shape (n_rows,); genes may repeat."""
        return self.theta.detach().argmax(dim=1)

    def sample(self, n_cells: int, temperature: float) -> torch.Tensor:
        """Masks of shape (n_cells, n_genes) in [0, 1].

        When the gradient of the masks arrives, that of `theta` is set, and the memory of the
        entries is free for the next call.
        """
        entries, values, winners = self._draw(n_cells, temperature, winners=True)

        def backward(upstream: torch.Tensor) -> None:
            ordered = upstream.device.type != "cpu"
            found = gradient(entries, winners, values * upstream, ordered=ordered)
            self.theta.grad = found.mul_(_STEEPNESS / temperature)

        mask = values.detach().requires_grad_()
        mask.register_hook(backward)  # type: ignore[no-untyped-call]
        return mask

    def rows(self, n_cells: int, temperature: float) -> torch.Tensor:
        """Draw the rows behind the masks of `n_cells` cells: (n_cells, n_rows, n_genes)."""
        return self._draw(n_cells, temperature)[0]

    def masks(self, n_cells: int, temperature: float) -> torch.Tensor:
        """Masks as `sample` gives them, without gradients."""
        return self._draw(n_cells, temperature)[1]

    def repair(self) -> int:
        """Draw anew each row whose gene a later row prefers too; return how many."""
        import torch

        genes = self.genes.tolist()
        clashing = [i for i, gene in enumerate(genes) if gene in genes[i + 1 :]]
        with torch.no_grad():
            for row in clashing:
                self.theta[row] = self.noise.normal(self.theta.shape[1])
        return len(clashing)

    def converged(self, n_cells: int, temperature: float) -> bool:
        """Whether practically all of `n_cells` masks hold the same n_rows genes."""
        mean = self.masks(n_cells, temperature).mean(dim=0)
        return bool(mean.topk(len(self.theta)).values[-1] > 1 - _TOLERANCE)

    def _draw(
        self, n_cells: int, temperature: float, *, winners: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Entries of all rows, the largest of each gene, and (if asked for) whose that is."""
        import torch

        n_rows, n_genes = self.theta.shape
        if len(self._entries) < n_cells:
            self._entries = self._entries.new_empty(n_cells, n_rows, n_genes)
        entries = self._entries[:n_cells]
        mask = entries.new_empty(n_cells, n_genes)
        winner = self._rows.new_empty(n_cells if winners else 0, n_genes)
        scaled = self.logits / temperature
        size = n_cells
        if entries.device.type == "cpu":
            size = max(1, _BLOCK // (n_rows * n_genes))
        with torch.no_grad():
            for start in range(0, n_cells, size):
                part = self.noise.log2_exponential_(entries[start : start + size])
                largest = mask[start : start + size]
                torch.add(scaled, part, alpha=-math.log(2) / temperature, out=part)
                torch.softmax(part, dim=-1, out=part)
                torch.amax(part, dim=1, out=largest)
                if winners:
                    wins = _equal(part, largest) * self._rows
                    torch.amax(wins, dim=1, out=winner[start : start + size])
        return entries, mask, winner


def _equal(part: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Which entries are the largest of their gene, as bytes."""
    import torch

    if part.device.type != "cpu":
        return (part == largest[:, None]).view(torch.uint8)
    # Five times as fast as torch here.
    found = np.equal(part.numpy(), largest.numpy()[:, None])
    return torch.from_numpy(found.view(np.uint8))


def gradient(
    entries: torch.Tensor, winners: torch.Tensor, weighted: torch.Tensor, *, ordered: bool = False
) -> torch.Tensor:
    """Gradient with respect to the scores within the softmax, summed over cells.

    Parameters
    ----------
    entries
        Rows of the relaxed choice, shape (n_cells, n_rows, n_genes).
    winners
        Row of the largest entry of each gene, shape (n_cells, n_genes).
    weighted
        Gradient of the mask times the mask, shape (n_cells, n_genes).
    ordered
        Add in a fixed order also on a GPU, where scattering does not; on the CPU that is slower.

    Returns
    -------
    Shape (n_rows, n_genes).
    """
    import torch

    n_rows, n_genes = entries.shape[1:]
    if ordered:
        rows = torch.arange(n_rows, device=winners.device)[:, None]
        spread = torch.where(winners[:, None] == rows, weighted[:, None], 0.0)
        direct, per_row = spread.sum(dim=0), spread.sum(dim=2)
    else:
        rows = winners.long()
        direct = weighted.new_zeros(n_rows, n_genes).scatter_add_(0, rows, weighted)
        per_row = weighted.new_zeros(len(weighted), n_rows).scatter_add_(1, rows, weighted)
    return direct - torch.einsum("bi,big->ig", per_row, entries)


def panel(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Distinct genes from the rows, best first.

    A gene that several rows prefer is kept for the row most certain of it. What is then missing
    is filled with the genes of the largest probability in any row.

    Parameters
    ----------
    logits
        Shape (n_rows, n_genes), n_rows <= n_genes.

    Returns
    -------
    Genes, int64 of shape (n_rows,): those of rows by the row's probability, descending, then those
    that fill up; the probability of each; and how many fill up.
    """
    from scipy.special import softmax

    probabilities = softmax(logits.astype(np.float64), axis=1)
    own = probabilities.max(axis=1)
    rows = np.argsort(-own, kind="stable")
    preferred = probabilities.argmax(axis=1)[rows]
    _, first = np.unique(preferred, return_index=True)
    first = np.sort(first)
    genes, scores = preferred[first], own[rows][first]
    anywhere = probabilities.max(axis=0)
    order = np.argsort(-anywhere, kind="stable")
    refill = order[~np.isin(order, genes)][: len(logits) - len(genes)]
    return np.r_[genes, refill], np.r_[scores, anywhere[refill]], len(refill)
