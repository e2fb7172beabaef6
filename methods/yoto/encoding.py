"""Expression as a few steps per gene: how far it has come between one level and the next.

Counts of single cells say little where a gene is zero or one, and much where it is many; on the
log scale the first step is the largest. A network must learn that for every gene from few cells;
a piecewise linear encoding (Gorishniy et al. 2022, "On embeddings for numerical features in
tabular deep learning") hands it over: one feature per interval between a gene's levels, 0 below,
1 above, linear inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from .data import Cells

_SAMPLE = 4096  # cells that are enough for the levels
_FLOOR = 0.05  # added to a feature's standard deviation, so that rare steps are not blown up


class Encoding:
    """Levels of the candidate genes.

    Parameters
    ----------
    cells
        Training cells.
    quantiles
        Levels above the smallest value, as quantiles of the values that exceed it.
    rng
        Draws the cells whose values give the levels, where there are many.

    Attributes
    ----------
    levels
        float32, genes x (steps + 1), not decreasing along a gene.
    slopes
        float32, genes x steps: one over the width of a step and over its feature's standard
        deviation; 0 for a step without width.
    """

    def __init__(
        self, cells: Cells, quantiles: tuple[float, ...], rng: np.random.Generator
    ) -> None:
        import torch

        n_genes = len(cells.genes)
        rows = np.arange(cells.n_cells)
        if cells.n_cells > _SAMPLE:
            rows = np.sort(rng.choice(cells.n_cells, _SAMPLE, replace=False))
        levels, slopes = [], []
        block = max(1, min(512, n_genes // 2))  # a sparse matrix is never made dense as a whole
        for start in range(0, n_genes, block):
            genes = torch.arange(start, min(start + block, n_genes), device=cells.device)
            x = cells.batch(rows, genes)
            found = _levels(x, quantiles)
            width = found[:, 1:] - found[:, :-1]
            steep = torch.where(width > 0, 1 / width.clamp(min=1e-6), 0.0)
            spread = _steps(x, found, steep).std(dim=0)
            levels.append(found)
            slopes.append(steep / (spread + _FLOOR))
        self.levels, self.slopes = torch.cat(levels), torch.cat(slopes)

    @property
    def steps(self) -> int:
        """Features per gene."""
        return int(self.slopes.shape[1])

    def __call__(self, x: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Features of some cells and candidates, (n_cells, genes * steps), a gene's together."""
        return _steps(x, self.levels[genes], self.slopes[genes]).flatten(1)

    def layer(self, genes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The encoding of these genes as a ReLU layer.

        Returns
        -------
        Weights (genes x 2 * genes * steps) and biases: a feature is the output of its unit in the
        first half less that of the unit in the second half.
        """
        slopes = self.slopes[genes].double().cpu().numpy()
        levels = self.levels[genes].double().cpu().numpy()
        weight = (np.eye(len(genes))[:, :, None] * slopes[None]).reshape(len(genes), -1)
        low, high = (-slopes * levels[:, :-1]).ravel(), (-slopes * levels[:, 1:]).ravel()
        return np.concatenate([weight, weight], axis=1), np.concatenate([low, high])


def _levels(x: torch.Tensor, quantiles: tuple[float, ...]) -> torch.Tensor:
    """The smallest value of each gene, and quantiles of those above it: genes x levels."""
    import torch

    ordered = x.T.contiguous().sort(dim=1).values
    low = ordered[:, :1]
    above = (ordered > low).sum(dim=1, keepdim=True)
    at = torch.tensor(quantiles, device=x.device)
    place = x.shape[0] - above + (at * (above - 1)).round().long()
    return torch.cat([low, ordered.gather(1, place.clamp(max=x.shape[0] - 1))], dim=1)


def encoded(x: torch.Tensor, levels: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Features of several runs, each with levels of its own.

    Parameters
    ----------
    x
        Expression, (R, n_cells, genes).
    levels, slopes
        Those of these genes, (R, genes, steps + 1) and (R, genes, steps).

    Returns
    -------
    Shape (R, n_cells, genes * steps), a gene's together.
    """
    return _steps(x, levels.unsqueeze(1), slopes.unsqueeze(1)).flatten(2)


def _steps(x: torch.Tensor, levels: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Shape (n_cells, genes, steps)."""
    low, high = levels[..., :-1], levels[..., 1:]
    return (x.unsqueeze(-1).minimum(high).maximum(low) - low) * slopes
