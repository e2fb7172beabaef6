"""Parameters of the five methods, their presets, and the settings of a training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from .lr_finder import LOWEST
from .stopping import Form

Variant = Literal["markermap", "markermap-joint", "markermap-unsup", "concrete-vae", "gumbel-vae"]
Readout = Literal["argmax", "noisy"]
Preset = Literal["paper", "robust"]


@dataclass(frozen=True)
class Params:
    """Parameters that all five methods share.

    Attributes
    ----------
    preset
        ``"paper"``: the settings of the published benchmark. ``"robust"``: repaired where those
        cannot work. It gives the values of the parameters that are None (see `PRESETS`).
    hidden
        Width of all hidden layers; None takes the paper's: 64 below 1000 genes, 256 up to 4000,
        500 beyond.
    latent
        Latent variables.
    batch_size
        Cells per step; a last batch of a single cell is left out.
    min_epochs, max_epochs
        Fewest and most passes over the training cells; where the fewest are more than the most,
        the most count.
    early_stop
        How patience is counted: see `stopping.EarlyStop`.
    patience
        Epochs without a better validation loss after which training ends.
    lr
        Learning rate; None searches for it.
    max_lr
        Largest learning rate of the search.
    lr_steps
        Steps of the search, but no more than the training may have.
    t_start, t_decay, t_min
        Temperature: its first value, its factor per epoch, its floor.
    kl_weight
        Weight of the Kullback-Leibler term in the reconstruction loss.
    clamp_variance
        Keep every gene's predicted log-variance within [-10, 10].
    validation_noise
        Draw the latent variables in validation, instead of taking their mean.
    sample
        The same in the predictor's reconstruction, from a stored seed.
    """

    preset: Preset = "robust"
    hidden: Annotated[int, Ge(1)] | None = None
    latent: Annotated[int, Ge(1)] = 16
    batch_size: Annotated[int, Ge(2)] = 64
    min_epochs: Annotated[int, Ge(1)] = 25
    max_epochs: Annotated[int, Ge(1)] = 100
    early_stop: Form | None = None
    patience: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] | None = None
    max_lr: Annotated[float, Gt(LOWEST)] | None = None
    lr_steps: Annotated[int, Ge(1)] = 500
    t_start: Annotated[float, Gt(0)] = 3.0
    t_decay: Annotated[float, Gt(0), Le(1)] | None = None
    t_min: Annotated[float, Gt(0)] | None = None
    kl_weight: Annotated[float, Ge(0)] = 0.1
    clamp_variance: bool | None = None
    validation_noise: bool | None = None
    sample: bool = False


@dataclass(frozen=True)
class MarkerMapParams(Params):
    """Parameters of MarkerMap.

    Attributes
    ----------
    beta
        Share of the running logits that a batch keeps.
    """

    beta: Annotated[float, Ge(0), Lt(1)] = 0.95


@dataclass(frozen=True)
class SupervisedParams(MarkerMapParams):
    """Parameters of supervised MarkerMap: the paper's settings, which work well for it."""

    preset: Preset = "paper"


@dataclass(frozen=True)
class JointParams(MarkerMapParams):
    """Parameters of joint MarkerMap.

    Attributes
    ----------
    tradeoff
        Weight of the reconstruction, between 0 and 1; the classification has the rest.
    per_gene
        Divide the reconstruction loss, a sum over genes, by their number: without it the weight of
        the classification is that of a few genes.
    """

    tradeoff: Annotated[float, Ge(0), Le(1)] = 0.5
    per_gene: bool | None = None


@dataclass(frozen=True)
class ConcreteParams(Params):
    """Parameters of the concrete VAE.

    Attributes
    ----------
    readout
        How the panel is read: see `selector.Concrete`.
    """

    readout: Readout | None = None


_PAPER: dict[str, Any] = {
    "early_stop": "sticky",
    "patience": 3,
    "max_lr": 1e-4,
    "t_decay": 0.95,
    "t_min": 1e-4,
    "clamp_variance": False,
    "validation_noise": True,
    "per_gene": False,
    "readout": "noisy",
}
_ROBUST: dict[str, Any] = {
    "early_stop": "late",
    "patience": 3,
    "max_lr": 1e-3,
    "t_decay": 0.95,
    "t_min": 1e-4,
    "clamp_variance": True,
    "validation_noise": False,
    "per_gene": True,
    "readout": "argmax",
}
# Free logits start at a standard deviation of 1 and move by about a learning rate per step.
_ROBUST_FREE = _ROBUST | {"lr": 1e-3}

PRESETS: dict[str, dict[Variant, dict[str, Any]]] = {
    "paper": {
        "markermap": _PAPER | {"max_lr": 1e-3},
        "markermap-joint": _PAPER,
        "markermap-unsup": _PAPER | {"patience": 4},
        "concrete-vae": _PAPER | {"t_decay": 0.99},
        "gumbel-vae": _PAPER | {"max_lr": 1e-5, "patience": 10, "t_min": 1e-3},
    },
    "robust": {
        "markermap": _ROBUST,
        "markermap-joint": _ROBUST,
        "markermap-unsup": _ROBUST,
        "concrete-vae": _ROBUST_FREE,
        "gumbel-vae": _ROBUST_FREE,
    },
}
"""Values of the parameters that are None, by preset and method."""

_TRADEOFF: dict[Variant, float] = {"markermap": 0.0}  # 1, reconstruction alone, for the others


@dataclass(frozen=True)
class Settings:
    """What a training is done with; the parameters describe each field."""

    variant: Variant
    hidden: int
    latent: int
    batch_size: int
    min_epochs: int
    max_epochs: int
    early_stop: Form
    patience: int
    lr: float | None
    max_lr: float
    lr_steps: int
    t_start: float
    t_decay: float
    t_min: float
    kl_weight: float
    clamp_variance: bool
    validation_noise: bool
    sample: bool
    beta: float
    tradeoff: float
    per_gene: bool
    readout: Readout


def width(n_genes: int) -> int:
    """Hidden width for a number of genes; gives the paper's for each of its data sets."""
    if n_genes < 1000:
        return 64
    return 256 if n_genes <= 4000 else 500


def temperature(settings: Settings, epoch: int) -> float:
    """Temperature of an epoch, counted from 0."""
    return max(settings.t_min, settings.t_start * settings.t_decay**epoch)


def settings(variant: Variant, params: Params, n_genes: int) -> Settings:
    """Settings of a training, with the preset's values where a parameter is None."""
    given = {item.name: getattr(params, item.name) for item in fields(params)}
    preset = PRESETS[given.pop("preset")][variant]
    values: dict[str, Any] = {
        "hidden": width(n_genes),
        "lr": None,
        "beta": 0.0,
        "tradeoff": _TRADEOFF.get(variant, 1.0),
        **preset,
        **{name: value for name, value in given.items() if value is not None},
    }
    values["min_epochs"] = min(values["min_epochs"], values["max_epochs"])
    # At 0 and 1 only one loss is left, and dividing it would change nothing but its size.
    values["per_gene"] = values["per_gene"] and 0 < values["tradeoff"] < 1
    return Settings(variant=variant, **values)
