"""Networks on the genes of panels, of several runs at once: what a GPU does with `fit`.

A job is what `Fit.train` is asked for once: some networks on one panel. Jobs of one shape, of one
run or of several, go on in step; each keeps its own cells, panel and rates of input dropout, and
draws what it draws alone (`stacked`). Where panels differ in size, what is missing is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.nn import generator

from .fit import Job
from .losses import per_cell_apart
from .networks import Networks, kept_units, random_bytes
from .stacked import Stacked, drawn_ahead

if TYPE_CHECKING:
    import torch


class Fits:
    """Trainings of predictors that go on in step.

    Parameters
    ----------
    jobs
        What to train, with as many cells, networks, layers and tasks, all on one device.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        import torch

        self.jobs, fit = jobs, jobs[0].fit
        self.settings, self.device, self.steps = fit.settings, fit.device, fit.steps
        self.count = len(jobs[0].seen)
        self.noise = [generator(job.fit.task, f"yoto {job.purpose} noise") for job in jobs]
        self.apart = [job.networks() for job in jobs]
        self.network = Networks.joined(self.apart)
        most = max(job.fit.x.shape[1] for job in jobs)

        def padded(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
            lacks = [most - part.shape[dim] for part in parts]
            ends = [(0, n) if dim == 1 else (0, 0, 0, n) for n in lacks]
            pairs = zip(parts, ends, strict=True)
            return torch.stack([torch.nn.functional.pad(part, end) for part, end in pairs])

        self.x = padded([job.fit.x for job in jobs], 1)
        self.first = padded([nets.first for nets in self.apart], 0).requires_grad_()
        self.rates = torch.stack([job.rates for job in jobs])
        self.dropped = bool((self.rates > 0).any())
        self.counts = [
            torch.stack([job.seen & job.fit.there[task] for job in jobs])
            for task in range(len(fit.there))
        ]
        self.weights = [
            None if weights[0] is None else torch.stack(weights)
            for weights in zip(*(job.fit.weights for job in jobs), strict=True)
        ]
        self.stacked = Stacked([job.fit.cells for job in jobs])

    def run(self, epochs: int) -> list[Networks]:
        """Train; the learning rate falls to 0."""
        import torch

        s, n_cells = self.settings, self.stacked.n_cells
        optimizer = torch.optim.AdamW(
            [self.first, *self.network.parameters()],
            lr=s.lr,
            weight_decay=s.weight_decay,
            fused=True,
        )
        n_batches = max(1, round(n_cells / s.batch_size))
        draws = [self._draws(number, epochs, n_batches) for number in range(len(self.jobs))]
        for number, drawn in enumerate(drawn_ahead(draws, self.jobs[0].fit.task)):
            for group in optimizer.param_groups:
                group["lr"] = s.lr * (1 - number / (epochs * n_batches))
            loss = self.loss(*self._joined(drawn))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.network.parted_to(self.apart)
        for job, nets, first in zip(self.jobs, self.apart, self.first.detach(), strict=True):
            nets.first = first[: len(nets.first)].clone()
            nets.calibrate(job.fit.x @ nets.first)
        return self.apart

    def _draws(
        self, number: int, epochs: int, n_batches: int
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Cells of each step of a job, a byte per gene and cell, one per unit of each layer."""
        import torch

        job, noise, s = self.jobs[number], self.noise[number], self.settings
        shuffle = job.fit.task.rng(f"yoto {job.purpose} batches")
        genes = job.fit.x.shape[1] // self.steps
        some = bool((job.rates > 0).any())
        for _ in range(epochs):
            for batch in np.array_split(shuffle.permutation(self.stacked.n_cells), n_batches):
                shape = (self.count, len(batch), genes)
                inputs = random_bytes(shape, noise) if some else torch.zeros(0, dtype=torch.uint8)
                units = [
                    random_bytes((len(batch), self.count * width), noise)
                    for width in (self.jobs[0].fit.hidden if round(256 * s.dropout) else ())
                ]
                yield torch.from_numpy(batch), inputs, *units

    def _joined(
        self, draws: Sequence[tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """The same of all jobs on the device: cells (J, B), what genes are multiplied with
        (J, M, B, genes) where some are dropped, and what the units of each layer are."""
        import torch

        cells = torch.stack([batch for batch, *_ in draws]).to(self.device)
        layers = zip(*(units for _, _, *units in draws), strict=True)
        kept = [
            kept_units(torch.cat(layer, dim=1).to(self.device), self.settings.dropout)
            for layer in layers
        ]
        if not self.dropped:
            return cells, None, kept
        shape = (len(self.jobs), self.count, cells.shape[1], self.x.shape[2] // self.steps)
        drawn = torch.full(shape, 255, dtype=torch.uint8)
        for number, (_, inputs, *_) in enumerate(draws):
            if len(inputs):
                drawn[number, ..., : inputs.shape[2]] = inputs
        rate = self.rates[:, :, None, None]
        return cells, (drawn.to(self.device) >= 256 * rate) / (1 - rate), kept

    def loss(
        self, batch: torch.Tensor, genes: torch.Tensor | None, kept: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Sum over all networks of the mean loss of their tasks."""

        jobs, index = len(self.jobs), batch.unsqueeze(1).expand(-1, self.count, -1)
        outputs = self.network.forward(self._hidden(batch, genes), kept=kept)
        total: Any = 0.0
        tasks = zip(self.stacked.truth(batch), self.weights, self.counts, strict=True)
        for (labels, truth), weight, counts in tasks:
            output = outputs[labels.target.name].unflatten(0, (jobs, self.count))
            smoothing = self.settings.label_smoothing
            each = per_cell_apart(output, truth, labels.target.kind, weight, smoothing)
            counted = counts.gather(2, index)
            total = total + (each * counted).sum(2) / counted.sum(2).clamp(min=1)
        found: torch.Tensor = total.sum() / len(self.stacked.labels)
        return found

    def _hidden(self, batch: torch.Tensor, genes: torch.Tensor | None) -> torch.Tensor:
        """First layers, (B, J * M * width)."""
        import torch

        x = self.x.gather(1, batch.unsqueeze(2).expand(-1, -1, self.x.shape[2]))
        if genes is None:
            return torch.bmm(x, self.first).transpose(0, 1).flatten(1)
        split = x.unflatten(2, (-1, self.steps)).unsqueeze(1) * genes.unsqueeze(-1)
        each = split.flatten(3).flatten(0, 1)
        weight = self.first.unflatten(2, (self.count, -1)).transpose(1, 2).flatten(0, 1)
        return torch.bmm(each, weight).transpose(0, 1).flatten(1)
