"""The default's search for several runs at once: one step moves the scores of all.

The networks of a run's folds lie side by side already (`networks`); here those of all runs do.
Each run keeps its own cells, levels, folds, k and start, and draws what it draws alone (`stacked`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from panelbench.nn import generator

from .encoding import encoded
from .losses import per_cell_apart
from .masks import TopKs
from .networks import Networks, kept_units, random_bytes
from .optimizers import RowAdam, ScoreAdam
from .search import Search, add_epoch, new_curves
from .stacked import Stacked, drawn_ahead
from .training import panel_size, temperature

if TYPE_CHECKING:
    import torch


class Searches:
    """Searches of one shape that go on in step.

    Parameters
    ----------
    searches
        Before their first step: as many cells, folds and tasks, and the same settings but for
        those that are not `Settings.shared`. They get back their scores.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        import torch

        self.searches, one = searches, searches[0]
        self.settings, self.device, self.count = one.settings, one.device, one.count
        self.stacked = Stacked([search.cells for search in searches])
        padded = self.stacked.padded
        self.noise = [generator(search.task, "yoto noise") for search in searches]
        self.scores = padded([search.scores for search in searches], -torch.inf)
        self.levels = padded([search.encoding.levels for search in searches])
        self.slopes = padded([search.encoding.slopes for search in searches])
        # One more row, for what pads the panel of a run with fewer genes: nobody reads it.
        first = padded([search.first for search in searches])
        self.first = torch.cat([first, torch.zeros_like(first[:, :1])], dim=1)
        self.network = Networks.joined([search.network for search in searches])
        self.counts = [
            [torch.stack(parts) for parts in zip(*pairs, strict=True)]
            for pairs in zip(*(search.counts for search in searches), strict=True)
        ]
        self.weights = [
            None if weights[0] is None else torch.stack(weights)
            for weights in zip(*(search.class_weights for search in searches), strict=True)
        ]
        s = self.settings
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=s.lr, weight_decay=s.weight_decay, fused=True
        )
        self.rows = RowAdam(self.first.flatten(0, 1), s.lr, s.weight_decay)
        self.ascent = ScoreAdam(self.scores, s.lr_scores)

    def run(self, epochs: int) -> list[dict[str, list[float]]]:
        """Train; returns the curves of each."""
        import torch

        s, many = self.settings, range(len(self.searches))
        n_batches = max(1, round(self.stacked.n_cells / s.batch_size))
        last = max(1, epochs * n_batches - 1)
        names = [labels.target.name for labels in self.stacked.labels]
        curves = [new_curves(names) for _ in many]
        panels: list[set[int]] = [set() for _ in many]
        average, summed = torch.zeros_like(self.scores), [0] * len(many)
        draws = [self._draws(number, epochs, n_batches) for number in many]
        drawn = drawn_ahead(draws, self.searches[0].task)
        for epoch in range(epochs):
            total = torch.zeros(len(many), 2, len(names), device=self.device)
            for number in range(n_batches):
                fraction = (epoch * n_batches + number) / last
                ks, taus = self._schedules(fraction)
                total += self.step(ks, taus, *self._joined(next(drawn)))
                past = [fraction > search.settings.anneal for search in self.searches]
                summed = [a + b for a, b in zip(summed, past, strict=True)]
                if any(past):
                    counted = torch.tensor(past, device=self.device).unsqueeze(1)
                    average += torch.where(counted, self.scores, 0.0)
            losses = (total / n_batches).tolist()
            for number, search in enumerate(self.searches):
                panel = set(self.scores[number].topk(search.k).indices.tolist())
                turnover = 1 - len(panel & panels[number]) / search.k
                panels[number] = panel
                add_epoch(curves[number], losses[number], ks[number], taus[number], turnover)
            self.searches[0].tell((epoch + 1) / epochs, f"{len(many)} models, k {max(ks)}")
        for number, (search, size) in enumerate(
            zip(self.searches, self.stacked.sizes, strict=True)
        ):
            found = average / summed[number] if summed[number] else self.scores
            search.scores = found[number, :size].clone()
        return curves

    def _schedules(self, fraction: float) -> tuple[list[int], list[float]]:
        """Size of the panel and temperature of each run."""
        ks, taus = [], []
        for search in self.searches:
            s = search.settings
            ks.append(panel_size(fraction, search.start, search.k, s.anneal))
            taus.append(temperature(fraction, s.tau_start, s.tau_end))
        return ks, taus

    def _draws(
        self, number: int, epochs: int, n_batches: int
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Cells of each step of a run, its scores' noise, a byte for every unit of each layer."""
        import torch

        search, noise, s = self.searches[number], self.noise[number], self.settings
        for _ in range(epochs):
            order = search.shuffle.permutation(self.stacked.n_cells)
            for batch in np.array_split(order, n_batches):
                own = torch.empty(search.n_genes).exponential_(generator=noise)
                units = [
                    random_bytes((len(batch), self.count * width), noise)
                    for width in (s.search_hidden if s.dropout else ())
                ]
                yield torch.from_numpy(batch), own, *units

    def _joined(
        self, draws: Sequence[tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """The same of all runs on the device: cells (R, B), noise (R, n_genes), and for each
        layer what its units are multiplied with, (B, R * M * width)."""
        import torch

        cells = torch.stack([batch for batch, *_ in draws]).to(self.device)
        noise = self.stacked.padded([own for _, own, *_ in draws], 1.0)
        layers = zip(*(units for _, _, *units in draws), strict=True)
        kept = [
            kept_units(torch.cat(layer, dim=1).to(self.device), self.settings.dropout)
            for layer in layers
        ]
        return cells, noise.to(self.device), kept

    def step(
        self,
        ks: Sequence[int],
        taus: Sequence[float],
        batch: torch.Tensor,
        noise: torch.Tensor,
        kept: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Draw a panel for each run, train all on it, return both losses per task, (R, 2, T)."""
        import torch

        runs, most = len(self.searches), max(ks)
        betas = [[search.settings.beta] for search in self.searches]
        beta = torch.tensor(betas, device=self.device)
        top = TopKs(self.scores - beta * noise.log(), self.stacked.sizes, ks, taus)
        genes = top.order[:, : top.reach]
        sizes = torch.tensor(ks, device=self.device).unsqueeze(1)
        seen = torch.arange(most, device=self.device) < sizes
        run = torch.arange(runs, device=self.device).unsqueeze(1)
        x = encoded(
            self.stacked.expression(batch, genes), self.levels[run, genes], self.slopes[run, genes]
        )
        weights = self.first[run, genes]  # (R, reach, steps, M * width)
        features = most * weights.shape[2]
        used = (weights[:, :most] * seen[:, :, None, None]).flatten(1, 2)
        hidden = torch.bmm(x[:, :, :features], used).transpose(0, 1).flatten(1).requires_grad_()
        losses = self.losses(self.network.forward(hidden, kept=kept), batch)
        train, judge = losses[:, 0].mean(dim=1) * self.count, losses[:, 1].mean(dim=1)
        for parameter in self.network.parameters():
            parameter.grad = None
        (delta,) = torch.autograd.grad(judge.sum(), hidden, retain_graph=True)
        train.sum().backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        held, own = (g.view(len(g), runs, -1).transpose(0, 1) for g in (delta, hidden.grad))
        turned = x.transpose(1, 2)
        upstream = (torch.bmm(turned, held).view_as(weights) * weights).sum(dim=(2, 3))
        self.ascent.step(top.gradient(upstream).float())
        gradient = torch.bmm(turned[:, :features], own).view_as(weights[:, :most])
        rows = torch.where(seen, genes[:, :most], self.first.shape[1] - 1)
        rows = rows + run * self.first.shape[1]
        self.rows.step(rows.flatten(), (gradient * seen[:, :, None, None]).flatten(0, 1))
        self.optimizer.step()
        return losses.detach()

    def losses(self, outputs: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Loss per task on the cells that train networks and on those that judge, (R, 2, T)."""
        import torch

        runs, found = len(self.searches), []
        index = batch.unsqueeze(1).expand(-1, self.count, -1)
        tasks = zip(self.stacked.truth(batch), self.weights, self.counts, strict=True)
        for (labels, truth), weight, counts in tasks:
            output = outputs[labels.target.name].unflatten(0, (runs, self.count))
            smoothing = self.settings.label_smoothing
            each = per_cell_apart(output, truth, labels.target.kind, weight, smoothing)
            chosen = [part.gather(2, index) for part in counts]
            found.append(
                torch.stack(
                    [
                        (each * part).sum(dim=(1, 2)) / part.sum(dim=(1, 2)).clamp(min=1)
                        for part in chosen
                    ],
                    dim=1,
                )
            )
        return torch.stack(found, dim=2)
