"""One vector of scores, learned from cells that the networks which judge them have not seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.method import Task

from .data import Cells, Labels
from .encoding import Encoding
from .losses import per_cell, present
from .mask import TopK
from .networks import Networks, drop

if TYPE_CHECKING:
    import torch


def assign_folds(
    labels: list[Labels], groups: np.ndarray | None, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Fold of each cell, int64: classes of the finest task spread evenly, groups kept whole."""
    n_cells = len(labels[0].values)
    order = rng.permutation(n_cells)
    if groups is not None and len(np.unique(groups)) > 1:
        _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        count = min(count, len(sizes))
        place, filled = np.zeros(len(sizes), np.int64), np.zeros(count)
        for group in np.argsort(-sizes, kind="stable"):
            place[group] = filled.argmin()
            filled[place[group]] += sizes[group]
        return place[member]
    finest = max(labels, key=lambda item: len(item.target.classes))
    if finest.target.kind == "classification":
        codes = finest.values.cpu().numpy()[order]
        order = order[np.argsort(codes, kind="stable")]
    fold = np.empty(n_cells, np.int64)
    fold[order] = np.arange(n_cells) % count
    return fold


def relevance(cells: Cells, encoding: Encoding) -> torch.Tensor:
    """How well a step of each gene tells one class from the rest, or follows a number.

    For every class of every task the genes are ranked by their best step's correlation with it
    (which ranks as its t statistic does). A gene's relevance falls with the logarithm of its best
    rank, from 1 for a first to 0 for a last, so that every class has genes of its own up front,
    however few cells it has.

    Returns
    -------
    float32, shape (n_candidates,).
    """
    import torch

    outputs = torch.cat([_indicators(labels) for labels in cells.labels], dim=1)
    outputs = outputs / outputs.square().sum(0).clamp(min=1e-12).sqrt()
    n_genes = len(cells.genes)
    every = np.arange(cells.n_cells)
    best = []
    for start in range(0, n_genes, 256):
        genes = torch.arange(start, min(start + 256, n_genes), device=cells.device)
        x = encoding(cells.batch(every, genes), genes)
        x = x - x.mean(0)
        size = x.square().sum(0).clamp(min=1e-12).sqrt()
        correlation = (x.T @ outputs) / size[:, None]
        best.append(correlation.view(len(genes), encoding.steps, -1).amax(dim=1))
    order = torch.cat(best).argsort(dim=0, descending=True, stable=True)
    rank = order.argsort(dim=0).amin(dim=1) + 1
    return 1 - rank.float().log() / math.log(max(2, n_genes))


def _indicators(labels: Labels) -> torch.Tensor:
    """Centred class indicators or values, 0 where missing: (n_cells, n_outputs)."""
    import torch

    there = present(labels, labels.values)[:, None]
    if labels.target.kind == "classification":
        found = torch.nn.functional.one_hot(labels.values.clamp(min=0), labels.n_outputs).float()
        found = found[:, (found * there).sum(0) > 0]
    else:  # a number may rise or fall with a gene
        found = torch.cat([labels.values, -labels.values], dim=1).nan_to_num()
    centre = (found * there).sum(0) / there.sum().clamp(min=1)
    return (found - centre) * there


