"""What the scores start from, settled on panels chosen without the cells that judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .asking import Deciding, HeldOut
from .fit import Fit, rates_of
from .relevance import relevances

if TYPE_CHECKING:
    import torch

    from .data import Cells
    from .encoding import Encoding
    from .options import Settings

Fitted = Callable[["torch.Tensor"], Fit]
"""What trains networks on the genes of a panel."""


@dataclass(frozen=True)
class Start:
    """Where the scores start.

    Attributes
    ----------
    name
        Order that was chosen, a key of `relevances`.
    relevance
        float32 (n_genes,): of all cells.
    nested
        Genes, best first, from the cells outside each fold.
    losses
        float64 (rates, n_cells): loss of each cell with the first k genes of the order that has
        not seen it, for each input dropout.
    judged
        Mean loss of each order at its best input dropout.
    """

    name: str
    relevance: torch.Tensor
    nested: Sequence[torch.Tensor]
    losses: torch.Tensor
    judged: dict[str, float]


def choose_start(
    cells: Cells,
    encoding: Encoding,
    fold: torch.Tensor,
    settings: Settings,
    fitted: Fitted,
    k: int,
    epochs: int,
) -> Deciding[Start]:
    """Boosting's order, or that with markers where it is better by `margin` standard errors.

    Every fold is predicted from a panel that was chosen without it, as test cells are.

    Parameters
    ----------
    fold
        Fold of each cell, int64 (n_cells,).
    fitted
        Trains networks on a panel.
    k
        Genes of the panel.
    epochs
        Passes over the cells of those networks.
    """
    count = start_size(settings, len(cells.genes), k)
    outside = [fold != number for number in fold.unique().tolist()]
    each_fold = [relevances(cells, encoding, count, seen) for seen in outside]
    final = relevances(cells, encoding, count)
    found: dict[str, Start] = {}
    for name in final:
        # A fold outside of which no gene says anything has no order but boosting's.
        nested = [best_first(orders.get(name, orders["boosting"])) for orders in each_fold]
        losses = yield from nested_losses(fitted, nested, outside, k, rates_of(settings), epochs)
        found[name] = Start(name, final[name], nested, losses, {})
    judged = {name: float(start.losses.mean(dim=1).min()) for name, start in found.items()}
    chosen = found["boosting"]
    for start in found.values():
        if worse(_best(chosen.losses) - _best(start.losses), settings.margin):
            chosen = start
    return Start(chosen.name, chosen.relevance, chosen.nested, chosen.losses, judged)


def start_size(settings: Settings, n_genes: int, k: int) -> int:
    """Genes that a search starts with."""
    return min(n_genes, max(settings.start, 4 * k))


def best_first(scores: torch.Tensor) -> torch.Tensor:
    """Genes by descending score, ties in their order."""
    return scores.sort(descending=True, stable=True).indices


def nested_losses(
    fitted: Fitted,
    nested: Sequence[torch.Tensor],
    outside: Sequence[torch.Tensor],
    size: int,
    rates: tuple[float, ...],
    epochs: int,
) -> Deciding[torch.Tensor]:
    """Loss of every cell with a panel and a network that have not seen it.

    Returns
    -------
    float64 (rates, n_cells).
    """
    import torch

    each = []
    for order, seen in zip(nested, outside, strict=True):
        each.append((yield HeldOut(fitted(order[:size]), seen[None], rates, epochs)))
    return torch.stack(each).sum(0)


def worse(difference: torch.Tensor, margin: float) -> bool:
    """Whether the mean of a difference between cells is more than so many standard errors."""
    error = float(difference.std(correction=0)) / len(difference) ** 0.5
    return float(difference.mean()) > margin * error


def _best(losses: torch.Tensor) -> torch.Tensor:
    return losses[int(losses.mean(dim=1).argmin())]
