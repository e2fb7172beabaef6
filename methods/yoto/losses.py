"""Losses of several networks, cell by cell, and which cells count for which network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .data import Labels


def per_cell(
    output: torch.Tensor,
    truth: torch.Tensor,
    kind: str,
    weight: torch.Tensor | None,
    smoothing: float,
) -> torch.Tensor:
    """Loss of every cell under every network; 0 where the label is missing.

    Parameters
    ----------
    output
        Shape (M, n_cells, n_outputs).
    truth
        Classes (n_cells,), -1 where missing, or values (n_cells, n_outputs), NaN where missing.
    kind
        ``"classification"`` or ``"regression"``.
    weight
        Weight of each class, or None.
    smoothing
        Share of a label spread over all classes.

    Returns
    -------
    Shape (M, n_cells).
    """
    import torch

    count, n_cells = output.shape[:2]
    if kind == "classification":
        losses = torch.nn.functional.cross_entropy(
            output.reshape(count * n_cells, -1),
            truth.repeat(count),
            weight=weight,
            ignore_index=-1,
            label_smoothing=smoothing,
            reduction="none",
        )
        return losses.view(count, n_cells)
    seen = ~torch.isnan(truth)
    return (output - torch.where(seen, truth, output.detach())).square().mean(dim=2)


def per_cell_apart(
    output: torch.Tensor,
    truth: torch.Tensor,
    kind: str,
    weight: torch.Tensor | None,
    smoothing: float,
) -> torch.Tensor:
    """As `per_cell`, for networks of several runs that have cells and class weights of their own.

    Parameters
    ----------
    output
        Shape (R, M, n_cells, n_outputs): M networks of each run.
    truth
        Shape (R, n_cells), or (R, n_cells, n_outputs).
    kind, smoothing
        As of `per_cell`.
    weight
        Weight of each class, (R, n_classes), or None.

    Returns
    -------
    Shape (R, M, n_cells).
    """
    import torch

    if kind != "classification":
        seen = ~torch.isnan(truth).unsqueeze(1)
        wanted = torch.where(seen, truth.unsqueeze(1), output.detach())
        return (output - wanted).square().mean(dim=3)
    losses = -output.log_softmax(dim=3)
    if weight is not None:
        losses = losses * weight[:, None, None]
    index = truth.clamp(min=0)[:, None, :, None].expand(-1, output.shape[1], -1, 1)
    found = (1 - smoothing) * losses.gather(3, index).squeeze(3)
    found = found + smoothing * losses.mean(dim=3)
    return found * (truth >= 0).unsqueeze(1)


def present(labels: Labels, values: torch.Tensor) -> torch.Tensor:
    """Which of these labels are there: bool, shape (n_cells,)."""
    import torch

    if labels.target.kind == "classification":
        return values >= 0
    return ~torch.isnan(values).any(dim=1)
