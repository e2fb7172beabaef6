"""The predictor of a panel: how strongly to regularise it is settled on cells it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .data import Cells
from .losses import per_cell, present
from .networks import Networks

if TYPE_CHECKING:
    import torch


class Fit:
    """Trains networks on the genes of a panel alone.

    Parameters
    ----------
    cells
        Training cells.
    panel
        Panel as candidates of `cells`.
    settings
        See `Params`.
    """

    def __init__(self, cells: Cells, panel: torch.Tensor, settings: Any, encoding: Any = None) -> None:
        self.cells, self.settings, self.device = cells, settings, cells.device
        self.x = cells.batch(np.arange(cells.n_cells), panel)
        if encoding is not None:
            self.x = encoding(self.x, panel)
        self.weights = [labels.class_weights(settings.class_balance) for labels in cells.labels]
        self.there = [present(labels, labels.values) for labels in cells.labels]

    def train(
        self,
        counts: torch.Tensor,
        rates: torch.Tensor,
        epochs: int,
        seed: int,
        shuffle: np.random.Generator,
        every: int = 0,
    ) -> tuple[Networks, list[torch.Tensor]]:
        """Train networks side by side, the learning rate falling to 0.

        Parameters
        ----------
        counts
            Which cells train each network, bool (M, n_cells).
        rates
            Input dropout of each network, (M,).
        epochs
            Passes over the cells.
        every
            Measure the loss on the other cells after so many epochs; 0 never does.

        Returns
        -------
        The networks, and those losses, each (M,).
        """
        import torch

        s, n_cells = self.settings, self.cells.n_cells
        generator = torch.Generator().manual_seed(seed)
        noise = torch.Generator(self.device).manual_seed(seed)
        heads = {labels.target.name: labels.n_outputs for labels in self.cells.labels}
        nets = Networks(
            len(counts), self.x.shape[1], s.hidden, heads, generator, self.device,
            batch_norm=s.batch_norm, dropout=s.dropout,
        )  # fmt: skip
        nets.first.requires_grad_()
        optimizer = torch.optim.AdamW(
            [nets.first, *nets.parameters()], lr=s.fit_lr, weight_decay=s.weight_decay, fused=True
        )
        n_batches = max(1, round(n_cells / s.batch_size))
        total, number, held = epochs * n_batches, 0, []
        for epoch in range(epochs):
            for batch in np.array_split(shuffle.permutation(n_cells), n_batches):
                rows = torch.from_numpy(batch).to(self.device)
                for group in optimizer.param_groups:
                    group["lr"] = s.fit_lr * self._rate(number / total)
                number += 1
                output = nets.forward(self._hidden(nets, self.x[rows], rates, noise), noise)
                loss = sum(
                    (each * (counts[:, rows] & there[rows])).sum(1)
                    / (counts[:, rows] & there[rows]).sum(1).clamp(min=1)
                    for each, there in zip(
                        self._losses(output, rows, s.label_smoothing), self.there, strict=True
                    )
                )
                optimizer.zero_grad()
                (loss.sum() / len(self.there)).backward()
                optimizer.step()
            if every and (epoch + 1) % every == 0:
                held.append(self.held_out(nets, ~counts))
        nets.first.requires_grad_(False)
        nets.calibrate(self.x @ nets.first)
        return nets, held

    def _rate(self, fraction: float) -> float:
        return 1 - fraction if self.settings.fit_decay else 1.0

    def _hidden(
        self, nets: Networks, x: torch.Tensor, rates: torch.Tensor, noise: torch.Generator
    ) -> torch.Tensor:
        """First layer, each network with an input dropout of its own."""
        import torch

        if not bool((rates > 0).any()):
            return x @ nets.first
        kept = torch.empty(nets.count, *x.shape, device=x.device).uniform_(generator=noise)
        kept = (kept >= rates[:, None, None]) / (1 - rates[:, None, None])
        weight = nets.first.view(x.shape[1], nets.count, -1).transpose(0, 1)
        return torch.bmm(x * kept, weight).transpose(0, 1).reshape(len(x), -1)

    def _losses(
        self, output: dict[str, torch.Tensor], rows: torch.Tensor, smoothing: float
    ) -> list[torch.Tensor]:
        return [
            per_cell(
                output[labels.target.name], labels.values[rows], labels.target.kind, weight,
                smoothing,
            )
            for labels, weight in zip(self.cells.labels, self.weights, strict=True)
        ]  # fmt: skip

    def held_out(self, nets: Networks, others: torch.Tensor) -> torch.Tensor:
        """Mean loss of each network over cells, (M,)."""
        import torch

        with torch.no_grad():
            hidden = self.x @ nets.first
            nets.calibrate(hidden)
            rows = torch.arange(self.cells.n_cells, device=self.device)
            parts = []
            for each, there in zip(
                self._losses(nets.forward(hidden), rows, 0.0), self.there, strict=True
            ):
                part = others & there
                parts.append((each * part).sum(1) / part.sum(1).clamp(min=1))
            return torch.stack(parts).mean(0)
