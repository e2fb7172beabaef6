"""The select stage: hand training cells to a method, check what comes back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.specs import TaskSpec
from panelbench.environments.place import python_of
from panelbench.errors import MethodError, NotApplicable, PanelbenchError
from panelbench.method import Method, Predictor, Selection, Target, Task
from panelbench.params import make_params
from panelbench.records.keys import library_versions
from panelbench.registry import discover
from panelbench.stages.constrained import Constrained, constrain
from panelbench.stages.prepared import facts
from panelbench.stages.questions import SelectQuestion
from panelbench.stages.task import Labels, build_task
from panelbench.stages.toolbox import Measured, Meter, Toolbox

if TYPE_CHECKING:
    from anndata import AnnData


def labels_of(cells: AnnData, asked: Sequence[TaskSpec]) -> list[Labels]:
    """Tasks in a prepared data set, in the order asked for."""
    tasks = facts(cells)["tasks"]
    return [
        Labels(
            item.name,
            item.kind,
            tuple(tasks[item.name].get("classes") or ()),
            item if item.kind == "expression" else None,
        )
        for item in asked
    ]


def select_panel(question: SelectQuestion, tools: Toolbox) -> Measured:
    """Do one selection, in the process of the run.

    Parameters
    ----------
    question
        Method, parameters, fold, tasks, k and seed.
    tools
        Cells of the fold, progress, and the meter of time and memory.

    Returns
    -------
    Result (ranking, scores, info), arrays of the predictor and what it cost.
    """
    method, device = _declared(question, tools)
    cells, validation = tools.training_cells(question.fold, question.seed)
    asked = _asked(question, method, tools, device, cells, validation)
    del cells
    with tools.meter() as meter:
        selection = method.select(asked.task, asked.params)
    return asked.measured(selection, meter)


def select_panels(questions: Sequence[SelectQuestion], tools: Toolbox) -> list[Measured | None]:
    """Do several selections of one method together, in one process.

    Every task holds the training cells of its own fold; tasks of one fold share them. Time and
    memory are divided equally among the runs, and ``shared`` says by how many.

    Returns
    -------
    As of `select_panel`, None for a selection that cannot be asked for or does not keep the
    contract: alone it says why.
    """
    method, device = _declared(questions[0], tools)
    found: list[Measured | None] = [None] * len(questions)
    folds = tools.several_training_cells([(q.fold, q.seed) for q in questions])
    asked: dict[int, _Asked] = {}
    for number, question in enumerate(questions):
        given = folds[question.fold]
        own = replace(tools, scratch=tools.scratch / str(number))
        own.scratch.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PanelbenchError):
            twin = next((a for a in asked.values() if a.same_cells(question)), None)
            asked[number] = _asked(question, method, own, device, *given, twin)
    del folds, given
    if not asked:
        return found
    with tools.meter() as meter:
        assert method.together is not None
        several = list(asked.values())
        selections = method.together([a.task for a in several], [a.params for a in several])
        selections = list(selections)
    if len(selections) != len(asked):
        raise MethodError(f"gave {len(selections)} selections for {len(asked)} tasks")
    for (number, each), selection in zip(asked.items(), selections, strict=True):
        with contextlib.suppress(PanelbenchError):
            found[number] = _share(each.measured(selection, meter), len(asked))
    return found


@dataclass(frozen=True)
class _Asked:
    """What a method is asked, and what makes a result of its answer."""

    question: SelectQuestion
    method: Method
    params: Any
    task: Task
    device: str
    constrained: Constrained | None

    def same_cells(self, other: SelectQuestion) -> bool:
        """Whether another question is about the very same cells, genes and labels."""
        mine = self.question
        return (
            mine.constraints is None
            and other.constraints is None
            and (mine.fold, mine.seed, mine.noise) == (other.fold, other.seed, other.noise)
            and [item.name for item in mine.tasks] == [item.name for item in other.tasks]
        )

    def measured(self, selection: Selection, meter: Meter) -> Measured:
        """Check an answer and join it with what it cost."""
        method, task = self.method, self.task
        check(selection, task, method)
        arrays, stored = saved_predictor(selection, task, method)
        told: dict[str, Any] = {}
        if self.constrained is not None:
            selection, told = self.constrained.complete(selection, task)
            if selection.predictor is None:
                arrays, stored = {}, None
        scores = None if selection.scores is None else [float(value) for value in selection.scores]
        result = {
            "ranking": [str(gene) for gene in selection.ranking],
            "scores": scores,
            **({"size": selection.size} if method.sizes_itself else {}),
            "info": jsonable(selection.info),
            "predictor": stored,
            **({"constraints": told} if told else {}),
            "cells": task.n_cells,
            "genes": task.n_genes,
            "device": self.device,
        }
        return meter.measured(result, arrays)


def _declared(question: SelectQuestion, tools: Toolbox) -> tuple[Method, str]:
    """The method that is asked, and the device it runs on."""
    method = discover(tools.methods_dirs).get(question.method)
    make_params(method, question.params)
    missing = [n for n, found in library_versions(method.libraries).items() if found is None]
    if missing:
        raise NotApplicable(f"needs {', '.join(missing)}: pip install {' '.join(missing)}")
    python_of(method, tools.cache)  # before cells are read
    return method, resolve_device(method, tools.device)


def _asked(
    question: SelectQuestion,
    method: Method,
    tools: Toolbox,
    device: str,
    cells: AnnData,
    validation: np.ndarray | None,
    twin: _Asked | None = None,
) -> _Asked:
    """Make the task of a question; from that of a twin about the same cells, if there is one."""
    params, constrained = make_params(method, question.params), None
    if question.constraints is not None:
        constrained = constrain(cells, question.constraints, method, question.k)
        cells = constrained.cells
    if twin is not None:
        task = replace(twin.task, k=question.k, scratch=tools.scratch)
    else:
        task = build_task(
            cells,
            method,
            labels_of(cells, question.tasks),
            k=question.k,
            seed=question.seed,
            noise=question.noise,
            validation=validation,
            include=_asked_for(question),
            n_jobs=tools.n_jobs,
            device=device,
            memory_limit=tools.memory_limit,
            scratch=tools.scratch,
            python=python_of(method, tools.cache),
            progress=tools.progress,
        )
    if method.cut and not method.sizes_itself and question.k > task.n_genes:
        raise MethodError(
            f"k = {question.k}, but only {task.n_genes} genes are left after preprocessing"
        )
    return _Asked(question, method, params, task, device, constrained)


def _share(whole: Measured, count: int) -> Measured:
    """What one of several runs that were done together cost: an equal share."""
    cost = {name: v if v is None else round(v / count, 4) for name, v in whole.cost.items()}
    return replace(whole, cost=cost | {"shared": count})


def _asked_for(question: SelectQuestion) -> tuple[str, ...]:
    """Genes to include, where they leave any to be chosen."""
    genes = question.constraints.include if question.constraints is not None else ()
    return genes if len(genes) < question.k else ()


def resolve_device(method: Method, device: str) -> str:
    """Device a method runs on: what was asked for, as far as method and machine have it.

    Raises
    ------
    NotApplicable
        When a GPU is required (by the method or by the user) and there is none.
    """
    if method.gpu == "no":
        return "cpu"
    if device == "cpu":
        if method.gpu == "required":
            raise NotApplicable("needs a GPU, and --device cpu was asked for")
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda" if device == "auto" else device
    if device == "auto" and method.gpu == "optional":
        return "cpu"
    raise NotApplicable("needs a GPU, and torch finds none on this machine")


def check(selection: Selection, task: Task, method: Method) -> None:
    """Hold a method to its contract.

    Raises
    ------
    MethodError
        When the ranking has unknown or repeated genes, is too short, scores are not finite, or a
        size is given where none is declared or the other way round.
    """
    if not isinstance(selection, Selection):
        raise MethodError(f"returned {type(selection).__name__}, not a Selection")
    ranking = [str(gene) for gene in selection.ranking]
    known = set(task.target.outputs if method.expression else task.genes.tolist())
    unknown = [gene for gene in ranking if gene not in known]
    if unknown:
        raise MethodError(f"ranked {len(unknown)} unknown genes, the first is {unknown[0]!r}")
    if len(set(ranking)) < len(ranking):
        seen: set[str] = set()
        double = next(gene for gene in ranking if gene in seen or seen.add(gene))  # type: ignore[func-returns-value]
        raise MethodError(
            f"ranked {len(ranking) - len(set(ranking))} genes more than once, the first is "
            f"{double!r}"
        )
    if method.sizes_itself != (selection.size is not None):
        said = "gave no size of the panel" if method.sizes_itself else "gave a size of the panel"
        raise MethodError(f"{said}, and declares sizes_itself={method.sizes_itself}")
    if selection.size is not None and not 1 <= selection.size <= len(ranking):
        raise MethodError(f"the size of its panel is {selection.size}, of {len(ranking)} ranked")
    if len(ranking) < task.k and method.cut and not method.sizes_itself:
        raise MethodError(f"ranked {len(ranking)} genes, {task.k} were asked for")
    if selection.scores is not None:
        scores = np.asarray(selection.scores, dtype=np.float64)
        if scores.shape != (len(ranking),):
            raise MethodError(f"returned {scores.size} scores for {len(ranking)} genes")
        if not np.isfinite(scores).all():
            place = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise MethodError(f"score of {ranking[place]!r} is {scores[place]}, not a number")


def saved_predictor(
    selection: Selection, task: Task, method: Method
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Arrays and facts of a selection's predictor, after checking that it predicts.

    Raises
    ------
    MethodError
        When its output has the wrong shape, holds no probabilities, or changes by saving.
    """
    predictor = selection.predictor
    if predictor is None:
        if method.predictor is not None:
            raise MethodError("declares a predictor and returned none")
        return {}, None
    if method.predictor is None:
        raise MethodError("returned a predictor without declaring its class")
    X = read_of(task, predictor, method, 8)
    arrays, stored = predictor.save()
    twin = method.predictor.load(arrays, stored)
    for target in task.targets.values():
        first, again = outputs(predictor, target, X), outputs(twin, target, X)
        if not np.array_equal(first, again):
            raise MethodError(f"its predictor for {target.name} changes when saved and loaded")
    return arrays, {"genes": list(predictor.genes), "facts": jsonable(stored)}


