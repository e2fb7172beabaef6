"""Methods for expression targets: strategies of auxiliary gene learning, and two baselines.

Each trains a predictor of a task's primary outputs from the inputs of the cells. What it ranks are
the task's outputs: primary ones first, then auxiliary ones, those that counted most in training
before the others and otherwise by variability. The size of that panel is the primary outputs and
the auxiliary ones that counted at least half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import InputError, NotApplicable
from panelbench.method import Selection, Task, method

from . import params as training
from .baselines import LinearPredictor, fit_mean, fit_ridge
from .cells import Problem
from .estimator import Fitted, fit
from .predictor import AglPredictor

Inner: TypeAlias = AglPredictor | LinearPredictor


@dataclass(frozen=True)
class Held:
    """Parameters of what needs validation cells only.

    Attributes
    ----------
    validation
        Share of the training cells that is held out where the split has no validation cells.
    """

    validation: Annotated[float, Gt(0), Le(0.5)] = 0.2


@dataclass(frozen=True)
class Params(training.Training):
    """Parameters of a network's training, and `validation` as in `Held`."""

    validation: Annotated[float, Gt(0), Le(0.5)] = 0.2


@dataclass(frozen=True)
class CountedParams(Params):
    """Further, how many auxiliary outputs are taken."""

    n_auxiliary: Annotated[int, Ge(1)] = 20


@dataclass(eq=False)
class OutputsPredictor:
    """Primary outputs from the inputs of cells; it reads no genes."""

    inner: Inner
    genes: Sequence[str] = ()

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Expression, log(1 + x), float64 of shape (n_cells, n_primary), from inputs."""
        return self.inner.predict(X)

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """There are no classes."""
        raise NotApplicable("predicts expression, not classes")

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and facts for JSON."""
        arrays, facts = self.inner.save()
        return arrays, {"network": isinstance(self.inner, AglPredictor), **facts}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> OutputsPredictor:
        """Rebuild a predictor from what `save` returned."""
        return cls((AglPredictor if facts["network"] else LinearPredictor).load(arrays, facts))


AUXILIARY: dict[training.Strategy, str] = {
    "agl": "learned",
    "all": "all",
    "none": "none",
    "random": "random",
    "hvg": "variable",
    "amal": "weighted",
    "uncertainty": "weighted",
}
"""What each strategy says of its auxiliary outputs in `Selection.info`, for figures."""

_COMMON: dict[str, Any] = {
    "supervised": True,
    "expression": True,
    "reads": "inputs",
    "sizes_itself": True,
    "predictor": OutputsPredictor,
    "libraries": ("torch", "pandas", "scipy"),
    "cite": "Shiku et al. 2026",
    "doi": "10.48550/arXiv.2511.18336",
}


@method("agl", params=Params, label="AGL (DkGSB)", end_to_end=True, **_COMMON)
def select_agl(task: Task, params: Params) -> Selection:
    """Train on primary outputs and on the first k others by variability, where k is learned."""
    return _network(task, params, "agl")


@method("agl-all", params=Params, label="AGL, all genes", **_COMMON)
def select_all(task: Task, params: Params) -> Selection:
    """Train on primary outputs and on all others alike."""
    return _network(task, params, "all")


@method("agl-none", params=Params, label="Primary genes only", **_COMMON)
def select_none(task: Task, params: Params) -> Selection:
    """Train the same network on primary outputs alone."""
    return _network(task, params, "none")


@method("agl-random", params=CountedParams, label="AGL, random genes", **_COMMON)
def select_random(task: Task, params: CountedParams) -> Selection:
    """Train on primary outputs and on a fixed number of others, drawn at random."""
    return _network(task, params, "random")


@method("agl-hvg", params=CountedParams, label="AGL, variable genes", **_COMMON)
def select_hvg(task: Task, params: CountedParams) -> Selection:
    """Train on primary outputs and on a fixed number of others, the most variable ones."""
    return _network(task, params, "hvg")


@method(
    "agl-amal",
    params=Params,
    label="AMAL, by gene",
    **_COMMON | {"cite": "Sivasubramanian et al. 2023", "doi": "10.48550/arXiv.2202.03250"},
)
def select_amal(task: Task, params: Params) -> Selection:
    """Train on all outputs, with a learned weight for each auxiliary one."""
    return _network(task, params, "amal")


