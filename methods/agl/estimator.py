"""From a problem to primary genes, a cut in the list of the others, and a predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from panelbench.errors import InputError
from panelbench.nn import one_thread

from .cells import Cells, Problem, Scaler
from .images import Encoder, encoder_for
from .mask import n_kept
from .network import Network
from .ordering import Roles, assign_roles
from .params import Params, Settings, settings
from .predictor import AglPredictor
from .training import Trainer
from .weights import FreeWeights, LearnedCut, Uncertainty, Weights


@dataclass(frozen=True)
class Fitted:
    """Result of a training.

    Attributes
    ----------
    primary
        Names of the primary genes.
    auxiliary
        Names of all auxiliary genes in the order of their variability, which is not learned.
    mask
        float64 of shape (n_auxiliary,): what each counted for when the kept network was trained.
    k
        Auxiliary genes that count at least half, under the kept network's mask.
    last_k
        The same after the last epoch.
    predictor
        Of the primary genes, calibrated.
    trace
        One entry per epoch: see `training.Trainer`.
    best_epoch
        Epoch of the kept network.
    saturated
        Whether the cut stood at its bound for more than one pass.
    """

    primary: list[str]
    auxiliary: list[str]
    mask: np.ndarray
    k: int
    last_k: int
    predictor: AglPredictor
    trace: list[dict[str, Any]]
    best_epoch: int
    saturated: bool

    def selected(self, size: int | Literal["auto"] = "auto") -> list[str]:
        """Primary genes, then auxiliary ones by variability; cut at k, or at a size of one's own.

        With primary genes chosen by variability this list is that of Seurat's highly variable
        genes. What was learned is where to cut it: which genes help as training targets, not which
        are worth measuring.
        """
        if size == "auto":
            size = len(self.primary) + self.k
        return [*self.primary, *self.auxiliary][:size]


def fit(
    problem: Problem,
    params: Params,
    rng: Callable[[str], np.random.Generator],
    *,
    device: str = "cpu",
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Fitted:
    """Train a predictor of the primary genes with auxiliary genes as further targets.

    On the CPU one thread does it, so that the result does not depend on how many there are.

    Parameters
    ----------
    problem
        Training and validation cells.
    params
        Strategy, schedule, sizes and rates.
    rng
        Returns a generator for a purpose, independent of those for others.
    device
        As torch names it.
    progress
        Called after each epoch.

    Raises
    ------
    InputError
        When parameters or primary genes do not fit the data.
    NotApplicable
        When there are too few cells.
    ValueError
        When the training diverges.
    """
    chosen = settings(params)
    with one_thread():
        return _fit(problem, chosen, rng, device, progress)


def _fit(
    problem: Problem,
    settings: Settings,
    rng: Callable[[str], np.random.Generator],
    device: str,
    progress: Callable[[float, str], None],
) -> Fitted:
    training = ~problem.validation
    roles = assign_roles(
        problem.expression[training],
        problem.genes,
        problem.primary,
        auxiliary=problem.auxiliary,
        exclude=problem.exclude,
        min_cells=settings.min_cells,
    )
    encoder, scaler, inputs = _inputs(problem, settings, rng("agl images"), device)
    used = _used(roles, settings, rng("agl random genes"))
    weights = _weights(len(roles.primary), len(used), settings)
    halves = rng("agl halves") if settings.split_validation else None
    cells = Cells.of(
        problem,
        np.concatenate([roles.primary, roles.auxiliary[used]]),
        inputs,
        halves=halves,
        device=device,
    )
    network = Network(
        (inputs.shape[1] if encoder is None else encoder.width, *settings.hidden),
        len(roles.primary),
        len(used),
        rng("agl parameters"),
        normalise=settings.normalise,
        encoder=encoder,
        device=device,
    )
    trainer = Trainer(network, weights, cells, settings, rng("agl batches"), progress)
    best = trainer.run()
    primary = problem.genes[roles.primary].tolist()
    predictor = AglPredictor.of(best.network, scaler, primary)
    predictor.calibrate(problem.inputs[training], problem.expression[training][:, roles.primary])
    mask = np.zeros(len(roles.auxiliary))
    mask[used] = best.mask
    return Fitted(
        primary=primary,
        auxiliary=problem.genes[roles.auxiliary].tolist(),
        mask=mask,
        k=n_kept(mask),
        last_k=n_kept(trainer.weights.mask()),
        predictor=predictor,
        trace=trainer.trace,
        best_epoch=best.epoch,
        saturated=trainer.saturated,
    )


def _inputs(
    problem: Problem, settings: Settings, rng: np.random.Generator, device: str
) -> tuple[Encoder | None, Scaler | None, np.ndarray]:
    """What stands before the trunk, an image network or a scaler, and the network's inputs."""
    training = problem.inputs[~problem.validation]
    if settings.images != "none":
        encoder = encoder_for(settings.images, training, settings.weights, rng, device)
        return encoder, None, problem.inputs
    scaler = Scaler.of(training)
    return None, scaler, scaler(problem.inputs).astype(np.float32)


def _used(roles: Roles, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Auxiliary genes that are trained on, as ranks; no others are even loaded."""
    n = len(roles.auxiliary)
    if settings.strategy == "none":
        return np.arange(0)
    if settings.strategy in ("hvg", "random"):
        if settings.n_auxiliary > n:
            raise InputError(f"agl: n_auxiliary = {settings.n_auxiliary}, but there are {n}")
        if settings.strategy == "hvg":
            return np.arange(settings.n_auxiliary)
        return np.sort(rng.choice(n, settings.n_auxiliary, replace=False))
    if settings.strategy in ("agl", "amal") and n < 2:
        raise InputError(f"agl: {settings.strategy} needs two auxiliary genes, found {n}")
    return np.arange(n)


def _weights(n_primary: int, n_auxiliary: int, settings: Settings) -> Weights:
    if settings.strategy == "agl":
        return LearnedCut(
            n_primary,
            n_auxiliary,
            start=settings.start,
            tau=settings.tau,
            lr=settings.lr_weights,
        )
    if settings.strategy == "amal":
        return FreeWeights(n_primary, n_auxiliary, tau=settings.tau, lr=settings.lr_weights)
    if settings.strategy == "uncertainty":
        return Uncertainty(n_primary, n_auxiliary, lr=settings.lr)
    return Weights(n_primary, n_auxiliary)
