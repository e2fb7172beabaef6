"""How the validation loss of the primary genes changes with the weights of the auxiliary genes.

The weights shape a few training steps, the steps shape the network, and the network has a
validation loss. Both ways here go forward:

`unrolled` carries, beside every number of H steps, its derivative by the one scalar that the
weights depend on. That is exactly what differentiating backwards through the recorded steps gives,
with the memory of one step instead of H, since nothing needs to be recorded.

`alignments` is the limit of one small step of plain descent. Such a step moves the validation loss
by minus the learning rate times ``sum_j w_j c_j``, where c_j is the scalar product of the
validation gradient and the gradient of gene j over the shared parameters. All c_j come from one
forward pass in the direction of the validation gradient.

Source of the bi-level problem: Shiku et al. 2026 (AAAI 40), equation 4 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from .network import Batch, Network, blocks
from .optimizers import Moving, Rule
from .pearson import Correlation

if TYPE_CHECKING:
    import torch

Normalizer = Literal["sum", "detached", "attached"]


def normalised(
    w: torch.Tensor, w_dot: torch.Tensor, how: Normalizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and their derivatives as they stand in the loss.

    ``"sum"`` leaves them; ``"detached"`` divides by their sum, taken as a constant; ``"attached"``
    differentiates the sum too.
    """
    if how == "sum":
        return w, w_dot
    total = w.sum()
    if how == "detached":
        return w / total, w_dot / total
    return w / total, (w_dot - w * (w_dot.sum() / total)) / total


def unrolled(
    network: Network,
    train: Batch,
    validation: Batch,
    w: torch.Tensor,
    w_dot: torch.Tensor,
    *,
    steps: int,
    lr: float,
    rule: Rule = "adam",
) -> tuple[float, float]:
    """Validation loss after some steps on one batch, and its derivative.

    Parameters
    ----------
    network
        Where the steps start; not changed. Adam's state starts at zero.
    train, validation
        Batch of all steps, and batch of the loss that is differentiated.
    w, w_dot
        Weights of the first genes in the training loss and their derivatives by the scalar,
        shape (n_active,).
    steps, lr, rule
        Number, size and kind of the steps.

    Returns
    -------
    Mean of 1 - r over the primary genes, and its derivative by the scalar.
    """
    import torch

    trunk = [Moving.at(part) for part in network.trunk]
    rows = Moving.at(network.weight[: len(w)])
    for step in range(1, steps + 1):
        hidden, hidden_dot = _moving_features(network, trunk, train)
        arriving, arriving_dot = torch.zeros_like(hidden), torch.zeros_like(hidden)
        for part in blocks(len(w)):
            row = rows.rows(part)
            found = Correlation(row.value, hidden, train.targets.rows(part))
            found.move(row.dot, hidden_dot)
            outgoing = found.gradient(w[part])
            outgoing_dot = found.gradient_tangent(w[part], w_dot[part])
            arriving.addmm_(row.value.T, outgoing)
            arriving_dot.addmm_(row.value.T, outgoing_dot).addmm_(row.dot.T, outgoing)
            gradient_dot = (outgoing_dot @ hidden.T).addmm_(outgoing, hidden_dot.T)
            row.update(outgoing @ hidden.T, gradient_dot, rule, lr, step)
        centre = train.targets.centre_features
        gradients, gradients_dot = _trunk_gradients(
            network, trunk, train, centre(arriving).T, centre(arriving_dot).T
        )
        for moving, gradient, gradient_dot in zip(trunk, gradients, gradients_dot, strict=True):
            moving.update(gradient, gradient_dot, rule, lr, step)
    hidden, hidden_dot = _moving_features(network, trunk, validation)
    primary = rows.rows(slice(network.n_primary))
    found = Correlation(primary.value, hidden, validation.targets.rows(slice(network.n_primary)))
    found.move(primary.dot, hidden_dot)
    return float((1 - found.r).mean()), float(-found.r_dot.mean())


def alignments(network: Network, train: Batch, validation: Batch, genes: slice) -> torch.Tensor:
    """Scalar products of the validation gradient with the gradients of some genes' losses.

    Parameters
    ----------
    network
        Not changed.
    train, validation
        Batch of the genes' losses; batch of the mean loss of the primary genes.
    genes
        Which genes, as rows of the network.

    Returns
    -------
    c of each gene over the trunk's parameters; positive where training on the gene lowers the
    validation loss.
    """
    import torch

    first = slice(network.n_primary)
    back: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    features, back = torch.func.vjp(  # type: ignore[misc]
        lambda *trunk: network.hidden(trunk, validation.inputs), *network.trunk
    )
    known = validation.targets.rows(first)
    weight = network.weight[first]
    found = Correlation(weight, known.centre_features(features.T), known)
    share = torch.full_like(found.r, 1 / network.n_primary)
    arriving = known.centre_features(weight.T @ found.gradient(share))
    direction = back(arriving.T)
    hidden, hidden_dot = _features(network, network.trunk, direction, train)
    result = []
    rows, targets = network.weight[genes], train.targets.rows(genes)
    for part in blocks(len(rows)):
        moved = Correlation(rows[part], hidden, targets.rows(part))
        moved.move(None, hidden_dot)
        result.append(-moved.r_dot)
    return torch.cat(result)


def _features(
    network: Network,
    trunk: Sequence[torch.Tensor],
    direction: Sequence[torch.Tensor],
    batch: Batch,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centred features of a batch and their tangents, shape (width, n_cells)."""
    import torch

    hidden, hidden_dot = torch.func.jvp(  # type: ignore[misc]
        lambda *parts: network.hidden(parts, batch.inputs), tuple(trunk), tuple(direction)
    )
    centre = batch.targets.centre_features
    return centre(hidden.T), centre(hidden_dot.T)


def _moving_features(
    network: Network, trunk: Sequence[Moving], batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    values, directions = [part.value for part in trunk], [part.dot for part in trunk]
    return _features(network, values, directions, batch)


def _trunk_gradients(
    network: Network,
    trunk: Sequence[Moving],
    batch: Batch,
    arriving: torch.Tensor,
    arriving_dot: torch.Tensor,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Gradients of the trunk's parameters and their tangents, from those of the features."""
    import torch

    def gradients(arriving: torch.Tensor, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, back = torch.func.vjp(  # type: ignore[misc]
            lambda *p: network.hidden(p, batch.inputs), *parts
        )
        found: tuple[torch.Tensor, ...] = back(arriving)
        return found

    at = (arriving, *(part.value for part in trunk))
    along = (arriving_dot, *(part.dot for part in trunk))
    values, tangents = torch.func.jvp(gradients, at, along)  # type: ignore[misc]
    return values, tangents
