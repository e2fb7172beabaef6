"""What a training is done with."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """What a training is done with; the methods' parameters describe each field."""

    epochs: int
    batch_size: int
    hidden: tuple[int, ...]
    deepen: bool
    batch_norm: bool
    dropout: float
    input_dropout: float | None
    cells_per_gene: float
    label_smoothing: float
    weight_decay: float
    standardize: bool
    lr: float
    lr_scores: float
    beta: float
    tau_start: float
    tau_end: float
    anneal: float
    class_balance: float
    folds: int
    search_hidden: tuple[int, ...]
    start: int
    prior: float
    margin: float
    steps: int
    levels: tuple[float, ...]
    members: int
    held_out: bool

    def shared(self) -> Settings:
        """The same without what each of several runs in step may have its own values of."""
        return replace(self, beta=0.0, tau_start=0.0, tau_end=0.0, anneal=0.0)