def read_of(task: Task, predictor: Predictor, method: Method, n: int | None = None) -> np.ndarray:
    """What a predictor reads of the first n cells of a task, or of all: inputs, or its genes.

    Raises
    ------
    MethodError
        When it names genes that are unknown, or any while it reads inputs.
    """
    if method.reads == "inputs":
        if len(predictor.genes):
            raise MethodError("its predictor names genes, and the method declares reads='inputs'")
        assert task.inputs is not None
        return task.inputs[:n]
    known = {gene: position for position, gene in enumerate(task.genes.tolist())}
    missing = [gene for gene in predictor.genes if gene not in known]
    if missing:
        raise MethodError(f"its predictor reads the unknown gene {missing[0]!r}")
    few = task.X[:n]
    dense = few if isinstance(few, np.ndarray) else few.toarray()
    return np.asarray(dense[:, [known[gene] for gene in predictor.genes]])


def outputs(predictor: Predictor, target: Target, X: np.ndarray) -> np.ndarray:
    """Predictions of a built-in predictor: probabilities of all classes, or outputs.

    Parameters
    ----------
    predictor
        The predictor.
    target
        The task to predict; of its values only the number of outputs is used.
    X
        float32, cells x the predictor's genes, or inputs.

    Raises
    ------
    MethodError
        When the shape is wrong, or rows are not probabilities.
    """
    if target.kind != "classification":
        found = np.asarray(predictor.predict(target.name, X))
        shape = (len(X), *target.values.shape[1:])
        if target.primary is not None:
            shape = (len(X), int(target.primary.sum()))
        if found.shape != shape:
            raise MethodError(f"its predictor for {target.name} gave {found.shape}, not {shape}")
        if not np.isfinite(found).all():
            raise MethodError(f"its predictor for {target.name} gave values that are not finite")
        return found
    found = np.asarray(predictor.predict_proba(target.name, X))
    shape = (len(X), len(target.classes))
    if found.shape != shape:
        raise MethodError(f"its predictor for {target.name} gave {found.shape}, not {shape}")
    if not np.allclose(found.sum(axis=1), 1.0, atol=1e-3) or (found < -1e-6).any():
        raise MethodError(f"its predictor for {target.name} does not give probabilities")
    return found


def jsonable(value: Any) -> Any:
    """Turn numpy values and tuples into what JSON holds; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
