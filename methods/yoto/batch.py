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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator, one_thread, tensor_of

from .data import Cells
from .masks import TopKs
from .networks import Networks
from .options import Settings
from .training import Trained, Trainer, new_curves, panel_size, tell, temperature

if TYPE_CHECKING:
    import torch

OWN = ("beta", "tau_start", "tau_end", "anneal")
"""Settings that each model of a batch may have its own values of."""


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
    cells: list[Cells] = []
    for number, (task, s) in enumerate(zip(tasks, settings, strict=True)):
        twins = (
            cells[i]
            for i in range(number)
            if tasks[i].X is task.X
            and tasks[i].targets is task.targets
            and settings[i].standardize == s.standardize
        )
        twin = next(twins, None)
        cells.append(twin or Cells(task, standardize=s.standardize))
    alike: dict[Any, list[int]] = defaultdict(list)
    for number, (mine, s) in enumerate(zip(cells, settings, strict=True)):
        heads = tuple((x.target.name, x.target.kind, x.n_outputs) for x in mine.labels)
        shared = replace(s, **dict.fromkeys(OWN, 0.0))  # type: ignore[arg-type]
        alike[mine.n_cells, heads, shared].append(number)
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
        self.sizes = [trainer.n_genes for trainer in trainers]
        count, width, most = len(trainers), self.settings.hidden[0], max(self.sizes)
        self.noise = [generator(trainer.task, "yoto noise") for trainer in trainers]
        self.scores = torch.full((count, most), -torch.inf, device=self.device)
        self.first = torch.zeros(count, most, width, device=self.device)
        self.gain = torch.zeros(count, most, device=self.device)
        columns = torch.zeros(count, most, dtype=torch.int64, device=self.device)
        for number, (trainer, size) in enumerate(zip(trainers, self.sizes, strict=True)):
            self.scores[number, :size] = trainer.scores
            self.first[number, :size] = trainer.network.first
            self.gain[number, :size] = trainer.cells.gain
            columns[number, :size] = trainer.cells.columns
        self.network = Networks.of([trainer.network for trainer in trainers])
        self.data, start, width_of = _together([trainer.cells for trainer in trainers])
        rows = np.stack([trainer.cells.rows for trainer in trainers])
        # Where a cell begins in the data, and how far a gene lies behind that.
        self.cells = (start + torch.from_numpy(rows) * width_of).to(self.device)
        self.genes = columns
        self.labels = [
            torch.stack([trainer.cells.labels[task].values for trainer in trainers])
            for task in range(len(trainers[0].cells.labels))
        ]
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

        s, n_cells = self.settings, self.trainers[0].cells.n_cells
        n_batches = max(1, round(n_cells / s.batch_size))
        last = max(1, s.epochs * n_batches - 1)
        curves = [new_curves(trainer.cells.labels) for trainer in self.trainers]
        panels: list[set[int]] = [set() for _ in self.trainers]
        for epoch, (batches, draws) in enumerate(self._epochs(n_batches)):
            total = torch.zeros(len(self.trainers), len(self.labels), device=self.device)
            for number, (batch, drawn) in enumerate(zip(batches, draws, strict=True)):
                fraction = (epoch * n_batches + number) / last
                ks, taus = self._schedules(fraction)
                total += self.step(batch.to(self.device), ks, taus, *drawn)
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

    def _epochs(self, n_batches: int) -> Iterator[tuple[list[torch.Tensor], list[Any]]]:
        """Cells of each batch (M, B) and what is drawn for it, epoch by epoch.

        The draws of the next epoch are made while the device is busy with this one.
        """
        import torch

        n_cells = self.trainers[0].cells.n_cells
        lengths = [len(part) for part in np.array_split(np.arange(n_cells), n_batches)]
        workers = max(1, min(len(self.trainers), self.trainers[0].task.n_jobs))
        pool = ThreadPoolExecutor(workers) if self.device.type == "cuda" else None

        def drawn(number: int) -> tuple[list[np.ndarray], list[list[torch.Tensor]]]:
            order = self.trainers[number].shuffle.permutation(n_cells)
            return np.array_split(order, n_batches), [self._draw(number, n) for n in lengths]

        def submit() -> Any:
            numbers = range(len(self.trainers))
            return pool.map(drawn, numbers) if pool else map(drawn, numbers)

        try:
            coming = submit()
            for epoch in range(self.settings.epochs):
                orders, draws = zip(*coming, strict=True)
                if epoch + 1 < self.settings.epochs:
                    coming = submit()
                batches = [torch.from_numpy(np.stack(part)) for part in zip(*orders, strict=True)]
                yield batches, [self._joined(part) for part in zip(*draws, strict=True)]
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)

    def _draw(self, number: int, length: int) -> list[torch.Tensor]:
        """What a model draws in a step: the scores' noise, and which units stay in each layer."""
        import torch

        noise, s = self.noise[number], self.settings
        found = [torch.empty(self.sizes[number]).exponential_(generator=noise)]
        for width in s.hidden if s.dropout else ():
            found.append(torch.empty(length, width).uniform_(generator=noise) >= s.dropout)
        return found

    def _joined(self, draws: Sequence[list[torch.Tensor]]) -> tuple[Any, list[Any]]:
        """The same of all models: noise (M, n_genes), and for each layer bool (B, M * width)."""
        import torch

        noise = torch.ones(self.scores.shape)
        for number, (own, *_) in enumerate(draws):
            noise[number, : len(own)] = own
        layers = zip(*(kept for _, *kept in draws), strict=True)
        return noise, [torch.cat(layer, dim=1) for layer in layers]

    def step(
        self,
        batch: torch.Tensor,
        ks: Sequence[int],
        taus: Sequence[float],
        noise: torch.Tensor,
        kept: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Draw a panel for each model, train all on it, return the losses (M, tasks)."""
        import torch

        count, most = len(self.trainers), max(ks)
        beta = torch.tensor([[t.settings.beta] for t in self.trainers], device=self.device)
        gumbel = -noise.to(self.device).log()
        top = TopKs(self.scores + beta * gumbel, self.sizes, ks, taus)
        genes = top.order[:, : top.reach]
        x = self._expression(batch, genes)
        chosen = genes.unsqueeze(-1).expand(-1, -1, self.first.shape[2])
        weights = self.first.gather(1, chosen)
        # Of the genes within reach a model sees its first k: those of smaller panels get weight 0.
        sizes = torch.tensor(ks, device=self.device).unsqueeze(1)
        seen = torch.arange(most, device=self.device) < sizes
        used = weights[:, :most] * seen.unsqueeze(-1)
        hidden = torch.bmm(x[:, :, :most], used).transpose(0, 1).flatten(1).requires_grad_()
        training = [layer.to(self.device) for layer in kept]
        losses = self.losses(self.network.forward(hidden, kept=training), batch)
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

    def _expression(self, batch: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Scaled expression of each model's cells and genes, (M, B, genes)."""
        places = self.cells.gather(1, batch).unsqueeze(2) + self.genes.gather(1, genes).unsqueeze(1)
        values = self.data.index_select(0, places.flatten()).view(places.shape).float()
        return values * self.gain.gather(1, genes).unsqueeze(1)

    def losses(self, outputs: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Mean loss over the cells that have the label, (M, tasks); 0 where none has."""
        import torch

        found = []
        for labels, values in zip(self.trainers[0].cells.labels, self.labels, strict=True):
            output = outputs[labels.target.name]
            if labels.target.kind == "classification":
                truth = values.gather(1, batch)
                each = torch.nn.functional.cross_entropy(
                    output.flatten(0, 1),
                    truth.flatten(),
                    ignore_index=-1,
                    label_smoothing=self.settings.label_smoothing,
                    reduction="none",
                ).view(truth.shape)
                seen = (truth >= 0).sum(dim=1)
            else:
                index = batch.unsqueeze(2).expand(-1, -1, values.shape[2])
                truth = values.gather(1, index)
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


def _together(cells: Sequence[Cells]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices of several runs in one, each once.

    Returns
    -------
    All values in one row; where the matrix of each run begins, and how wide it is, int64 (M, 1).
    """
    import torch

    matrices: dict[int, torch.Tensor] = {}
    places: dict[int, int] = {}
    total = 0
    for mine in cells:
        if id(mine.matrix) not in matrices:
            dense = mine.matrix
            if not isinstance(dense, torch.Tensor):
                dense = tensor_of(np.asarray(dense.toarray(), dtype=np.float32), mine.device)
            matrices[id(mine.matrix)], places[id(mine.matrix)] = dense, total
            total += dense.numel()
    parts = [matrix.reshape(-1) for matrix in matrices.values()]
    kinds = {part.dtype for part in parts}
    if len(kinds) > 1:
        parts = [part.float() for part in parts]
    data = parts[0] if len(parts) == 1 else torch.cat(parts)
    start = torch.tensor([[places[id(mine.matrix)]] for mine in cells])
    width = torch.tensor([[matrices[id(mine.matrix)].shape[1]] for mine in cells])
    return data, start, width
