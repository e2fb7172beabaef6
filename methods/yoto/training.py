"""One training for scores, panel and predictor, and the schedules that lead it to k genes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import Layer, drop, generator, one_thread

from .data import Cells, Labels
from .mask import TopK
from .model import Network
from .options import Settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes
    ----------
    genes
        int64: candidate genes (those that vary) as columns of the matrix, best first.
    scores
        float64: their final scores, non-increasing.
    k
        Genes in the panel, the first of `genes`: the task's k, or all candidates if fewer.
    layers, heads
        The predictor's layers over the panel in the order of `genes`, and the output layer of
        each task; they take the matrix as it was given, and give standardised numbers.
    labels
        Labels of the tasks.
    curves
        Loss per task, k, tau and the share of the panel that changed, one number per epoch.
    chosen
        What was settled on held-out cells.
    """

    genes: np.ndarray
    scores: np.ndarray
    k: int
    layers: list[Layer]
    heads: dict[str, Layer]
    labels: list[Labels]
    curves: dict[str, list[float]]
    chosen: dict[str, float] = field(default_factory=dict)


def panel_size(fraction: float, n_genes: int, k: int, anneal: float) -> int:
    """Genes kept at a fraction of the training: geometric from all to k, reached at `anneal`."""
    left = max(0.0, 1 - fraction / anneal) if anneal > 0 else 0.0
    kept: int = max(k, round(k * (n_genes / k) ** left))
    return kept


def temperature(fraction: float, start: float, end: float) -> float:
    """Temperature at a fraction of the training: exponential from `start` to `end`."""
    return float(start * (end / start) ** fraction)


def input_dropout(settings: Settings, n_cells: int, k: int) -> float:
    """Rate at which selected genes are dropped: full while cells are few for a panel of k."""
    rate = settings.input_dropout or 0.0
    return rate * min(1.0, settings.cells_per_gene * k / n_cells)


def train(task: Task, settings: Settings) -> Trained:
    """Train scores and network together.

    On the CPU one thread does it, so that the result does not depend on `Task.n_jobs`.
    """
    with one_thread():
        return Trainer(task, settings).run()


