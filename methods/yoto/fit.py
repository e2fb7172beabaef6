"""The predictor of a panel: how strongly to regularise it is settled on cells it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator

from .data import Cells
from .encoding import Encoding
from .losses import per_cell, present
from .networks import Networks, random_bytes
from .options import Settings

if TYPE_CHECKING:
    import torch

RATES = (0.0, 0.1, 0.3, 0.6)
"""Input dropout that is tried: none where cells are many and genes few, most in the reverse."""


def rates_of(settings: Settings) -> tuple[float, ...]:
    """Rates of input dropout to choose from: one, if it was given."""
    return RATES if settings.input_dropout is None else (settings.input_dropout,)


@dataclass(frozen=True)
class Job:
    """Networks to be trained on one panel.

    Attributes
    ----------
    fit
        The panel and its cells.
    seen
        Which cells train each network, bool (M, n_cells).
    rates
        Input dropout of each network, (M,).
    purpose
        Names the random generators.
    """

    fit: Fit
    seen: torch.Tensor
    rates: torch.Tensor
    purpose: str

    def networks(self) -> Networks:
        """The networks before their first step."""
        s = self.fit.settings
        return Networks(
            len(self.seen),
            self.fit.x.shape[1],
            self.fit.hidden,
            {labels.target.name: labels.n_outputs for labels in self.fit.cells.labels},
            generator(self.fit.task, f"yoto {self.purpose} weights"),
            self.fit.device,
            batch_norm=s.batch_norm,
            dropout=s.dropout,
        )


class Fit:
    """Trains networks on the genes of a panel alone.

    Parameters
    ----------
    task
        Gives the random generators.
    cells
        Training cells.
    panel
        int64: the panel as candidates of `cells`.
    encoding
        Levels of the candidates.
    settings
        What to train with.
    layers
        Hidden layers, the first of `Settings.hidden` so many times; by default as that says.
    """

    def __init__(
        self,
        task: Task,
        cells: Cells,
        panel: torch.Tensor,
        encoding: Encoding,
        settings: Settings,
        layers: int | None = None,
    ) -> None:
        self.task, self.cells, self.settings, self.device = task, cells, settings, cells.device
        self.hidden = settings.hidden if layers is None else settings.hidden[:1] * layers
        self.x = encoding(cells.batch(np.arange(cells.n_cells), panel), panel)
        self.steps = encoding.steps
        self.weights = [labels.class_weights(settings.class_balance) for labels in cells.labels]
        self.there = [present(labels, labels.values) for labels in cells.labels]

    def held_out(self, seen: torch.Tensor, rates: tuple[float, ...], epochs: int) -> torch.Tensor:
        """Loss of every cell under the network that has not seen it, for each input dropout.

        Parameters
        ----------
        seen
            Which cells train each network, bool (M, n_cells).
        rates
            Rates of input dropout.
        epochs
            Passes over the cells.

        Returns
        -------
        float64 (rates, n_cells): the mean over tasks, scaled so that the mean over cells is that
        over the labels that there are; 0 for a cell that all networks have seen.
        """
        return self.losses_of(self.train(self.folds(seen, rates), epochs), seen, len(rates))

    def folds(self, seen: torch.Tensor, rates: Sequence[float]) -> Job:
        """The job of `held_out`: a network for each rate and set of cells."""
        import torch

        each_rate = torch.tensor(rates, device=self.device).repeat_interleave(len(seen))
        return Job(self, seen.repeat(len(rates), 1), each_rate, "fit folds")

    def losses_of(self, nets: Networks, seen: torch.Tensor, count: int) -> torch.Tensor:
        """What `held_out` returns, of the networks that were trained for it."""
        import torch

        rows = torch.arange(self.cells.n_cells, device=self.device)
        found = torch.zeros(count, len(rows), dtype=torch.float64, device=self.device)
        all_seen = seen.repeat(count, 1)
        with torch.no_grad():
            each = self._losses(nets.forward(self.x @ nets.first), rows, 0.0)
        for loss, there in zip(each, self.there, strict=True):
            held = (loss * there * ~all_seen).view(count, -1, len(rows)).sum(1)
            found += held * (len(rows) / (len(each) * there.sum().clamp(min=1)))
        return found

    def finish(self, rate: float, epochs: int) -> Networks:
        """Train the predictor's networks on all cells."""
        return self.train(self.members(rate), epochs)

    def members(self, rate: float) -> Job:
        """The job of `finish`: networks that have all seen everything."""
        import torch

        members = self.settings.members
        everyone = torch.ones(members, self.cells.n_cells, dtype=torch.bool, device=self.device)
        return Job(self, everyone, torch.full((members,), rate, device=self.device), "fit")

    def train(self, job: Job, epochs: int) -> Networks:
        """Train networks side by side for so many passes, the learning rate falling to 0."""
        import torch

        s, n_cells = self.settings, self.cells.n_cells
        seen, rates, nets = job.seen, job.rates, job.networks()
        noise = generator(self.task, f"yoto {job.purpose} noise", self.device)
        shuffle = self.task.rng(f"yoto {job.purpose} batches")
        nets.first.requires_grad_()
        optimizer = torch.optim.AdamW(
            [nets.first, *nets.parameters()], lr=s.lr, weight_decay=s.weight_decay, fused=True
        )
        n_batches = max(1, round(n_cells / s.batch_size))
        number = 0
        for _ in range(epochs):
            for batch in np.array_split(shuffle.permutation(n_cells), n_batches):
                rows = torch.from_numpy(batch).to(self.device)
                for group in optimizer.param_groups:
                    group["lr"] = s.lr * (1 - number / (epochs * n_batches))
                number += 1
                output = nets.forward(self._hidden(nets, self.x[rows], rates, noise), noise)
                total = torch.zeros(len(seen), device=self.device)
                each = self._losses(output, rows, s.label_smoothing)
                for loss, there in zip(each, self.there, strict=True):
                    counts = seen[:, rows] & there[rows]
                    total = total + (loss * counts).sum(1) / counts.sum(1).clamp(min=1)
                optimizer.zero_grad()
                (total.sum() / len(each)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        nets.first.requires_grad_(False)
        nets.calibrate(self.x @ nets.first)
        return nets

    def _hidden(
        self, nets: Networks, x: torch.Tensor, rates: torch.Tensor, noise: torch.Generator
    ) -> torch.Tensor:
        """First layer, each network with genes dropped at its own rate."""
        import torch

        if not bool((rates > 0).any()):
            return x @ nets.first
        genes = x.shape[1] // self.steps
        rate = rates[:, None, None]
        kept = (random_bytes((nets.count, len(x), genes), noise) >= 256 * rate) / (1 - rate)
        x = (x.view(len(x), genes, -1) * kept.unsqueeze(-1)).flatten(2)
        weight = nets.first.view(x.shape[2], nets.count, -1).transpose(0, 1)
        return torch.bmm(x, weight).transpose(0, 1).reshape(x.shape[1], -1)

    def _losses(
        self, output: dict[str, torch.Tensor], rows: torch.Tensor, smoothing: float
    ) -> list[torch.Tensor]:
        return [
            per_cell(
                output[labels.target.name],
                labels.values[rows],
                labels.target.kind,
                weight,
                smoothing,
            )
            for labels, weight in zip(self.cells.labels, self.weights, strict=True)
        ]
