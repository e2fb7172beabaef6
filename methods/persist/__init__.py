"""PERSIST: genes chosen together by a network that sees only whether each is detected.

Elimination closes most of one gate per gene (`gates`) under a penalty found by trials (`search`).
Selection then lets k rows settle on one gene each (`mask`), with a fresh network and a temperature
that falls from 10 to 0.01. Both stages share one training loop (`training`).

Source: Covert et al. 2023 (doi 10.1038/s41467-023-37392-1). The panel always holds k different
genes: rows that agree on a gene are drawn anew after each epoch but the last, and what is still
missing at the end is filled with the next most probable genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from panelbench.errors import InputError, MethodError, NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.nn import Widths, one_thread

from .predictor import PersistPredictor

if TYPE_CHECKING:
    from .network import Loss
    from .search import Found
    from .stages import Problem, Selected

__all__ = ["Params", "PersistPredictor", "UnsupParams", "select", "select_unsupervised"]


@dataclass(frozen=True)
class _Params:
    """Parameters of both methods.

    Attributes
    ----------
    eliminate_epochs, select_epochs
        Passes over the training cells: of each trial of the elimination, at most; of the
        selection, at most.
    batch_size
        Cells per step.
    lr
        Learning rate.
    hidden
        Widths of the hidden layers.
    target
        Genes that elimination should leave. 0: no elimination. None: ten per panel gene, at least
        500; no elimination where that is half of the genes or more.
    tol
        Share of `target` by which elimination may miss it.
    max_trials
        Penalties that elimination tries before it falls back on bisection.
    lam_init
        First penalty; None: 0.01 with the hurdle loss, else 0.0001.
    t_start, t_end
        Temperature at the first and after the last step of each training; it does not rise.
    preselected
        Genes that must be on the panel, and that the network sees from the start. They count
        within k and head the ranking.
    strict
        Fail where rows agree on a gene, instead of filling up the panel.
    validate
        Keep validation cells, where the split has such, out of the training and record their
        loss. They decide nothing.
    """

    eliminate_epochs: Annotated[int, Ge(1)] = 250
    select_epochs: Annotated[int, Ge(1)] = 250
    batch_size: Annotated[int, Ge(1)] = 64
    lr: Annotated[float, Gt(0)] = 1e-3
    hidden: Widths = (128, 128)
    target: Annotated[int, Ge(0)] | None = None
    tol: Annotated[float, Gt(0), Lt(1)] = 0.2
    max_trials: Annotated[int, Ge(1)] = 10
    lam_init: Annotated[float, Gt(0)] | None = None
    t_start: Annotated[float, Gt(0)] = 10.0
    t_end: Annotated[float, Gt(0)] = 0.01
    preselected: tuple[str, ...] = ()
    strict: bool = False
    validate: bool = False

    def __post_init__(self) -> None:
        if self.t_start < self.t_end:
            raise ValueError(
                f"the temperature must not rise: t_start = {self.t_start}, t_end = {self.t_end}"
            )


@dataclass(frozen=True)
class Params(_Params):
    """Parameters of PERSIST with labels.

    Attributes
    ----------
    draws
        Masks that the soft predictor averages over.
    """

    draws: Annotated[int, Ge(1)] = 16


@dataclass(frozen=True)
class UnsupParams(_Params):
    """Parameters of PERSIST without labels.

    Attributes
    ----------
    loss
        ``"hurdle"`` or ``"mse"``, the squared error alone.
    """

    loss: Literal["hurdle", "mse"] = "hurdle"


_DECLARED: dict[str, Any] = {
    "nested": False,
    "gpu": "optional",
    "minutes": 240.0,
    "libraries": ("torch",),
    "cite": "Covert et al. 2023",
    "doi": "10.1038/s41467-023-37392-1",
}


@method(
    "persist",
    params=Params,
    label="PERSIST",
    supervised=True,
    predictor=PersistPredictor,
    modes=("soft", "hard"),
    sparse_selection=False,
    needs="binary",
    **_DECLARED,
)
def select(task: Task, params: Params) -> Selection:
    """Panel and classifier from which genes are detected in each cell (Covert et al. 2023).

    `Selection.scores` are the probabilities with which the rows of the mask choose the genes.

    Raises
    ------
    InputError
        When a preselected gene is unknown, or k is more than elimination is to leave.
    MethodError
        When `strict` is set and rows agree on a gene.
    """
    from .network import cross_entropy

    return _select(task, params, cross_entropy, len(task.target.classes), 1e-4)


@method(
    "persist-unsup",
    params=UnsupParams,
    label="PERSIST (unsupervised)",
    needs="prepared",
    sparse_selection=True,
    **_DECLARED,
)
def select_unsupervised(task: Task, params: UnsupParams) -> Selection:
    """Panel whose detection pattern predicts the expression of all genes (Covert et al. 2023).

    The network predicts `Task.X` as prepared from which panel genes are detected; that is read
    from the counts, or from `Task.X` where there are none and it is not scaled.

    Raises
    ------
    InputError, MethodError
        As with labels.
    NotApplicable
        When there are no counts and the values go below zero.
    """
    from .network import hurdle, squared_error

    if params.loss == "hurdle":
        return _select(task, params, hurdle, 2 * task.n_genes, 1e-2)
    return _select(task, params, squared_error, task.n_genes, 1e-4)


def _select(task: Task, params: _Params, loss: Loss, n_outputs: int, lam_init: float) -> Selection:
    """Run both stages on one thread: `Task.n_jobs` changes nothing."""
    from .data import columns, load
    from .results import accuracy, predictor, record
    from .stages import Problem

    _check(task, params)
    supervised = isinstance(params, Params)
    more = [gene for gene in task.include if gene not in params.preselected]
    preselected = columns(task, (*params.preselected, *more))
    cells = load(task, supervised=supervised, validate=params.validate)
    problem = Problem(task, cells, loss, n_outputs, params.hidden, preselected)
    with one_thread():
        found, selected = _stages(problem, params, lam_init)
        info = record(task, selected, found)
        ranking = np.r_[preselected, selected.genes]
        trained = None
        if isinstance(params, Params):
            # The last temperature of the schedule, whether or not training got there.
            trained = predictor(
                task, selected, ranking, draws=params.draws, temperature=params.t_end
            )
            info |= accuracy(task, trained, cells)
    if params.strict and selected.refilled:
        raise MethodError(
            f"persist: {selected.refilled} of {len(selected.rows)} rows chose a gene that another "
            "row has; train longer (select_epochs), ask for fewer genes, or leave strict out"
        )
    return Selection(
        ranking=task.genes[ranking].tolist(),
        scores=np.r_[np.ones(len(preselected)), selected.scores],
        predictor=trained,
        info=info,
    )


def _check(task: Task, params: _Params) -> None:
    if params.target and params.target < task.k:
        raise InputError(
            f"persist: target = {params.target}: elimination must leave the {task.k} genes of the "
            "panel or more; 0 is without elimination"
        )
    if task.n_cells < 2:
        raise NotApplicable(f"persist: needs at least 2 training cells, found {task.n_cells}")


def _stages(problem: Problem, params: _Params, lam_init: float) -> tuple[Found | None, Selected]:
    """Eliminate, if that is worth it, and select."""
    from . import stages
    from .training import Settings

    task = problem.task
    candidates, n_rows = problem.candidates, task.k - len(problem.preselected)
    target = elimination_target(task.k, len(candidates)) if params.target is None else params.target
    common = (params.batch_size, params.lr, params.t_start, params.t_end)
    found, share = None, 0.0
    # Where the target is as good as all genes, there is nothing to eliminate.
    if 0 < target < len(candidates) and len(candidates) - target > params.tol * target:
        share = 0.5
        found = stages.eliminate(
            problem,
            Settings(params.eliminate_epochs, *common),
            target,
            at_least=n_rows,
            tol=params.tol,
            max_trials=params.max_trials,
            start=lam_init if params.lam_init is None else params.lam_init,
            progress=lambda fraction, text: task.progress(share * fraction, text),
        )
        candidates = found.genes
    selected = stages.select(
        problem,
        Settings(params.select_epochs, *common),
        n_rows,
        candidates,
        progress=lambda fraction, text: task.progress(share + (1 - share) * fraction, text),
    )
    return found, selected


def elimination_target(k: int, n_genes: int) -> int:
    """Candidates to keep by default, 0 where elimination would not pay.

    500 is the original's choice, ten per gene that of the MarkerMap benchmark.
    """
    target = max(500, 10 * k)
    return target if target < n_genes / 2 else 0
