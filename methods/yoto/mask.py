"""The k-hot mask over genes: exact when read, relaxed when differentiated, never d x k.

NeuralSort relaxes the sorting of d scores z into a matrix whose row m is a softmax over genes
that peaks at the gene of rank m. The soft mask is the sum of its first k rows, the hard mask its
limit: 1 for the k largest scores. With genes in descending order of score, v_0 >= v_1 >= ..., and
gaps ``g_q = v_q - v_(q+1)``, the logits of row m (from 0) fall on both sides of r = m::

    logit(m, m) - logit(m, r) = [(c_r - c_m) - 2 m (u_r - u_m)] / tau
    u_r = sum of g_q over q < r,    c_r = sum of (1 + 2 q) g_q over q < r

so a row is a few entries around its peak, and neighbouring rows share them. The rows are taken in
blocks; the columns outside a block's window hold less than 1e-7 of each row. The logits of a block
have rank two, which makes the matrix and its gradient a few matrix products around one
exponential. All of it is in float64: the differences above cancel digits, the matrix is small.

Source: Grover et al. 2019 (NeuralSort); the straight-through k-hot mask is that of YOTO
(Chopard et al. 2026).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BLOCK_ROWS = {"cpu": 128, "cuda": 2048}  # on the CPU a block should fit the cache


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
        if not 1 <= k <= n_genes:
            raise ValueError(f"k must be between 1 and the number of genes ({n_genes}), not {k}")
        if not tau > 0:
            raise ValueError(f"tau must be positive, not {tau}")
        self.k, self.tau, self.n_genes = k, tau, n_genes
        depth = tau * math.log(n_genes / tolerance)
        scores = scores.detach()
        length = min(n_genes, 2 * k + 256)
        while True:  # a full sort is rarely needed: only ranks near the first k can matter
            self._rank(scores, length)
            if length == n_genes or float(self._fall(k - 1)[-1]) > depth:
                break
            length = min(n_genes, 4 * length)
        self._blocks = self._find_windows(depth)
        self.reach = max(stop for *_, stop in self._blocks)

    def _rank(self, scores: torch.Tensor, length: int) -> None:
        """Order the leading genes and sum their gaps."""
        import torch

        values, self.order = scores.topk(length)
        gaps = values[:-1].double() - values[1:].double()
        self._ranks = torch.arange(length, dtype=torch.float64, device=scores.device)
        zero = torch.zeros(1, dtype=torch.float64, device=scores.device)
        self._u = torch.cat([zero, gaps.cumsum(0)])
        self._c = torch.cat([zero, ((1 + 2 * self._ranks[:-1]) * gaps).cumsum(0)])

    def _fall(self, rows: int | torch.Tensor) -> torch.Tensor:
        """``tau (logit(m, m) - logit(m, r))`` for rows m (any shape) and all leading ranks r."""
        u, c = self._u[rows], self._c[rows]
        if isinstance(rows, int):
            return (self._c - c) - 2 * rows * (self._u - u)
        return (self._c - c.unsqueeze(-1)) - 2 * rows.unsqueeze(-1) * (self._u - u.unsqueeze(-1))

    def _find_windows(self, depth: float) -> list[tuple[int, int, int, int]]:
        """Blocks of rows (first, last + 1) and their columns (first, last + 1).

        Left of a block its first row is the one that falls slowest, right of it the last row.
        """
        import torch

        rows = _BLOCK_ROWS.get(self._u.device.type, 128)
        first = list(range(0, self.k, rows))
        last = [min(start + rows, self.k) - 1 for start in first]
        # Each side is monotone, so the window of an edge row is one interval around its peak.
        inside = self._fall(torch.tensor([first, last], device=self._u.device)) <= depth
        columns = self._ranks.long()
        start = torch.where(inside[0], columns, len(columns)).amin(dim=-1)
        stop = torch.where(inside[1], columns, -1).amax(dim=-1) + 1
        windows = torch.stack([start, stop], dim=1).tolist()
        return [(a, b + 1, lo, hi) for a, b, (lo, hi) in zip(first, last, windows, strict=True)]

    def _exponentials(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield rows, columns and ``exp(logit - peak)`` of each block."""
        import torch

        for a, b, lo, hi in self._blocks:
            rows, columns = slice(a, b), slice(lo, hi)
            slope = 2 * self._ranks[rows]
            peak = slope * self._u[rows] - self._c[rows]
            left = torch.stack([slope, -torch.ones_like(slope), -peak], dim=1) / self.tau
            u, c = self._u[columns], self._c[columns]
            yield rows, columns, (left @ torch.stack([u, c, torch.ones_like(u)])).exp_()

    def soft(self) -> torch.Tensor:
        """Soft mask: float64, shape (n_genes,), in the order of the genes; its sum is k."""
        import torch

        by_rank = torch.zeros_like(self._u)
        for _, columns, block in self._exponentials():
            by_rank[columns] += block.sum(dim=1).reciprocal() @ block
        return self._by_gene(by_rank)

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
        n = self.reach
        # Sums over rows m of D and of m D, with D the gradient with respect to the logits.
        plain, weighted = torch.zeros(2, n, dtype=torch.float64, device=upstream.device)
        for rows, columns, block in self._exponentials():
            here = upstream[columns]
            total, dot = (block @ torch.stack([torch.ones_like(here), here], dim=1)).T
            scale = total.reciprocal()
            m = self._ranks[rows]
            mean = dot * scale
            sums = torch.stack([scale, m * scale, mean * scale, m * mean * scale]) @ block
            plain[columns] += here * sums[0] - sums[2]
            weighted[columns] += here * sums[1] - sums[3]
        # A gap g_q enters u_r and c_r of every r > q; a score ends one gap and begins the next.
        after = torch.stack([plain, weighted]).flip(1).cumsum(1).flip(1)[:, 1:] / self.tau
        by_gap = 2 * after[1] - (1 + 2 * self._ranks[: n - 1]) * after[0]
        edge = torch.zeros(1, dtype=torch.float64, device=upstream.device)
        by_rank = torch.cat([by_gap, edge]) - torch.cat([edge, by_gap])
        return self._by_gene(by_rank)

    def _by_gene(self, by_rank: torch.Tensor) -> torch.Tensor:
        result = by_rank.new_zeros(self.n_genes)
        return result.index_copy_(0, self.order[: len(by_rank)], by_rank)
