"""One vector of scores, learned from cells that the networks which judge them have not seen.

Selecting on the cells that a network is trained on rewards genes that it has memorised, the
collapse that first-order bi-level selection knows (DARTS, Liu et al. 2019; Zela et al. 2020).
Here the cells are cut into folds, as in cross-fitting (Chernozhukov et al. 2018): there is a
network per fold, trained on all others, and the one vector of scores takes from each network the
gradient on the fold it has not seen. Every cell trains and every cell judges, and what one
network has learned from noise the others do not confirm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator

from .data import Cells, Labels
from .encoding import Encoding
from .losses import per_cell, present
from .mask import TopK
from .networks import Networks
from .optimizers import RowAdam, ScoreAdam
from .options import Settings
from .start import start_size
from .training import panel_size, temperature

if TYPE_CHECKING:
    import torch

_SHARE = 0.6  # of the time that the search takes, for the progress told


class Search:
    """Scores and the networks of the folds; each step draws a panel and updates both once."""

    def __init__(
        self,
        task: Task,
        cells: Cells,
        encoding: Encoding,
        fold: torch.Tensor,
        relevance: torch.Tensor,
        settings: Settings,
    ) -> None:
        import torch

        self.task, self.cells, self.settings = task, cells, settings
        self.device = cells.device
        self.n_genes = len(cells.genes)
        self.k = min(task.k, self.n_genes)
        setup = generator(task, "yoto weights")
        self.noise = generator(task, "yoto noise", self.device)
        self.shuffle = task.rng("yoto batches")
        self.scores = (0.01 * torch.randn(self.n_genes, generator=setup)).to(self.device)
        self.fold, self.count = fold, int(fold.max()) + 1
        self.start = start_size(settings, self.n_genes, self.k)
        self.encoding, self.relevance = encoding, relevance
        self.scores += settings.prior * relevance
        self.network = Networks(
            self.count,
            self.n_genes * self.encoding.steps,
            settings.search_hidden,
            {labels.target.name: labels.n_outputs for labels in cells.labels},
            setup,
            self.device,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
            inputs=self.start * self.encoding.steps,
        )
        self.class_weights = [
            labels.class_weights(settings.class_balance) for labels in cells.labels
        ]
        self.counts = [self._counts(labels) for labels in cells.labels]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.first = self.network.first.view(self.n_genes, self.encoding.steps, -1)
        self.rows = RowAdam(self.first, settings.lr, settings.weight_decay)
        self.ascent = ScoreAdam(self.scores, settings.lr_scores)

    def _counts(self, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
        """Which cells train each network and which judge it, bool (M, n_cells).

        A cell of a class that its network has never seen judges nothing.
        """
        import torch

        there = present(labels, labels.values)
        own = self.fold == torch.arange(self.count, device=self.device)[:, None]
        train, judge = there & ~own, there & own
        if labels.target.kind == "classification":
            for number in range(self.count):
                sizes = labels.values[train[number]].bincount(minlength=labels.n_outputs)
                judge[number] &= sizes[labels.values.clamp(min=0)] > 0
        if not self.settings.held_out:
            return train, train
        return train, judge

    def run(self, epochs: int) -> dict[str, list[float]]:
        """Train; returns the curves."""
        import torch

        s, n_cells = self.settings, self.cells.n_cells
        n_batches = max(1, round(n_cells / s.batch_size))
        last = max(1, epochs * n_batches - 1)
        names = [labels.target.name for labels in self.cells.labels]
        curves = new_curves(names)
        panel: set[int] = set()
        average, summed = torch.zeros_like(self.scores), 0
        for epoch in range(epochs):
            batches = np.array_split(self.shuffle.permutation(n_cells), n_batches)
            total = torch.zeros(2, len(names), device=self.device)
            for number, batch in enumerate(batches):
                fraction = (epoch * n_batches + number) / last
                k = panel_size(fraction, self.start, self.k, s.anneal)
                tau = temperature(fraction, s.tau_start, s.tau_end)
                total += self.step(batch, k, tau)
                if fraction > s.anneal:
                    average += self.scores
                    summed += 1
            before, panel = panel, set(self.scores.topk(self.k).indices.tolist())
            turnover = 1 - len(panel & before) / self.k
            losses = (total / n_batches).tolist()
            add_epoch(curves, losses, k, tau, turnover)
            self.tell((epoch + 1) / epochs, f"loss {np.mean(losses[0]):.3f}, k {k}, tau {tau:.3g}")
        if summed:
            self.scores = average / summed
        return curves

    def tell(self, fraction: float, message: str) -> None:
        """Tell how much of the search is done."""
        self.task.progress(_SHARE * fraction, message)

    def step(self, batch: np.ndarray, k: int, tau: float) -> torch.Tensor:
        """Draw a panel of k genes, train scores and networks on it, return both losses per task."""
        import torch

        gumbel = -torch.empty_like(self.scores).exponential_(generator=self.noise).log_()
        top = TopK(self.scores + self.settings.beta * gumbel, k, tau)
        genes = top.order[: top.reach]
        x = self.encoding(self.cells.batch(batch, genes), genes)
        weights = self.first[genes]
        hidden = self.first_layer(x, weights, k).requires_grad_()
        losses = self.losses(hidden, torch.from_numpy(batch).to(self.device))
        train, judge = losses[0].mean() * self.count, losses[1].mean()
        for parameter in self.network.parameters():
            parameter.grad = None
        (delta,) = torch.autograd.grad(judge, hidden, retain_graph=True)
        train.backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        gradient = ((x.T @ delta).view_as(weights) * weights).sum(dim=(1, 2))
        self.ascent.step(top.gradient(gradient).float())
        seen = x[:, : k * self.encoding.steps]
        self.rows.step(genes[:k], (seen.T @ hidden.grad).view(k, *weights.shape[1:]))
        self.optimizer.step()
        return losses.detach()

    def first_layer(self, x: torch.Tensor, weights: torch.Tensor, k: int) -> torch.Tensor:
        """Output of the first layers; of the genes within reach they see the first k."""
        return x[:, : k * self.encoding.steps] @ weights[:k].flatten(0, 1)

    def losses(self, hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Loss per task on the cells that train a network and on those that judge it, (2, T)."""
        import torch

        outputs = self.network.forward(hidden, self.noise)
        found = []
        for labels, weight, counts in zip(
            self.cells.labels, self.class_weights, self.counts, strict=True
        ):
            each = per_cell(
                outputs[labels.target.name],
                labels.values[rows],
                labels.target.kind,
                weight,
                self.settings.label_smoothing,
            )
            chosen = [part[:, rows] for part in counts]
            found.append([(each * part).sum() / part.sum().clamp(min=1) for part in chosen])
        return torch.stack([torch.stack(pair) for pair in found]).T


def new_curves(names: list[str]) -> dict[str, list[float]]:
    """Curves before the first epoch: losses of each task, then what the schedules do."""
    found: dict[str, list[float]] = {f"loss:{name}": [] for name in names}
    return found | {f"held:{name}": [] for name in names} | {"k": [], "tau": [], "turnover": []}


def add_epoch(
    curves: dict[str, list[float]], losses: list[list[float]], k: int, tau: float, turnover: float
) -> None:
    """Add an epoch to the curves; `losses` on the cells that train, and on those that judge."""
    values = [*(round(loss, 5) for part in losses for loss in part), k]
    values += [round(tau, 6), round(turnover, 5)]
    for curve, value in zip(curves.values(), values, strict=True):
        curve.append(value)
