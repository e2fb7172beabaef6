"""YOTO: exactly k genes selected by training, and a predictor of all tasks from them.

Every gene has a score. Each step draws a panel, the k genes with the largest perturbed scores,
networks see those alone, and the scores learn through the soft mask (`mask`), from many genes
down to k. By default each of a few networks learns from its own part of the cells and the scores
from what the networks do on cells they have not seen (`folds`, `search`); the scores start from
the genes that tell all classes apart in a linear model, alone or with the markers of each class
(`relevance`, `markers`, `start`), and the panel leaves that start where held-out cells say so
(`crossfit`). Genes enter as steps between their levels (`encoding`). The predictor (`fit`,
`predictor`) is trained on the final panel, its input dropout, its depth and the number of genes
it uses settled on held-out cells.
The published form, one network that is judged on the cells it learns from, is `training`.

Source: the YOTO paper (Chopard et al. 2026, arXiv 2512.17678). Where it is silent, and wherever
the default departs from it, the choices are the suite's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from panelbench.method import Selection, Task, method
from panelbench.nn import Widths

from .predictor import YotoPredictor

if TYPE_CHECKING:
    from .options import Settings
    from .training import Trained

__all__ = ["Params", "PersistParams", "YotoPredictor", "select"]

_SUITE: dict[str, Any] = {
    "hidden": (128, 128),
    "label_smoothing": 0.1,
    "weight_decay": 0.1,
    "standardize": True,
    "class_balance": 0.25,
    "lr_scores": 3e-3,
    "tau_start": 1.0,
    "lr": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": _SUITE
    | {
        "hidden": (128,),
        "tau_start": 0.3,
        "input_dropout": None,
        "class_balance": 0.5,
        "lr": 3e-3,
    },
    "joint": _SUITE | {"input_dropout": 0.2},
    "paper": _SUITE
    | {
        "input_dropout": 0.0,
        "label_smoothing": 0.0,
        "weight_decay": 0.0,
        "standardize": False,
        "class_balance": 0.0,
        "lr_scores": 1e-2,
    },
}
"""Values of the parameters that are None: `paper` leaves out what the suite added."""


@dataclass(frozen=True)
class Params:
    """Parameters of YOTO.

    Attributes
    ----------
    preset
        ``"default"``: scores from cells that the networks have not seen. ``"joint"``: one network
        for scores and predictions, as published, with the suite's regularisation. ``"paper"``:
        the same without it. It gives the values of the parameters that are None (see `PRESETS`).
    epochs
        Passes over the training cells at most; the last one counts. `joint` and `paper` do them
        all, the default stops by `steps`.
    batch_size
        Cells per step, about: the cells are cut into equal batches.
    hidden
        Widths of the predictor's hidden layers. By default one of 128, or two and half as many
        epochs more where held-out cells say so; with `joint` and `paper` two.
    batch_norm
        Normalise each hidden layer over the batch.
    dropout
        Probability of dropping a hidden unit.
    input_dropout
        Probability of dropping the expression of a gene in a cell. By default chosen on held-out
        cells for the predictor, and none in the search. With `joint` and `paper` where there are
        at most `cells_per_gene` training cells per panel gene; it falls as their inverse above.
    cells_per_gene
        See `input_dropout`.
    class_balance
        A class with n training cells weighs n to the power of minus this in its task's loss.
    label_smoothing
        Share of each label that is spread over all classes.
    weight_decay
        Decoupled decay of the network's weights, per step and unit of learning rate.
    standardize
        Divide each gene by its standard deviation over the training cells.
    lr, lr_scores
        Learning rates of the networks and of the scores.
    beta
        Size of the Gumbel noise that perturbs the scores in training.
    tau_start, tau_end
        Temperature of the soft mask at the first and the last step.
    anneal
        Fraction of the training after which the panel has k genes.
    steps
        Default preset only, like all that follow: steps of the search, and of the predictor's
        training, at least; at least 60 epochs of the one and 30 of the other.
    folds
        Networks of the search, each judged on its own fold of the cells; fewer if there are
        fewer groups.
    search_hidden
        Widths of their hidden layers.
    start
        Genes in the first panel, at least four times k.
    prior
        Scale of the relevance that the scores start from; 0 starts from noise alone.
    margin
        Standard errors by which the learned scores must be ahead of their start on held-out cells
        to decide the panel.
    levels
        Levels of a gene above its smallest value, as quantiles of the larger values.
    members
        Networks of the predictor, whose outputs are averaged.
    held_out
        False takes the scores' gradient on each network's own training cells (to measure what
        held-out cells are good for).
    """

    preset: Literal["default", "joint", "paper"] = "default"
    epochs: Annotated[int, Ge(1)] = 1000
    batch_size: Annotated[int, Ge(2)] = 256
    hidden: Widths | None = None
    batch_norm: bool = True
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.2
    input_dropout: Annotated[float, Ge(0), Lt(1)] | None = None
    cells_per_gene: Annotated[float, Gt(0)] = 25.0
    class_balance: Annotated[float, Ge(0)] | None = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    weight_decay: Annotated[float, Ge(0)] | None = None
    standardize: bool | None = None
    lr: Annotated[float, Ge(0)] | None = None
    lr_scores: Annotated[float, Ge(0)] | None = None
    beta: Annotated[float, Ge(0)] = 0.1
    tau_start: Annotated[float, Gt(0)] | None = None
    tau_end: Annotated[float, Gt(0)] = 0.01
    anneal: Annotated[float, Ge(0), Le(1)] = 0.6
    steps: Annotated[int, Ge(1)] = 400
    folds: Annotated[int, Ge(2)] = 3
    search_hidden: Widths = (64,)
    start: Annotated[int, Ge(1)] = 512
    prior: Annotated[float, Ge(0)] = 1.0
    margin: Annotated[float, Ge(0)] = 2.0
    levels: Annotated[tuple[Annotated[float, Ge(0), Le(1)], ...], MinLen(1)] = (0.0, 0.5, 1.0)
    members: Annotated[int, Ge(1)] = 5
    held_out: bool = True


@dataclass(frozen=True)
class PersistParams(Params):
    """Parameters of the ablation: PERSIST's network and temperatures, nothing of the suite's."""

    preset: Literal["default", "joint", "paper"] = "paper"
    batch_norm: bool = False
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    tau_start: Annotated[float, Gt(0)] | None = 10.0


def settings(params: Params) -> Settings:
    """Settings of a training, with the preset's values where a parameter is None."""
    from .options import Settings

    preset = PRESETS[params.preset]
    values = {item.name: getattr(params, item.name) for item in fields(params)}
    values = {name: preset[name] if value is None else value for name, value in values.items()}
    del values["preset"]
    return Settings(deepen=params.hidden is None, **values)


