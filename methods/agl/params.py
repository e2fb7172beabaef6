"""Parameters of the estimator, the two schedules' values, and the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from .cells import SMALLEST
from .hyper import Normalizer
from .images import Images
from .optimizers import Rule

Strategy = Literal["agl", "all", "none", "random", "hvg", "amal", "uncertainty"]
Schedule = Literal["code", "paper"]
Hyper = Literal["fast", "faithful"]


@dataclass(frozen=True)
class Training:
    """How a network is trained; the schedule gives the values of those that are None.

    Attributes
    ----------
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
        Units of the trunk's layers, at least one unless an image network is before them; layer
        normalisation in them.
    images, weights, augment
        The inputs are patches, and their features are learned too, by a small network (``"cnn"``)
        or a ResNet-18; file of weights it starts from, else they are drawn; flips and quarter
        turns of the patches at random.
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
    """

    schedule: Schedule = "code"
    hyper: Hyper = "fast"
    inner_steps: Annotated[int, Ge(1)] | None = None
    inner_rule: Rule = "adam"
    inner_lr: Annotated[float, Gt(0)] | None = None
    normalizer: Normalizer | None = None
    tau: Annotated[float, Gt(0)] = 0.01
    start: Annotated[float, Ge(0), Le(1)] = 0.5
    hidden: tuple[Annotated[int, Ge(1)], ...] = (512, 256)
    normalise: bool = True
    images: Images = "none"
    weights: str = ""
    augment: bool = True
    lr: Annotated[float, Gt(0)] = 1e-3
    lr_weights: Annotated[float, Gt(0)] = 3e-3
    batch_size: Annotated[int, Ge(SMALLEST)] = 128
    batch_pass: Annotated[int, Ge(SMALLEST)] | None = None
    warmup: Annotated[int, Ge(0)] = 10
    epochs: Annotated[int, Ge(1)] = 1000
    patience: Annotated[int, Ge(1)] = 20
    split_validation: bool = False
    within_groups: bool = False

    def __post_init__(self) -> None:
        if self.hyper == "fast" and self.normalizer == "attached":
            raise ValueError("normalizer attached needs hyper faithful")
        if not self.hidden and self.images == "none":
            raise ValueError("hidden: without a shared layer auxiliary genes change nothing")
        if self.weights and self.images != "resnet18":
            raise ValueError("weights: a file of weights belongs to images resnet18")


@dataclass(frozen=True)
class Params(Training):
    """Parameters of the estimator.

    Attributes
    ----------
    strategy
        Which auxiliary genes count: ``"agl"`` the first k by variability, k learned; ``"all"``;
        ``"none"``; ``"hvg"`` the first `n_auxiliary`; ``"random"`` as many at random; ``"amal"``
        one learned weight per gene; ``"uncertainty"`` all genes, weighted by their losses.
    n_auxiliary
        How many auxiliary genes ``"hvg"`` and ``"random"`` take.
    min_cells
        Genes expressed in fewer training cells are left out.
    """

    strategy: Strategy = "agl"
    n_auxiliary: Annotated[int, Ge(1)] | None = None
    min_cells: Annotated[int, Ge(1)] = 3

    def __post_init__(self) -> None:
        counted = self.strategy in ("hvg", "random")
        if counted != (self.n_auxiliary is not None):
            wanted = "needs n_auxiliary" if counted else "takes no n_auxiliary"
            raise ValueError(f"strategy {self.strategy} {wanted}, found {self.n_auxiliary}")
        super().__post_init__()


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
    images: Images
    weights: str
    augment: bool
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
    """Settings of a training: the schedule's values where a parameter is None."""
    given = {item.name: getattr(params, item.name) for item in fields(params)}
    values = SCHEDULES[params.schedule] | {k: v for k, v in given.items() if v is not None}
    return Settings(**{"n_auxiliary": 0, "inner_lr": params.lr} | values)
