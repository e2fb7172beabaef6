"""The k-hot mask over genes: exact when read, relaxed when differentiated, never d x k.

NeuralSort relaxes the sorting of d scores z into a matrix whose row m is a softmax over genes
that peaks at the gene of rank m. The soft mask is the sum of its first k rows, the hard mask its
limit: 1 for the k largest scores. With genes in descending order of score, v_0 >= v_1 >= ..., and
gaps ``g_q = v_q - v_(q+1)``, the logits of row m (from 0) fall on both sides of r = m::

    logit(m, m) - logit(m, r) = [(c_r - c_m) - 2 m (u_r - u_m)] / tau
    u_r = sum of g_q over q < r,    c_r = sum of (1 + 2 q) g_q over q < r

so a row is a few entries around its peak; what is outside holds less than 1e-7 of it. A CPU goes
from row to row (`kernels`), a GPU takes blocks of rows, for several models at once (`masks`). All
of it is in float64: differences cancel digits, and the band is small.

Source: Grover et al. 2019 (NeuralSort); the straight-through k-hot mask is that of YOTO
(Chopard et al. 2026).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .masks import TopKs, check

if TYPE_CHECKING:
    import torch


class TopK:
    """Hard and soft mask of the k largest scores.

    Parameters
    ----------
    scores
        Shape (n_genes,), any float type; no gradient is recorded through it.
    k
        Number of genes, 1 to n_genes.
    tau
        Temperature of the relaxation, positive.
    tolerance
        Bound on what each row of the relaxed permutation may lose outside its window.

    Attributes
    ----------
    order
        int64, at least `reach` genes by descending score. The hard mask is 1 for the first `k`.
    reach
        Number of leading ranks that have any part in the soft mask: a gene of rank `reach` or
        more has soft mask 0 and gradient 0.
    """

    def __init__(
        self, scores: torch.Tensor, k: int, tau: float, *, tolerance: float = 1e-7
    ) -> None:
        n_genes = len(scores)
        self.k, self.tau, self.tolerance = k, tau, tolerance
        self._scores = scores.detach()
        self._several: TopKs | None = None
        if scores.device.type != "cpu":
            several = self._blocks()
            self.order, self.reach = several.order[0], several.reach
            return
        check(k, n_genes, tau)
        from . import kernels

        depth = tau * math.log(n_genes / tolerance)
        length = min(n_genes, 2 * k + 256)
        while True:  # a full sort is rarely needed: only ranks near the first k can matter
            values, self.order = self._scores.topk(length)
            self._values = values.numpy().astype(np.float64)
            self.reach = int(kernels.reach(self._values, k, depth))
            if self.reach < length or length == n_genes:
                break
            length = min(n_genes, 4 * length)

    def _blocks(self) -> TopKs:
        """The same as the mask of several models."""
        if self._several is None:
            size = [len(self._scores)]
            self._several = TopKs(
                self._scores[None], size, [self.k], [self.tau], tolerance=self.tolerance
            )
        return self._several

    def soft(self) -> torch.Tensor:
        """Soft mask: float64, shape (n_genes,), in the order of the genes; its sum is k."""
        return self._blocks().soft()[0]

    def gradient(self, upstream: torch.Tensor) -> torch.Tensor:
        """Gradient of a loss with respect to the scores, through the soft mask.

        Parameters
        ----------
        upstream
            Gradient with respect to the mask, shape (reach,), of the genes ``order[:reach]``.

        Returns
        -------
        float64, shape (n_genes,), in the order of the genes.
        """
        import torch

        upstream = upstream.double()
        if self._scores.device.type != "cpu":
            return self._blocks().gradient(upstream[None])[0]
        from . import kernels

        floor = self.tolerance / len(self._scores)
        by_rank = kernels.gradient(self._values, upstream.numpy(), self.k, self.tau, floor)
        result = torch.zeros(len(self._scores), dtype=torch.float64)
        return result.index_copy_(0, self.order[: self.reach], torch.from_numpy(by_rank))