def predictor(task: Task, trained: Trained) -> YotoPredictor:
    """The trained networks over the panel, in the units of the data.

    Genes that do not vary and only fill the panel get weight 0.
    """
    layers, heads = list(trained.layers), dict(trained.heads)
    weight, bias = layers[0]
    filled = np.zeros((task.k - trained.k, weight.shape[1]))
    layers[0] = (np.concatenate([weight, filled]), bias)
    for labels in trained.labels:
        if labels.target.kind == "regression":
            weight, bias = heads[labels.target.name]
            heads[labels.target.name] = (weight * labels.scale, bias * labels.scale + labels.centre)
    return YotoPredictor(
        genes=task.genes[_ranking(task, trained)[: task.k]].tolist(),
        layers=layers,
        heads=heads,
        kinds={labels.target.name: labels.target.kind for labels in trained.labels},
        vectors=[labels.target.name for labels in trained.labels if labels.target.values.ndim > 1],
    )


def _ranking(task: Task, trained: Trained) -> np.ndarray:
    """All genes: the candidates by score, then those that do not vary."""
    rest = np.setdiff1d(np.arange(task.n_genes), trained.genes)
    return np.concatenate([trained.genes, rest])


def _select(task: Task, params: Params) -> Selection:
    return select_many([task], [params])[0]


