"""When a training ends: early stopping in its three forms."""

from __future__ import annotations

import math
from typing import Literal

Form = Literal["sticky", "rolling", "late"]


class EarlyStop:
    """Stop when the validation loss has not improved for `patience` epochs in a row.

    The forms differ in what happens before `min_epochs`, when nothing may stop yet.

    Parameters
    ----------
    form
        ``"sticky"``: patience that ran out before is remembered, and training ends at
        `min_epochs` (PyTorch Lightning from 1.9). ``"rolling"``: only the epochs without
        improvement that lead up to the present one count (Lightning 1.5). ``"late"``: counting
        starts at `min_epochs`; losses before it are not looked at.
    patience
        Epochs without improvement, at least 1.
    min_epochs
        First epoch, counted from 1, after which training may end.
    """

    def __init__(self, form: Form, patience: int, min_epochs: int) -> None:
        self.form, self.patience, self.min_epochs = form, patience, min_epochs
        self.best, self.waited, self.triggered = math.inf, 0, False

    def update(self, epoch: int, loss: float) -> bool:
        """Take the validation loss of an epoch, counted from 1; True when training should end."""
        if self.form == "late" and epoch < self.min_epochs:
            return False
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        out_of_patience = self.waited >= self.patience or not math.isfinite(loss)
        self.triggered = out_of_patience or (self.triggered and self.form == "sticky")
        return self.triggered and epoch >= self.min_epochs
