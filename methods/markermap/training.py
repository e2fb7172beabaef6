"""One training: find the learning rate, train until validation says stop, keep the last epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator, one_thread

from .data import Cells
from .lr_finder import find_lr
from .model import Model, Objective
from .params import Settings, temperature
from .selector import Concrete, FreeLogits, RunningLogits, Selector
from .stopping import EarlyStop

if TYPE_CHECKING:
    import torch

_VARIANCE_LIMIT = 10.0


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes
    ----------
    model
        Selector and networks after the last epoch.
    genes
        int64: all genes as columns of the matrix, best first; the panel is the first k.
    scores
        float64: their scores, in that order.
    weight
        float32, shape (hidden, k): the encoder's first layer on the panel.
    lr, temperature
        Learning rate of the training and temperature of its last epoch.
    stopped
        ``"early stopping"`` or ``"max_epochs"``.
    curves
        Losses, temperature and turnover of the panel, one number per epoch. A validation loss that
        is not finite is None.
    """

    model: Model
    genes: np.ndarray
    scores: np.ndarray
    weight: np.ndarray
    lr: float
    temperature: float
    stopped: str
    curves: dict[str, list[float | None]]


def train(task: Task, settings: Settings) -> Trained:
    """Train selector and networks together.

    On the CPU one thread does it, so that the result does not depend on `Task.n_jobs`.

    Raises
    ------
    NotApplicable
        When there are too few cells, or no gene to choose from.
    ValueError
        When the training loss is no longer finite.
    """
    with one_thread():
        return _train(task, settings)


def _train(task: Task, settings: Settings) -> Trained:
    cells = Cells.of(task, labelled=settings.tradeoff < 1)
    model = build(task, settings)
    lr = settings.lr or _search(task, settings, cells, copy.deepcopy(model))
    noise = generator(task, "markermap noise", task.device)
    validation_noise = generator(task, "markermap validation noise", task.device)
    steps = Steps(model, cells, settings, lr, task.rng("markermap batches"), noise)
    stop = EarlyStop(settings.early_stop, settings.patience, settings.min_epochs)
    curves: dict[str, list[float | None]] = {
        name: [] for name in ("train loss", "validation loss", "temperature", "panel turnover")
    }
    panel: set[int] = set()
    for epoch in range(settings.max_epochs):
        tau = temperature(settings, epoch)
        train_loss = steps.epoch(epoch)
        # The temperature is lowered at the end of an epoch, before validation.
        after = temperature(settings, epoch + 1)
        genes, weight = model.selector.hard(model.first.weight, after, validation_noise)
        drawn = validation_noise if settings.validation_noise else None
        losses = [
            (float(model.panel_loss(x, y, genes, weight, drawn)), len(x))
            for x, y in cells.validated()
        ]
        loss = sum(mean * n for mean, n in losses) / len(cells.validation)
        before, panel = panel, set(genes.tolist())
        curves["train loss"].append(round(train_loss, 5))
        curves["validation loss"].append(round(loss, 5) if math.isfinite(loss) else None)
        curves["temperature"].append(round(tau, 6))
        curves["panel turnover"].append(round(1 - len(panel & before) / task.k, 4))
        task.progress((epoch + 1) / settings.max_epochs, f"loss {train_loss:.3f}, tau {tau:.3g}")
        if ended := stop.update(epoch + 1, loss):
            break
    scores = model.selector.scores().double().cpu().numpy()
    chosen = genes.cpu().numpy()
    rest = np.setdiff1d(np.argsort(-scores, kind="stable"), chosen, assume_unique=True)
    order = np.concatenate([chosen, rest])
    return Trained(
        model=model,
        genes=order,
        scores=scores[order],
        weight=weight.cpu().numpy(),
        lr=lr,
        temperature=tau,
        stopped="early stopping" if ended else "max_epochs",
        curves=curves,
    )


def build(task: Task, settings: Settings) -> Model:
    """A model with fresh weights on the task's device."""
    import torch

    device = torch.device(task.device)
    initial = generator(task, "markermap weights")
    n_genes, k = task.n_genes, task.k
    selector: Selector
    if settings.variant == "concrete-vae":
        selector = Concrete(n_genes, k, settings.readout, initial, device)
    elif settings.variant == "gumbel-vae":
        selector = FreeLogits(n_genes, k, initial, device)
    else:
        selector = RunningLogits(n_genes, k, settings.hidden, settings.beta, initial, device)
    return Model(
        selector,
        n_genes,
        settings.hidden,
        settings.latent,
        len(task.target.classes) if settings.tradeoff < 1 else 0,
        Objective(
            tradeoff=settings.tradeoff,
            kl_weight=settings.kl_weight,
            per_gene=settings.per_gene,
            variance_limit=_VARIANCE_LIMIT if settings.clamp_variance else None,
        ),
        initial,
        device,
    )


class Steps:
    """Optimisation steps of a model over shuffled batches."""

    def __init__(
        self,
        model: Model,
        cells: Cells,
        settings: Settings,
        lr: float,
        rng: np.random.Generator,
        noise: torch.Generator,
    ) -> None:
        import torch

        self.model, self.cells, self.settings = model, cells, settings
        self.rng, self.noise = rng, noise
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def step(self, x: torch.Tensor, y: torch.Tensor | None, tau: float) -> torch.Tensor:
        """Train on a batch; return its loss."""
        loss = self.model.training_loss(x, y, tau, self.noise)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def epoch(self, epoch: int) -> float:
        """Train on all training cells once; return the mean loss per cell."""
        import torch

        tau = temperature(self.settings, epoch)
        losses, sizes = [], []
        for x, y in self.cells.shuffled(self.settings.batch_size, self.rng):
            losses.append(self.step(x, y, tau))
            sizes.append(len(x))
        found = torch.stack(losses).double().cpu().numpy()
        wrong = found[~np.isfinite(found)]
        if len(wrong):
            raise ValueError(
                f"{self.settings.variant}: the training loss became {wrong[0]} in epoch "
                f"{epoch + 1}; set a smaller learning rate (lr, or max_lr for the search), and "
                f"check that the expression is scaled and has no NaN"
            )
        return float(np.average(found, weights=sizes))

    def endless(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, float]]:
        """Batches and temperatures, epoch after epoch."""
        epoch = 0
        while True:
            tau = temperature(self.settings, epoch)
            for x, y in self.cells.shuffled(self.settings.batch_size, self.rng):
                yield x, y, tau
            epoch += 1


def _search(task: Task, settings: Settings, cells: Cells, model: Model) -> float:
    """Learning rate for a model; trains the model it is given."""
    noise = generator(task, "markermap search noise", task.device)
    rng = task.rng("markermap search batches")
    steps = Steps(model, cells, settings, settings.max_lr, rng, noise)
    batches = steps.endless()

    def step(rate: float) -> float:
        for group in steps.optimizer.param_groups:
            group["lr"] = rate
        return float(steps.step(*next(batches)))

    longest = settings.max_epochs * math.ceil(len(cells.training) / settings.batch_size)
    return find_lr(step, settings.max_lr, min(settings.lr_steps, longest))
