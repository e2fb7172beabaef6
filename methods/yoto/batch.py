"""The published training for several runs at once: one step moves all models.

On a GPU the step of one model is far too small: hundreds of launches for work that takes
microseconds. Here every array has a leading dimension, the model. Each model keeps its own cells,
genes, k and schedules, and draws what it draws alone: start and noise come from the run's own
generators on the CPU, so that a run is the same in a group, alone and on the CPU up to rounding.
Models that differ in shape, or in settings that all share, are trained in separate batches.

On a CPU nothing is gained, and `training` does one run after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator, one_thread

from .masks import TopKs
from .networks import Networks
from .options import Settings
from .stacked import Stacked, cells_of, drawn_ahead, shape_of
from .training import Trained, Trainer, new_curves, panel_size, tell, temperature

if TYPE_CHECKING:
    import torch


def fits(settings: Settings) -> bool:
    """Whether a training can be part of a batch: without what depends on the cells of a step."""
    return not settings.input_dropout and not settings.class_balance


def train_together(tasks: Sequence[Task], settings: Sequence[Settings]) -> list[Trained]:
    """Train a model per task; those that agree in shape side by side.

    Parameters
    ----------
    tasks
        All on one device.
    settings
        One for each task, all of which fit (`fits`).
    """
    cells = cells_of(tasks, settings)
    alike: dict[Any, list[int]] = defaultdict(list)
    for number, (mine, s) in enumerate(zip(cells, settings, strict=True)):
        alike[shape_of(mine), s.shared()].append(number)
    found: dict[int, Trained] = {}
    with one_thread():
        for numbers in alike.values():
            trainers = [Trainer(tasks[n], settings[n], cells[n]) for n in numbers]
            found |= dict(zip(numbers, Batch(trainers).run(), strict=True))
    return [found[number] for number in range(len(tasks))]


class Batch:
    """Several trainings of one shape that go on in step.

    Parameters
    ----------
    trainers
        The trainings before their first step. They get back what was learned.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        import torch

        self.trainers = trainers
        self.settings, self.device = trainers[0].settings, trainers[0].device
        self.stacked = Stacked([trainer.cells for trainer in trainers])
        self.sizes = self.stacked.sizes
        self.noise = [generator(trainer.task, "yoto noise") for trainer in trainers]
        self.scores = self.stacked.padded([trainer.scores for trainer in trainers], -torch.inf)
        self.first = self.stacked.padded([trainer.network.first for trainer in trainers])
        self.network = Networks.of([trainer.network for trainer in trainers])
        s = self.settings
        self.first.grad, self.scores.grad = map(torch.zeros_like, (self.first, self.scores))
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [self.first, *self.network.parameters()],
                    "lr": s.lr,
                    "weight_decay": s.weight_decay,
                },
                {"params": [self.scores], "lr": s.lr_scores, "weight_decay": 0.0},
            ],
            fused=True,
        )

    def run(self) -> list[Trained]:
        """Train all epochs; the last one counts."""
        import torch

        s = self.settings
        n_batches = max(1, round(self.stacked.n_cells / s.batch_size))
        last = max(1, s.epochs * n_batches - 1)
        curves = [new_curves(trainer.cells.labels) for trainer in self.trainers]
        panels: list[set[int]] = [set() for _ in self.trainers]
        numbers = range(len(self.trainers))
        drawn = drawn_ahead([self._draws(m, n_batches) for m in numbers], self.trainers[0].task)
        for epoch in range(s.epochs):
            total = torch.zeros(len(numbers), len(self.stacked.labels), device=self.device)
            for number in range(n_batches):
                fraction = (epoch * n_batches + number) / last
                ks, taus = self._schedules(fraction)
                total += self.step(ks, taus, *self._joined(next(drawn)))
            losses = (total / n_batches).tolist()
            for number, trainer in enumerate(self.trainers):
                panel = set(self.scores[number].topk(trainer.k).indices.tolist())
                turnover = 1 - len(panel & panels[number]) / trainer.k
                panels[number] = panel
                tell(curves[number], losses[number], ks[number], taus[number], turnover)
            self.trainers[0].task.progress(
                (epoch + 1) / s.epochs,
                f"{len(self.trainers)} models, loss {np.mean(losses):.3f}, k {max(ks)}",
            )
        return self._finish(curves)

    def _schedules(self, fraction: float) -> tuple[list[int], list[float]]:
        """Size of the panel and temperature of each model."""
        ks, taus = [], []
        for trainer in self.trainers:
            s = trainer.settings
            ks.append(panel_size(fraction, trainer.n_genes, trainer.k, s.anneal))
            taus.append(temperature(fraction, s.tau_start, s.tau_end))
        return ks, taus

    def _draws(self, number: int, n_batches: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Cells of each step of a model, its scores' noise, which units stay in each layer."""
        import torch

        noise, s = self.noise[number], self.settings
        for _ in range(s.epochs):
            order = self.trainers[number].shuffle.permutation(self.stacked.n_cells)
            for batch in np.array_split(order, n_batches):
                found = [torch.empty(self.sizes[number]).exponential_(generator=noise)]
                for width in s.hidden if s.dropout else ():
                    drawn = torch.empty(len(batch), width).uniform_(generator=noise)
                    found.append(drawn >= s.dropout)
                yield torch.from_numpy(batch), *found

    def _joined(self, draws: Sequence[tuple[torch.Tensor, ...]]) -> tuple[Any, Any, list[Any]]:
        """The same of all models on the device: cells (M, B), noise (M, n_genes), and for each
        layer what its units are multiplied with, (B, M * width)."""
        import torch

        cells = torch.stack([batch for batch, *_ in draws])
        noise = self.stacked.padded([own for _, own, *_ in draws], 1.0)
        layers = zip(*(kept for _, _, *kept in draws), strict=True)
        kept = [torch.cat(layer, dim=1).to(self.device) for layer in layers]
        scale = 1 / (1 - self.settings.dropout)
        return cells.to(self.device), noise.to(self.device), [scale * layer for layer in kept]

    def step(
        self,
        ks: Sequence[int],
        taus: Sequence[float],
        batch: torch.Tensor,
        noise: torch.Tensor,
        kept: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Draw a panel for each model, train all on it, return the losses (M, tasks)."""
        import torch

        count, most = len(self.trainers), max(ks)
        beta = torch.tensor([[t.settings.beta] for t in self.trainers], device=self.device)
        top = TopKs(self.scores - beta * noise.log(), self.sizes, ks, taus)
        genes = top.order[:, : top.reach]
        x = self.stacked.expression(batch, genes)
        chosen = genes.unsqueeze(-1).expand(-1, -1, self.first.shape[2])
        weights = self.first.gather(1, chosen)
        # Of the genes within reach a model sees its first k: those of smaller panels get weight 0.
        sizes = torch.tensor(ks, device=self.device).unsqueeze(1)
        seen = torch.arange(most, device=self.device) < sizes
        used = weights[:, :most] * seen.unsqueeze(-1)
        hidden = torch.bmm(x[:, :, :most], used).transpose(0, 1).flatten(1).requires_grad_()
        losses = self.losses(self.network.forward(hidden, kept=kept), batch)
        for parameter in self.network.parameters():
            parameter.grad = None
        losses.mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
        delta, gradient = hidden.grad, self.first.grad
        assert delta is not None and gradient is not None
        delta = delta.view(len(delta), count, -1).transpose(0, 1)
        product = torch.bmm(x.transpose(1, 2), delta)
        gradient.zero_()
        gradient.scatter_(1, chosen[:, :most], product[:, :most] * seen.unsqueeze(-1))
        self.scores.grad = top.gradient((product * weights).sum(dim=2)).float()
        self.optimizer.step()
        return losses.detach()

    def losses(self, outputs: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Mean loss over the cells that have the label, (M, tasks); 0 where none has."""
        import torch

        found = []
        for labels, truth in self.stacked.truth(batch):
            output = outputs[labels.target.name]
            if labels.target.kind == "classification":
                each = torch.nn.functional.cross_entropy(
                    output.flatten(0, 1),
                    truth.flatten(),
                    ignore_index=-1,
                    label_smoothing=self.settings.label_smoothing,
                    reduction="none",
                ).view(truth.shape)
                seen = (truth >= 0).sum(dim=1)
            else:
                known = ~torch.isnan(truth)
                each = (output - torch.where(known, truth, output.detach())).square().flatten(1)
                seen = known.sum(dim=(1, 2))
            found.append(each.sum(dim=1) / seen.clamp(min=1))
        return torch.stack(found, dim=1)

    def _finish(self, curves: list[dict[str, list[float]]]) -> list[Trained]:
        """Give every training its own part back, and what it makes of it."""
        self.network.back_to([trainer.network for trainer in self.trainers])
        found = []
        for number, (trainer, size) in enumerate(zip(self.trainers, self.sizes, strict=True)):
            trainer.scores = self.scores[number, :size].clone()
            trainer.network.first = self.first[number, :size].clone()
            found.append(trainer.finish(curves[number]))
        return found