class Search:
    """Scores and the networks of the folds; each step draws a panel and updates both once."""

    def __init__(self, task: Task, cells: Cells, settings: Any) -> None:
        import torch

        self.task, self.cells, self.settings = task, cells, settings
        self.device = cells.device
        self.n_genes = len(cells.genes)
        self.k = min(task.k, self.n_genes)
        setup = torch.Generator().manual_seed(task.int_seed("yoto weights"))
        self.noise = torch.Generator(self.device).manual_seed(task.int_seed("yoto noise"))
        self.shuffle = task.rng("yoto batches")
        self.scores = (0.01 * torch.randn(self.n_genes, generator=setup)).to(self.device)
        fold = assign_folds(cells.labels, cells.groups, settings.folds, task.rng("yoto folds"))
        self.fold = torch.from_numpy(fold).to(self.device)
        self.count = int(fold.max()) + 1
        self.start = min(self.n_genes, max(settings.start or self.n_genes, self.k))
        self.encoding = Encoding(cells, settings.levels, task.rng("yoto levels"))
        if settings.prior:
            self.scores += settings.prior * relevance(cells, self.encoding)
        self.network = Networks(
            self.count,
            self.n_genes * self.encoding.steps,
            settings.hidden,
            {labels.target.name: labels.n_outputs for labels in cells.labels},
            setup,
            self.device,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
            inputs=self.start * self.encoding.steps,
        )
        self.class_weights = [labels.class_weights(settings.class_balance) for labels in cells.labels]
        self.counts = [self._counts(labels) for labels in cells.labels]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.first = self.network.first.view(self.n_genes, self.encoding.steps, -1)
        self.rows = RowAdam(self.first, settings.lr, settings.weight_decay)
        self.ascent = Ascent(self.scores, settings.lr_scores, shared=settings.shared)

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
        curves: dict[str, list[float]] = {f"loss:{name}": [] for name in names}
        curves |= {f"held:{name}": [] for name in names} | {"k": [], "tau": [], "turnover": []}
        panel: set[int] = set()
        average = torch.zeros_like(self.scores)
        for epoch in range(epochs):
            batches = np.array_split(self.shuffle.permutation(n_cells), n_batches)
            total = torch.zeros(2, len(names), device=self.device)
            for number, batch in enumerate(batches):
                fraction = (epoch * n_batches + number) / last
                left = max(0.0, 1 - fraction / s.anneal) if s.anneal > 0 else 0.0
                k = max(self.k, round(self.k * (self.start / self.k) ** left))
                tau = s.tau_start * (s.tau_end / s.tau_start) ** fraction
                total += self.step(batch, k, tau)
                if fraction > s.anneal:
                    average += self.scores
            before, panel = panel, set(self.scores.topk(self.k).indices.tolist())
            for name, loss, held in zip(names, *(total / n_batches).tolist(), strict=True):
                curves[f"loss:{name}"].append(round(loss, 5))
                curves[f"held:{name}"].append(round(held, 5))
            curves["k"].append(k)
            curves["tau"].append(round(tau, 6))
            curves["turnover"].append(round(1 - len(panel & before) / self.k, 5))
            self.task.progress(
                0.8 * (epoch + 1) / epochs,
                f"loss {np.mean(total[0].tolist()) / n_batches:.3f}, k {k}, tau {tau:.3g}",
            )
        if s.average and bool((average != 0).any()):
            self.scores = average / average.abs().max()
        return curves

    def step(self, batch: np.ndarray, k: int, tau: float) -> torch.Tensor:
        """Draw a panel of k genes, train scores and networks on it, return both losses per task."""
        import torch

        gumbel = -torch.empty_like(self.scores).exponential_(generator=self.noise).log_()
        top = TopK(self.scores + self.settings.beta * gumbel, k, tau)
        genes = top.order[: top.reach]
        seen = drop(torch.ones(len(batch), len(genes), 1), self.settings.input_dropout, self.noise)
        x = self.encoding(self.cells.batch(batch, genes), genes)
        x = (x.view(*seen.shape[:2], -1) * seen).flatten(1) if self.settings.input_dropout else x
        weights = self.first[genes]
        width = k * self.encoding.steps
        hidden = (x[:, :width] @ weights[:k].flatten(0, 1)).requires_grad_()
        losses = self.losses(hidden, torch.from_numpy(batch).to(self.device))
        train, judge = losses[0].mean() * self.count, losses[1].mean()
        for parameter in self.network.parameters():
            parameter.grad = None
        (delta,) = torch.autograd.grad(judge, hidden, retain_graph=True)
        train.backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        gradient = ((x.T @ delta).view_as(weights) * weights).sum(dim=(1, 2))
        self.ascent.step(top.gradient(gradient).float(), genes)
        self.rows.step(genes[:k], (x[:, :width].T @ hidden.grad).view(k, *weights.shape[1:]))
        self.optimizer.step()
        return losses.detach()

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


class RowAdam:
    """AdamW for a few rows of a matrix at a time; the others keep their weights and moments."""

    def __init__(self, weights: torch.Tensor, lr: float, decay: float) -> None:
        import torch

        self.weights, self.lr, self.decay, self.steps = weights, lr, decay, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        """Update these rows with their gradient."""
        self.steps += 1
        mean = self.mean[rows].lerp_(gradient, 0.1)
        square = self.square[rows].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        self.mean[rows], self.square[rows] = mean, square
        scale = (square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        step = mean.div_(scale).mul_(self.lr / (1 - 0.9**self.steps))
        self.weights[rows] = self.weights[rows].mul_(1 - self.lr * self.decay).sub_(step)


class Ascent:
    """Adam for the scores, with a second moment for each or one for all."""

    def __init__(self, scores: torch.Tensor, lr: float, *, shared: bool) -> None:
        import torch

        self.scores, self.lr, self.shared, self.steps = scores, lr, shared, 0
        self.mean, self.square = torch.zeros_like(scores), torch.zeros_like(scores)

    def step(self, gradient: torch.Tensor, reach: torch.Tensor) -> None:
        """One step down the gradient."""
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        squares = gradient.square()
        if self.shared:
            squares = squares[reach].mean().expand_as(squares)
        self.square.lerp_(squares, 0.001)
        scale = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-12)
        self.scores.sub_(self.lr / (1 - 0.9**self.steps) * self.mean / scale)
