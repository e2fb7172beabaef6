"""What the stages are asked: all that a stage reads and that can change its answer.

A stage gets one of these and a toolbox (see `toolbox`), nothing else. The identity of a run is
made from every field here, so that a field cannot be read and be missing from the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.stages.constraints import Constraints

MATRIX_FIELDS = ("id", "reader", "reader_options", "recipe")
"""Fields of a data set's entry that decide its matrix; its files count by their digest."""
LABEL_FIELDS = ("tasks", "group", "split", "inputs", "markers")
"""Further fields that decide what a prepared file holds beside the matrix."""
FOLD_FIELDS = ("split", "group", "inputs", "max_cells")
"""Fields that, with the first task and a seed, decide what a fold's cells are given with."""


def spec_fields(spec: DatasetSpec, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a data set's entry, JSON-ready."""
    return spec.model_dump(mode="json", include=set(names))


@dataclass(frozen=True)
class SelectQuestion:
    """One selection.

    Attributes
    ----------
    fold
        Key of the fold: data, recipe, split and seed.
    method, params
        Id and all parameters.
    tasks
        Tasks to select for, none for an unsupervised method.
    k
        Genes asked for.
    nested
        The method's first k genes do not depend on the k asked for.
    seed
        Seed of the run.
    noise
        Fraction of training labels that is redrawn.
    constraints
        What the panel keeps to, if anything.
    """

    fold: str
    method: str
    params: Mapping[str, Any]
    tasks: tuple[TaskSpec, ...]
    k: int
    seed: int
    nested: bool = True
    noise: float = 0.0
    constraints: Constraints | None = None

    def identity(self) -> dict[str, Any]:
        """Fields of the key; one ranking of a nested method serves every k."""
        return _plain(self) | {"k": None if self.nested else self.k}


@dataclass(frozen=True)
class EvaluateQuestion:
    """One evaluation.

    Attributes
    ----------
    select
        Key of the selection whose panel is scored.
    fold
        Key of the fold.
    evaluator, params
        Id and all parameters.
    task
        The task to score.
    k
        Size of the panel, None for all genes of the ranking.
    seed
        Seed of the run.
    noise
        Fraction of training labels that is redrawn.
    """

    select: str
    fold: str
    evaluator: str
    params: Mapping[str, Any]
    task: TaskSpec
    k: int | None
    seed: int
    noise: float = 0.0

    def identity(self) -> dict[str, Any]:
        """Fields of the key."""
        return _plain(self)


def _plain(question: SelectQuestion | EvaluateQuestion) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in fields(question):
        value = getattr(question, item.name)
        if isinstance(value, TaskSpec):
            value = _task(value)
        elif isinstance(value, Constraints):
            value = value.model_dump(mode="json")
        elif isinstance(value, tuple):
            value = [_task(each) for each in value]
        found[item.name] = value
    return found


@lru_cache(maxsize=256)
def _task(task: TaskSpec) -> dict[str, Any]:
    return task.model_dump(mode="json")