@method(
    "agl-uncertainty",
    params=Params,
    label="Uncertainty weighting",
    **_COMMON | {"cite": "Kendall et al. 2018", "doi": "10.48550/arXiv.1705.07115"},
)
def select_uncertainty(task: Task, params: Params) -> Selection:
    """Train on all outputs, weighted by their training losses."""
    return _network(task, params, "uncertainty")


_LINEAR: dict[str, Any] = _COMMON | {"libraries": (), "cite": "", "doi": ""}


@method("ridge-expression", params=Held, label="Ridge regression", **_LINEAR)
def select_ridge(task: Task, params: Held) -> Selection:
    """Predict primary outputs by ridge regression, its penalty chosen on validation cells."""
    names, values = _primary(task)
    held = _validation(task, params.validation)
    return _linear(names, fit_ridge(_inputs(task), values, names, held, task.groups))


@method("mean-expression", label="Mean of the training cells", **_LINEAR)
def select_mean(task: Task, params: object) -> Selection:
    """Predict every primary output by its mean over the training cells."""
    names, values = _primary(task)
    return _linear(names, fit_mean(_inputs(task), values, names))


def _inputs(task: Task) -> np.ndarray:
    if task.inputs is None:
        raise NotApplicable("needs features of the cells")
    return task.inputs


def _primary(task: Task) -> tuple[list[str], np.ndarray]:
    """Names and values of the primary outputs."""
    target = task.target
    assert target.primary is not None
    return np.array(target.outputs)[target.primary].tolist(), target.values[:, target.primary]


def _validation(task: Task, share: float) -> np.ndarray:
    """Cells for validation: those of the split, or as many at random."""
    if task.validation is not None and task.validation.any():
        return task.validation
    held = task.rng("agl validation").permutation(task.n_cells)[: round(share * task.n_cells)]
    found = np.zeros(task.n_cells, dtype=bool)
    found[held] = True
    if not found.any():
        raise NotApplicable(f"{task.n_cells} training cells leave none for validation")
    return found


def _linear(names: list[str], predictor: LinearPredictor) -> Selection:
    return Selection(
        names, np.ones(len(names)), OutputsPredictor(predictor), {"primary": names}, len(names)
    )


def _network(task: Task, params: Params, strategy: training.Strategy) -> Selection:
    """Train a network by a strategy.

    Raises
    ------
    NotApplicable
        When there are too few cells or outputs.
    """
    given = asdict(params)
    share = given.pop("validation")
    names, _ = _primary(task)
    problem = Problem(
        _inputs(task),
        task.target.values,
        np.array(task.target.outputs),
        _validation(task, share),
        task.groups,
        primary=tuple(names),
    )
    # Which outputs are found in cells enough is the task's to say.
    estimator = training.Params(**given, strategy=strategy, min_cells=1)
    try:
        fitted = fit(problem, estimator, task.rng, device=task.device, progress=task.progress)
    except InputError as error:
        raise NotApplicable(str(error)) from None
    return _selection(fitted, strategy)


def _selection(fitted: Fitted, strategy: training.Strategy) -> Selection:
    order = np.argsort(-fitted.mask, kind="stable")
    m = len(fitted.primary)
    return Selection(
        ranking=[*fitted.primary, *np.array(fitted.auxiliary, dtype=str)[order].tolist()],
        scores=np.concatenate([np.ones(m), fitted.mask[order]]),
        predictor=OutputsPredictor(fitted.predictor),
        info={
            "primary": fitted.primary,
            "auxiliary": AUXILIARY[strategy],
            "k": fitted.k,
            "last_k": fitted.last_k,
            "n_auxiliary": len(fitted.auxiliary),
            "best_epoch": fitted.best_epoch,
            "saturated": fitted.saturated,
            "curves": {
                "auxiliary genes that count (k)": [entry["k"] for entry in fitted.trace],
                "validation correlation": [entry["validation"] for entry in fitted.trace],
            },
        },
        size=m + fitted.k,
    )
