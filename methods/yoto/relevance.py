"""Where the scores start: the genes that together tell the classes apart, best first.

A gene alone says little about a panel: the best markers of one class are copies of each other,
and the class that is hard to tell gets none. Componentwise boosting (Buehlmann and Yu 2003,
"Boosting with the L2 loss") adds genes to a linear model of all classes, each time the one that
explains most of what is left, and takes over a small part of it only. So a class goes on being
explained by further genes until others are worse off, and noise is never fitted at once: with
few cells the order is close to one marker list per class, with many it leaves copies out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .data import Cells, Labels
from .encoding import Encoding
from .losses import present
from .markers import marker_places

if TYPE_CHECKING:
    import torch

_ROWS = 512
_SHRINK = 0.1  # part of what a gene explains that a round takes over
_RIDGE = 0.01  # added to the variances of a gene's steps, which are about 1
_ROUNDS = 2000


def relevances(
    cells: Cells, encoding: Encoding, count: int, used: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """How early a gene is of use, from 1 for the first to 0 for the last, by each order.

    The `count` genes that are best alone for one of the classes are ordered by boosting, those it
    does not take by what they are alone. A gene's relevance falls with the logarithm of its
    place. A gene that chance explains has relevance 0: what it does together with others is for
    the networks to find. Where given, only the cells that are `used` count, bool (n_cells,).

    Returns
    -------
    ``"boosting"``, and where there are classes ``"both"``: by the product of a gene's places in
    boosting and in the merged marker lists. Each float32, shape (n_candidates,).
    """
    import torch

    if used is None:
        used = torch.ones(cells.n_cells, dtype=torch.bool, device=cells.device)
    there = [present(labels, labels.values) & used for labels in cells.labels]
    targets = [_indicators(*pair) for pair in zip(cells.labels, there, strict=True)]
    alone = _alone(cells, encoding, torch.cat(targets, dim=1), used)
    order = alone.argsort(descending=True, stable=True)
    known = order[:count]
    known = known[alone[known] > 0]
    if not len(known):
        return {"boosting": torch.zeros(len(alone), device=cells.device)}
    first = boosted(cells, encoding, known, targets, there)
    taken = torch.zeros(len(known), dtype=torch.bool, device=cells.device)
    taken[first] = True
    best = torch.cat([known[first], known[~taken]])
    found = {"boosting": _falling(best, len(alone))}
    place = marker_places(cells, best, used)
    if place is not None:
        own = torch.arange(1, len(best) + 1, dtype=torch.float64, device=cells.device)
        together = (own.log() + place.log()).argsort(stable=True)
        found["both"] = _falling(best[together], len(alone))
    return found


def _falling(best: torch.Tensor, count: int) -> torch.Tensor:
    """Relevance of `count` genes of which these come first, the others having none."""
    import torch

    found = torch.zeros(count, dtype=torch.float64, device=best.device)
    place = torch.arange(1, len(best) + 1, dtype=torch.float64, device=best.device)
    found[best] = 1 - place.log() / math.log(max(2, count))
    return found.float()


def boosted(
    cells: Cells,
    encoding: Encoding,
    genes: torch.Tensor,
    targets: list[torch.Tensor],
    there: list[torch.Tensor],
) -> torch.Tensor:
    """Places in `genes`, int64, in the order in which boosting takes them.

    What it needs of the cells are sums of products, so a round costs the same for any number.
    """
    import torch

    steps, count = encoding.steps, len(genes)
    spread, covered = [], []
    for values, known in zip(targets, there, strict=True):
        gram, product = _products(cells, encoding, genes, values, known)
        n = max(1, int(known.sum()))
        size = values.square().sum(0).clamp(min=1e-12).sqrt()
        spread.append(gram / n)
        covered.append(product / (size * math.sqrt(n) * math.sqrt(values.shape[1])))
    blocks = [
        gram.view(count, steps, count, steps).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        for gram in spread
    ]
    ridge = _RIDGE * torch.eye(steps, dtype=torch.float64, device=genes.device)
    inverse = [torch.linalg.inv(block + ridge) for block in blocks]
    found: dict[int, None] = {}
    for _ in range(_ROUNDS):
        solved = [i @ p.view(count, steps, -1) for i, p in zip(inverse, covered, strict=True)]
        gain = sum(
            (s.flatten(1) * p.view(count, -1)).sum(1) for s, p in zip(solved, covered, strict=True)
        )
        gene = int(gain.argmax())
        found[gene] = None
        if len(found) == count // 2:
            break
        own = slice(gene * steps, (gene + 1) * steps)
        covered = [
            p - _SHRINK * gram[:, own] @ s[gene]
            for p, gram, s in zip(covered, spread, solved, strict=True)
        ]
    return torch.tensor(list(found), device=genes.device)


def _products(
    cells: Cells, encoding: Encoding, genes: torch.Tensor, values: torch.Tensor, there: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centred products of the genes' steps with each other and with the targets."""
    import torch

    columns = len(genes) * encoding.steps
    gram = torch.zeros(columns, columns, dtype=torch.float64, device=genes.device)
    product = torch.zeros(columns, values.shape[1], dtype=torch.float64, device=genes.device)
    total = torch.zeros(columns, dtype=torch.float64, device=genes.device)
    for start in range(0, cells.n_cells, _ROWS):
        rows = np.arange(start, min(start + _ROWS, cells.n_cells))
        seen = there[start : start + _ROWS]
        x = encoding(cells.batch(rows, genes), genes)[seen]
        gram += x.T @ x
        product += x.T @ values[start : start + _ROWS][seen]
        total += x.sum(0)
    return gram - torch.outer(total, total) / max(1, int(there.sum())), product


