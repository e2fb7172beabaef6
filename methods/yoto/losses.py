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


def present(labels: Labels, values: torch.Tensor) -> torch.Tensor:
    """Which of these labels are there: bool, shape (n_cells,)."""
    import torch

    if labels.target.kind == "classification":
        return values >= 0
    return ~torch.isnan(values).any(dim=1)