def select_many(tasks: Sequence[Task], params: Sequence[Params]) -> list[Selection]:
    """Panels and predictors of several runs.

    On a GPU trainings of one kind are done side by side (`batch`, `searches`, `fits`), but for
    ``preset=joint``; that, and everything on a CPU, is done one after the other.
    """
    from . import batch, crossfit, training

    chosen = [settings(each) for each in params]
    found: dict[int, Trained] = {}
    default: list[int] = []
    published: list[int] = []
    for number, (task, each) in enumerate(zip(tasks, params, strict=True)):
        if task.device.startswith("cuda"):
            if each.preset == "default":
                default.append(number)
            elif batch.fits(chosen[number]):
                published.append(number)
    for numbers, together in (
        (default, crossfit.train_together),
        (published, batch.train_together),
    ):
        if numbers:
            several = together([tasks[n] for n in numbers], [chosen[n] for n in numbers])
            found |= dict(zip(numbers, several, strict=True))
    answers = []
    for number, (task, each) in enumerate(zip(tasks, params, strict=True)):
        train = crossfit.train if each.preset == "default" else training.train
        trained = found.get(number) or train(task, chosen[number])
        answers.append(_selection(task, trained))
    return answers


def _selection(task: Task, trained: Trained) -> Selection:
    ranking = _ranking(task, trained)
    info: dict[str, Any] = {"curves": trained.curves}
    if trained.chosen:
        info["chosen"] = trained.chosen
    if trained.k < task.k:
        info["warning"] = (
            f"only {trained.k} genes vary; {task.k - trained.k} genes that do not fill the panel"
        )
    low = np.full(len(ranking) - len(trained.scores), trained.scores[-1])
    return Selection(
        ranking=task.genes[ranking].tolist(),
        scores=np.concatenate([trained.scores, low]),
        predictor=predictor(task, trained),
        info=info,
    )


_DECLARED: dict[str, Any] = {
    "supervised": True,
    "regression": True,
    "predictor": YotoPredictor,
    "end_to_end": True,
    "nested": False,
    "needs": "prepared",
    "gpu": "optional",
    "libraries": ("torch", "numba"),
    "together": select_many,
    "differ": ("beta", "tau_start", "tau_end", "anneal"),
    "cite": "Chopard et al. 2026",
}


@method("yoto", params=Params, label="YOTO", multitask=True, **_DECLARED)
def select(task: Task, params: Params) -> Selection:
    """Panel and predictor for all tasks in one training (Chopard et al. 2026).

    `Selection.scores` are the learned scores. ``info["curves"]`` holds, per epoch, the loss of
    each task (``loss:`` on the cells that train, ``held:`` on those that judge), the panel size k,
    the temperature tau and the turnover of the panel; ``info["chosen"]`` what held-out cells
    settled: whether markers count in the start, and how much of the start counts in the scores that
    are returned, with the loss of each choice; the predictor's input dropout, hidden layers and
    number of genes, the first of the panel.

    Raises
    ------
    NotApplicable
        When there are no labels or no gene varies.
    """
    return _select(task, params)


@method("yoto-single", params=Params, label="YOTO (single task)", **_DECLARED)
def select_single(task: Task, params: Params) -> Selection:
    """Panel and predictor for one task: YOTO trained on it alone (Chopard et al. 2026)."""
    return _select(task, params)


@method("yoto-persist-arch", params=PersistParams, label="YOTO (PERSIST architecture)", **_DECLARED)
def select_persist_arch(task: Task, params: PersistParams) -> Selection:
    """YOTO's selection with PERSIST's network and temperatures, on one task.

    The ablation of the paper's Table 4: Linear, ReLU, Linear, ReLU, Linear without
    normalisation, dropout or decay, tau from 10 to 0.01.
    """
    return _select(task, params)
