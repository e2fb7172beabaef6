"""The training loop that elimination and selection share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .data import Cells

if TYPE_CHECKING:
    import torch

    from .network import Loss, Network


class Layer(Protocol):
    """What stands between the inputs and the network: gates or a mask."""

    theta: torch.Tensor

    def sample(self, n_cells: int, temperature: float) -> torch.Tensor:
        """Masks of shape (n_cells, n_genes)."""
        ...

    def repair(self) -> int:
        """Mend the layer after an epoch; return how many rows were drawn anew."""
        ...

    def converged(self, n_cells: int, temperature: float) -> bool:
        """Whether sampling no longer changes the masks."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a stage is trained; the methods' parameters describe each field."""

    epochs: int
    batch_size: int
    lr: float
    t_start: float
    t_end: float

    def temperature(self, fraction: float) -> float:
        """Temperature at a fraction of the training: exponential from `t_start` to `t_end`."""
        return float(self.t_start * (self.t_end / self.t_start) ** fraction)


@dataclass
class History:
    """What happened in a training.

    Attributes
    ----------
    loss, validation
        Mean loss of each epoch (the second only with cells held out).
    repaired
        Rows drawn anew after each epoch.
    temperature
        Temperature after the last step.
    steps
        Steps taken.
    converged
        Whether the layer's test ended the training.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    repaired: list[int] = field(default_factory=list)
    temperature: float = float("nan")
    steps: int = 0
    converged: bool = False


def train(
    layer: Layer,
    network: Network,
    cells: Cells,
    loss: Loss,
    settings: Settings,
    shuffle: np.random.Generator,
    *,
    penalty: float = 0.0,
    progress: Callable[[float, str], None],
) -> History:
    """Train layer and network together by Adam until the layer converges or the epochs end.

    Parameters
    ----------
    layer, network
        What to train, in place.
    cells
        Inputs (in the order of the network's) and truth.
    loss
        Loss of a batch.
    settings
        Epochs, batches, learning rate and temperatures. The temperature falls with every step and
        starts anew with every call.
    shuffle
        Draws the batches. The last cells of an epoch that fill no batch are left out.
    penalty
        Weight of the mean number of open genes in the loss.
    progress
        Called after each epoch.
    """
    import torch

    batch_size = min(settings.batch_size, len(cells.training))
    n_batches = len(cells.training) // batch_size
    n_steps = n_batches * settings.epochs
    optimizer = torch.optim.Adam([layer.theta, *network.parameters()], lr=settings.lr, fused=True)
    history = History()
    for epoch in range(settings.epochs):
        order = torch.from_numpy(shuffle.permutation(cells.training)).to(cells.device)
        total = torch.zeros((), device=cells.device)
        for rows in order[: n_batches * batch_size].view(n_batches, batch_size):
            mask = layer.sample(batch_size, settings.temperature(history.steps / n_steps))
            output = network.forward(cells.inputs.index_select(0, rows).float(), mask)
            value = loss(output, cells.truth.index_select(0, rows))
            if penalty:
                value = value + penalty * mask.sum(dim=1).mean()
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += value.detach()
            history.steps += 1
        history.temperature = settings.temperature(history.steps / n_steps)
        history.loss.append(round(total.item() / n_batches, 5))
        if len(cells.held_out):
            history.validation.append(_validate(layer, network, cells, loss, history.temperature))
        progress(
            (epoch + 1) / settings.epochs,
            f"loss {history.loss[-1]:.3f}, temperature {history.temperature:.3g}",
        )
        # A row drawn anew needs training: after the last epoch there is none.
        history.repaired.append(layer.repair() if epoch + 1 < settings.epochs else 0)
        if not history.repaired[-1] and layer.converged(batch_size, history.temperature):
            history.converged = True
            break
    return history


def _validate(
    layer: Layer, network: Network, cells: Cells, loss: Loss, temperature: float, size: int = 256
) -> float:
    """Mean loss of the held-out cells, with masks drawn at the current temperature."""
    import torch

    rows = torch.from_numpy(cells.held_out).to(cells.device)
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            mask = layer.sample(len(part), temperature)
            output = network.forward(cells.inputs.index_select(0, part).float(), mask)
            total += len(part) * loss(output, cells.truth.index_select(0, part)).item()
    return round(total / len(rows), 5)