class Trainer:
    """State of a training; each step selects, predicts and updates once."""

    def __init__(self, task: Task, settings: Settings, cells: Cells | None = None) -> None:
        import torch

        self.task, self.settings = task, settings
        self.cells = cells or Cells(task, standardize=settings.standardize)
        self.device = self.cells.device
        self.n_genes = len(self.cells.genes)
        self.k = min(task.k, self.n_genes)
        self.input_dropout = input_dropout(settings, self.cells.n_cells, self.k)
        setup = generator(task, "yoto weights")
        self.noise = generator(task, "yoto noise", self.device)
        self.shuffle = task.rng("yoto batches")
        self.scores = (0.01 * torch.randn(self.n_genes, generator=setup)).to(self.device)
        self.network = Network(
            self.n_genes,
            settings.hidden,
            {labels.target.name: labels.n_outputs for labels in self.cells.labels},
            setup,
            self.device,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )
        self.class_weights = [
            labels.class_weights(settings.class_balance) for labels in self.cells.labels
        ]
        self.selected = torch.empty(0, dtype=torch.int64, device=self.device)
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        import torch

        settings, first = self.settings, self.network.first
        first.grad, self.scores.grad = torch.zeros_like(first), torch.zeros_like(self.scores)
        weights = [first, *self.network.parameters()]
        return torch.optim.AdamW(
            [
                {"params": weights, "lr": settings.lr, "weight_decay": settings.weight_decay},
                {"params": [self.scores], "lr": settings.lr_scores, "weight_decay": 0.0},
            ],
            fused=True,
        )

    def run(self) -> Trained:
        """Train all epochs; the last one counts."""
        import torch

        s, n_cells = self.settings, self.cells.n_cells
        n_batches = max(1, round(n_cells / s.batch_size))
        last = max(1, s.epochs * n_batches - 1)
        names = [labels.target.name for labels in self.cells.labels]
        curves = new_curves(self.cells.labels)
        panel: set[int] = set()
        for epoch in range(s.epochs):
            batches = np.array_split(self.shuffle.permutation(n_cells), n_batches)
            total = torch.zeros(len(names), device=self.device)
            for number, batch in enumerate(batches):
                fraction = (epoch * n_batches + number) / last
                k = panel_size(fraction, self.n_genes, self.k, s.anneal)
                tau = temperature(fraction, s.tau_start, s.tau_end)
                total += self.step(batch, k, tau)
            before, panel = panel, set(self.scores.topk(self.k).indices.tolist())
            losses = (total / n_batches).tolist()
            tell(curves, losses, k, tau, 1 - len(panel & before) / self.k)
            self.task.progress(
                (epoch + 1) / s.epochs, f"loss {np.mean(losses):.3f}, k {k}, tau {tau:.3g}"
            )
        return self.finish(curves)

    def step(self, batch: np.ndarray, k: int, tau: float) -> torch.Tensor:
        """Draw a panel of k genes, train scores and network on it, return the loss per task."""
        import torch

        gumbel = -torch.empty_like(self.scores).exponential_(generator=self.noise).log_()
        top = TopK(self.scores + self.settings.beta * gumbel, k, tau)
        genes = top.order[: top.reach]
        missing = input_dropout(self.settings, self.cells.n_cells, k)
        x = drop(self.cells.batch(batch, genes), missing, self.noise)
        weights = self.network.first[genes]
        rows = torch.from_numpy(batch).to(self.device)
        labels = [labels.values[rows] for labels in self.cells.labels]

        hidden, losses = self.losses(x, weights, k, labels)
        for parameter in self.network.parameters():
            parameter.grad = None
        losses.mean().backward()  # type: ignore[no-untyped-call]
        # One product gives the gradient of the selected weights, and that of the mask for all
        # genes within reach; no other gene has one. The mask itself is 1 for the first k.
        delta, gradient = hidden.grad, self.network.first.grad
        assert delta is not None and gradient is not None
        product = x.T @ delta
        gradient[self.selected] = 0.0
        self.selected = genes[:k]
        gradient[self.selected] = product[:k]
        self.scores.grad = top.gradient((product * weights).sum(dim=1)).float()
        self.optimizer.step()
        return losses.detach()

    def losses(
        self, x: torch.Tensor, weights: torch.Tensor, k: int, labels: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output of the first layer, a leaf of the graph, and the loss of each task.

        `x` and `weights` hold the genes within reach, best first; the network sees k of them.
        """
        import torch

        hidden = (x[:, :k] @ weights[:k]).requires_grad_()
        outputs = self.network.forward(hidden, self.noise)
        losses = [
            _loss(outputs[task.target.name], task.target.kind, truth, weight, self.settings)
            for task, truth, weight in zip(
                self.cells.labels, labels, self.class_weights, strict=True
            )
        ]
        return hidden, torch.stack(losses)

    def finish(self, curves: dict[str, list[float]]) -> Trained:
        """What was learned: panel, scores, and the predictor of the panel."""
        order = self.scores.sort(descending=True, stable=True).indices
        panel = order[: self.k]
        x = self.cells.batch(np.arange(self.cells.n_cells), panel)
        self.network.calibrate(x @ self.network.first[panel])
        self.network.first *= self.cells.gain[:, None]
        layers, heads = self.network.folded(panel)
        index = order.cpu().numpy()
        return Trained(
            genes=self.cells.genes[index],
            scores=self.scores.cpu().numpy().astype(np.float64)[index],
            k=self.k,
            layers=layers,
            heads=heads,
            labels=self.cells.labels,
            curves=curves,
        )


def new_curves(labels: list[Labels]) -> dict[str, list[float]]:
    """Curves before the first epoch; those of the tasks' losses come first."""
    return {f"loss:{x.target.name}": [] for x in labels} | {"k": [], "tau": [], "turnover": []}


def tell(
    curves: dict[str, list[float]], losses: list[float], k: int, tau: float, turnover: float
) -> None:
    """Add an epoch to the curves."""
    values = [*(round(loss, 5) for loss in losses), k, round(tau, 6), round(turnover, 5)]
    for curve, value in zip(curves.values(), values, strict=True):
        curve.append(value)


def _loss(
    output: torch.Tensor,
    kind: str,
    truth: torch.Tensor,
    weight: torch.Tensor | None,
    settings: Settings,
) -> torch.Tensor:
    """Mean loss over the cells that have the label; 0 where none has."""
    import torch

    if kind == "classification":
        total = torch.nn.functional.cross_entropy(
            output,
            truth,
            weight=weight,
            ignore_index=-1,
            label_smoothing=settings.label_smoothing,
            reduction="sum",
        )
        return total / (truth >= 0).sum().clamp(min=1)
    seen = ~torch.isnan(truth)
    squares = (output - torch.where(seen, truth, output.detach())).square()
    return squares.sum() / seen.sum().clamp(min=1)