def _alone(
    cells: Cells, encoding: Encoding, outputs: torch.Tensor, used: torch.Tensor
) -> torch.Tensor:
    """How well a step of each gene tells one class from the rest, or follows a number.

    For every class of every task the genes are ranked by their best step's correlation with it
    (which ranks as its t statistic does). The result falls with the logarithm of a gene's best
    rank, from 1 for a first to 0 for a last, so that every class has genes of its own up front,
    however few cells it has; it is 0 for a gene that chance explains.
    """
    import torch

    every = torch.arange(len(cells.genes), device=cells.device)
    columns = len(every) * encoding.steps
    # Sums over the cells, a block at a time.
    products = torch.zeros(columns, outputs.shape[1], dtype=torch.float64, device=cells.device)
    total, squares = torch.zeros(2, columns, dtype=torch.float64, device=cells.device)
    for start in range(0, cells.n_cells, _ROWS):
        rows = np.arange(start, min(start + _ROWS, cells.n_cells))
        seen = used[start : start + _ROWS]
        x = encoding(cells.batch(rows, every), every)[seen]
        products += x.T @ outputs[start : start + _ROWS][seen]
        total += x.sum(0)
        squares += x.square().sum(0)
    n_cells = max(1, int(used.sum()))
    spread = (squares - total.square() / n_cells).clamp(min=1e-6).sqrt()
    size = outputs.square().sum(0).clamp(min=1e-12).sqrt()
    steps = (products / spread[:, None] / size).view(len(every), encoding.steps, -1)
    best = steps.amax(dim=1)
    rank = best.argsort(dim=0, descending=True, stable=True).argsort(dim=0) + 1
    found = 1 - rank.double().log() / math.log(max(2, len(every)))
    # The largest of so many correlations that mean nothing is about this.
    chance = math.sqrt(2 * math.log(max(2, len(every))) / n_cells)
    return torch.where(best > chance, found, 0.0).amax(dim=1)


def _indicators(labels: Labels, there: torch.Tensor) -> torch.Tensor:
    """Centred class indicators or values, 0 where there is none: (n_cells, n_outputs)."""
    import torch

    seen = there[:, None]
    if labels.target.kind == "classification":
        found = torch.nn.functional.one_hot(labels.values.clamp(min=0), labels.n_outputs).float()
        found = found[:, (found * seen).sum(0) > 0]
    else:  # a number may rise or fall with a gene
        found = torch.cat([labels.values, -labels.values], dim=1).nan_to_num()
    centre = (found * seen).sum(0) / seen.sum().clamp(min=1)
    return (found - centre) * seen
