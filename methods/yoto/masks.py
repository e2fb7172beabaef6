"""The k-hot masks of several models at once: `mask.TopK` with a leading dimension.

On a GPU the mask of one model is a few dozen launches of kernels that each have next to nothing to
do; for many models the launches are the same few dozen. Models may differ in their numbers of
genes, in k and in temperature: what one lacks is padded, and counts for nothing. Blocks of rows
have the columns that any of the models needs, so that a mask is never less exact than alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 25}
"""Entries of a block, about: on a CPU it should fit the cache, on a GPU leave room for copies."""
_WIDTH = 1024
"""Columns of a block, as a guess."""
_ABYSS = 1e9
"""Gap between the last gene of a model and what pads it."""


def check(k: int, size: int, tau: float) -> None:
    """Refuse an impossible size of a panel, or temperature."""
    if not 1 <= k <= size:
        raise ValueError(f"k must be between 1 and the number of genes ({size}), not {k}")
    if not tau > 0:
        raise ValueError(f"tau must be positive, not {tau}")


class TopKs:
    """Hard and soft masks of the k largest scores of M models.

    Parameters
    ----------
    scores
        Shape (M, n_genes); minus infinity where a model has fewer genes.
    sizes
        Genes of each model.
    ks, taus
        Size of the panel and temperature of each model.
    tolerance
        As of `mask.TopK`.

    Attributes
    ----------
    order
        int64, (M, at least `reach`): genes of each model by descending score.
    reach
        Number of leading ranks that have any part in the soft mask of any model.
    """

    def __init__(
        self,
        scores: torch.Tensor,
        sizes: Sequence[int],
        ks: Sequence[int],
        taus: Sequence[float],
        *,
        tolerance: float = 1e-7,
    ) -> None:
        import torch

        for k, size, tau in zip(ks, sizes, taus, strict=True):
            check(k, size, tau)
        self.n_genes, self.most = scores.shape[1], max(ks)
        deep = [tau * math.log(size / tolerance) for tau, size in zip(taus, sizes, strict=True)]
        # One copy to the device for all numbers of a step.
        numbers = torch.tensor([ks, sizes, taus, deep], dtype=torch.float64).to(scores.device)
        self.k, self._sizes, self.tau, self._depth = numbers.unsqueeze(-1)
        scores = scores.detach()
        length = min(self.n_genes, 2 * self.most + 256)
        while True:
            self._rank(scores, length)
            if length == self.n_genes:
                break
            if bool((self._fall(self.k - 1)[:, 0, -1:] > self._depth).all()):
                break
            length = min(self.n_genes, 4 * length)
        self._blocks = self._find_windows()
        self.reach = max(stop for *_, stop in self._blocks)

    def _rank(self, scores: torch.Tensor, length: int) -> None:
        import torch

        values, self.order = scores.topk(length, dim=1)
        values = values.double()
        self._ranks = torch.arange(length, dtype=torch.float64, device=scores.device)
        gaps = values[:, :-1] - values[:, 1:]
        gaps = torch.where(self._ranks[1:] < self._sizes, gaps, 0.0)
        gaps = torch.where(self._ranks[1:] == self._sizes, _ABYSS, gaps)
        zero = torch.zeros(len(scores), 1, dtype=torch.float64, device=scores.device)
        self._u = torch.cat([zero, gaps.cumsum(1)], dim=1)
        self._c = torch.cat([zero, ((1 + 2 * self._ranks[:-1]) * gaps).cumsum(1)], dim=1)

    def _fall(self, rows: torch.Tensor) -> torch.Tensor:
        """``tau (logit(m, m) - logit(m, r))`` for rows m (M, R) and all leading ranks r."""
        index = rows.long()
        u, c = self._u.gather(1, index).unsqueeze(-1), self._c.gather(1, index).unsqueeze(-1)
        return (self._c.unsqueeze(1) - c) - 2 * rows.unsqueeze(-1) * (self._u.unsqueeze(1) - u)

    def _find_windows(self) -> list[tuple[int, int, int, int]]:
        """Blocks of rows (first, last + 1), and columns (the same) that any model needs there."""
        import torch

        count, length = self.order.shape
        device = self._u.device
        per_model = _ELEMENTS.get(device.type, 1 << 25) // (count * min(length, _WIDTH))
        rows = max(16, min(self.most, per_model))
        first = torch.arange(0, self.most, rows, device=device, dtype=torch.float64)
        has = first < self.k  # a model with a small panel has no rows in later blocks
        last = torch.minimum(first + rows, self.k) - 1
        edges = torch.cat([first.expand_as(last), last], dim=1).minimum(self.k - 1)
        above, below = (self._fall(edges) <= self._depth.unsqueeze(-1)).chunk(2, dim=1)
        columns = torch.arange(length, device=device)
        start = torch.where(above & has.unsqueeze(-1), columns, length).amin(dim=(0, 2))
        stop = torch.where(below & has.unsqueeze(-1), columns, -1).amax(dim=(0, 2)) + 1
        windows = torch.stack([start, stop], dim=1).tolist()
        bounds = [(a, min(a + rows, self.most)) for a in range(0, self.most, rows)]
        return [(a, b, lo, hi) for (a, b), (lo, hi) in zip(bounds, windows, strict=True)]

    def _exponentials(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield rows, columns and ``exp(logit - peak)`` of each block, (M, rows, columns)."""
        import torch

        for a, b, lo, hi in self._blocks:
            rows, columns = slice(a, b), slice(lo, hi)
            slope = 2 * self._ranks[rows]
            peak = slope * self._u[:, rows] - self._c[:, rows]
            ones = torch.ones_like(peak)
            left = torch.stack([slope * ones, -ones, -peak], dim=2) / self.tau.unsqueeze(-1)
            u, c = self._u[:, columns], self._c[:, columns]
            logits = torch.bmm(left, torch.stack([u, c, torch.ones_like(u)], dim=1))
            # A row that a model does not have may be anything; it weighs nothing.
            yield rows, columns, logits.clamp_(max=0.0).exp_()

    def soft(self) -> torch.Tensor:
        """Soft masks: float64, shape (M, n_genes), in the order of the genes; each sums to k."""
        import torch

        by_rank = torch.zeros_like(self._u)
        for rows, columns, block in self._exponentials():
            scale = (self._ranks[rows] < self.k) / block.sum(dim=2)
            by_rank[:, columns] += torch.bmm(scale.unsqueeze(1), block).squeeze(1)
        return self._by_gene(by_rank)

    def gradient(self, upstream: torch.Tensor) -> torch.Tensor:
        """Gradient of a loss with respect to the scores, through the soft masks.

        Parameters
        ----------
        upstream
            Gradient with respect to the masks, (M, reach), of the genes ``order[:, :reach]``.

        Returns
        -------
        float64, shape (M, n_genes), in the order of the genes.
        """
        import torch

        upstream, n = upstream.double(), self.reach
        # Sums over rows m of D and of m D, with D the gradient with respect to the logits.
        both = torch.zeros(2, len(upstream), n, dtype=torch.float64, device=upstream.device)
        for rows, columns, block in self._exponentials():
            here = upstream[:, columns]
            total, dot = torch.bmm(block, torch.stack([torch.ones_like(here), here], dim=2)).unbind(
                2
            )
            m = self._ranks[rows]
            scale = (m < self.k) / total
            mean = dot / total
            each = torch.stack([scale, m * scale, mean * scale, m * mean * scale], dim=1)
            sums = torch.bmm(each, block)
            both[0][:, columns] += here * sums[:, 0] - sums[:, 2]
            both[1][:, columns] += here * sums[:, 1] - sums[:, 3]
        # A gap g_q enters u_r and c_r of every r > q; a score ends one gap and begins the next.
        after = both.flip(2).cumsum(2).flip(2)[:, :, 1:] / self.tau
        by_gap = 2 * after[1] - (1 + 2 * self._ranks[: n - 1]) * after[0]
        by_rank = torch.zeros(len(upstream), n, dtype=torch.float64, device=upstream.device)
        by_rank[:, :-1] += by_gap
        by_rank[:, 1:] -= by_gap
        return self._by_gene(by_rank)

    def _by_gene(self, by_rank: torch.Tensor) -> torch.Tensor:
        result = by_rank.new_zeros(len(by_rank), self.n_genes)
        return result.scatter_(1, self.order[:, : by_rank.shape[1]], by_rank)
