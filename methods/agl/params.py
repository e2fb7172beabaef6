"""Parameters of the estimator, the two schedules' values, and the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from panelbench.errors import InputError

from .hyper import Normalizer
from .optimizers import Rule

Strategy = Literal["agl", "all", "none", "random", "hvg", "amal", "uncertainty"]
Schedule = Literal["code", "paper"]
Hyper = Literal["fast", "faithful"]


@dataclass(frozen=True)
class Params:
    """Parameters; the schedule gives the values of those that are None.

    Attributes
    ----------
    strategy
        Which auxiliary genes count: ``"agl"`` the first k by variability, k learned; ``"all"``;
        ``"none"``; ``"hvg"`` the first `n_auxiliary`; ``"random"`` as many at random; ``"amal"``
        one learned weight per gene; ``"uncertainty"`` all genes, weighted by their losses.
    n_auxiliary
        How many auxiliary genes ``"hvg"`` and ``"random"`` take.
    schedule
        ``"code"``: from the epoch `warmup` on, every epoch first moves the cut and then trains, as
        the published code does. ``"paper"``: training until it gains nothing more, then the cut
        until it gains nothing more, and so on, as the published algorithm says.
    hyper
        Derivative of the validation loss: ``"fast"`` for one small step of plain descent,
        ``"faithful"`` for `inner_steps` steps.
    inner_steps, inner_rule
        Steps of ``"faithful"``: 12 in the code, 2 in the paper; by Adam or plain descent.
    inner_lr
        Their size; None takes `lr`.
    normalizer
        The loss is a plain sum over genes (``"sum"``, the paper) or is divided by the sum of the
        weights, either taken as a constant (``"detached"``, the code) or not (``"attached"``).
    tau, start
        Softness of the cut, and where it starts, in units of position (the first gene is 0, the
        last 1). Tau is raised to 2 / (n - 1) for few genes.
    hidden, normalise
        Units of the trunk's layers, at least one; layer normalisation in them.
    lr, lr_weights
        Rate of the network, and of the cut or the free weights.
    batch_size, batch_pass
        Cells per training step, and per step of the cut (64 in the code, 128 in the paper); a rest
        of fewer than 8 is left out.
    warmup
        Epochs before the cut moves (schedule ``"code"``).
    epochs, patience
        Most epochs, and epochs without a better validation correlation after which training ends.
    split_validation
        Use half of the validation cells to move the cut and half to stop, instead of all for both.
    within_groups
        Centre outputs within each group of cells (slide, donor) of a batch, so that the
        differences between groups are not rewarded.
    min_cells
        Genes expressed in fewer training cells are left out.
    """

    strategy: Strategy = "agl"
    n_auxiliary: int | None = None
    schedule: Schedule = "code"
    hyper: Hyper = "fast"
    inner_steps: int | None = None
    inner_rule: Rule = "adam"
    inner_lr: float | None = None
    normalizer: Normalizer | None = None
    tau: float = 0.01
    start: float = 0.5
    hidden: tuple[int, ...] = (512, 256)
    normalise: bool = True
    lr: float = 1e-3
    lr_weights: float = 3e-3
    batch_size: int = 128
    batch_pass: int | None = None
    warmup: int = 10
    epochs: int = 1000
    patience: int = 20
    split_validation: bool = False
    within_groups: bool = False
    min_cells: int = 3


SCHEDULES: dict[Schedule, dict[str, Any]] = {
    "code": {"inner_steps": 12, "normalizer": "detached", "batch_pass": 64},
    "paper": {"inner_steps": 2, "normalizer": "sum", "batch_pass": 128},
}
"""Values of the parameters that are None."""


@dataclass(frozen=True)
class Settings:
    """What a training is done with; `Params` describes each field."""

    strategy: Strategy
    n_auxiliary: int
    schedule: Schedule
    hyper: Hyper
    inner_steps: int
    inner_rule: Rule
    inner_lr: float
    normalizer: Normalizer
    tau: float
    start: float
    hidden: tuple[int, ...]
    normalise: bool
    lr: float
    lr_weights: float
    batch_size: int
    batch_pass: int
    warmup: int
    epochs: int
    patience: int
    split_validation: bool
    within_groups: bool
    min_cells: int


def settings(params: Params) -> Settings:
    """Settings of a training, checked, with the schedule's values where a parameter is None.

    Raises
    ------
    InputError
        When parameters are out of range or do not fit together; it names them.
    """
    given = {item.name: getattr(params, item.name) for item in fields(params)}
    values = SCHEDULES[params.schedule] | {k: v for k, v in given.items() if v is not None}
    values = {"n_auxiliary": 0, "inner_lr": params.lr} | values
    found = Settings(**values)
    counted = params.strategy in ("hvg", "random")
    rules = {
        "hidden": len(found.hidden) >= 1 and min(found.hidden, default=1) >= 1,
        "n_auxiliary": (found.n_auxiliary >= 1) if counted else params.n_auxiliary is None,
        **{n: values[n] >= 1 for n in ("inner_steps", "epochs", "patience", "min_cells")},
        **{n: values[n] > 0 for n in ("inner_lr", "tau", "lr", "lr_weights")},
        **{n: values[n] >= 8 for n in ("batch_size", "batch_pass")},
        "start": 0 <= found.start <= 1,
        "warmup": found.warmup >= 0,
    }
    wrong = [f"{name} = {values[name]!r}" for name, fits in rules.items() if not fits]
    if wrong:
        raise InputError(f"agl ({params.strategy}): out of range: {', '.join(wrong)}")
    if found.hyper == "fast" and found.normalizer == "attached":
        raise InputError("agl: normalizer attached needs hyper faithful")
    return found
