"""What stages really read, against what is declared to be in their keys."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.data.catalogue import own_data
from panelbench.data.specs import DatasetSpec
from panelbench.records.status import Status
from panelbench.records.store import Address, Record
from panelbench.stages import questions
from panelbench.stages.evaluation import score_panel
from panelbench.stages.fold import fit_fold
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion
from panelbench.stages.selection import select_panel
from panelbench.stages.toolbox import OUTSIDE, Toolbox
from tests.tools import write_h5ad


class Watched:
    """Stands for an object and notes which of its attributes are read."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.read = inner, set[str]()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        self.read.add(name)
        return value


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetSpec, Path]:
    """A prepared data set with a group, whose genes are chosen on training cells."""
    folder = tmp_path_factory.mktemp("questions")
    spec = own_data(write_h5ad(folder / "own.h5ad"), ["cell_type"], hvg=30, group="donor")
    prepare(spec, folder / "prepared.h5ad", folder)
    return spec, folder


def _toolbox(data: tuple[DatasetSpec, Path], **more: Any) -> Toolbox:
    spec, folder = data
    return Toolbox(spec, [load(folder / "prepared.h5ad")], folder / "cache", **more)


SELECT = SelectQuestion("fold", "rf-importance", {}, (), 5, 0)


def _select(data: tuple[DatasetSpec, Path]) -> SelectQuestion:
    return replace(SELECT, tasks=data[0].tasks)


def _method_fields(kind: type) -> set[str]:
    return {
        name for name in vars(kind) if not name.startswith("_") and callable(getattr(kind, name))
    }


def test_a_selection_reads_its_question_and_declared_tools_only(data: Any) -> None:
    question, tools = Watched(_select(data)), Watched(_toolbox(data))
    select_panel(question, tools)
    assert question.read <= {item.name for item in fields(SelectQuestion)}
    # Everything of the question is needed; `nested` is about the key alone.
    assert question.read >= {"fold", "method", "params", "tasks", "k", "seed", "noise"}
    assert tools.read <= set(OUTSIDE) | _method_fields(Toolbox)


def test_an_evaluation_reads_its_question_and_declared_tools_only(data: Any) -> None:
    done = select_panel(_select(data), _toolbox(data))
    record = Record(
        "select", Address("own", "rf-importance", "k"), "a1", "q", Status.OK, result=done.result
    )
    asked = EvaluateQuestion("k", "fold", "rf", {}, data[0].tasks[0], 5, 0)
    question, tools = Watched(asked), Watched(_toolbox(data, selection=record))
    score_panel(question, tools)
    assert question.read <= {item.name for item in fields(EvaluateQuestion)}
    assert question.read >= {"fold", "evaluator", "params", "task", "k", "seed", "noise"}
    assert tools.read <= set(OUTSIDE) | _method_fields(Toolbox)


def test_every_tool_has_a_reason_to_be_in_no_key() -> None:
    names = {item.name for item in fields(Toolbox) if not item.name.startswith("_")}
    assert names == set(OUTSIDE)
    assert all(OUTSIDE.values())


def test_preparing_reads_only_what_names_the_prepared_file(data: Any, tmp_path: Path) -> None:
    spec = Watched(data[0])
    prepare(spec, tmp_path / "p.h5ad", tmp_path)
    named = {*questions.MATRIX_FIELDS, *questions.LABEL_FIELDS}
    # The files count by the digest of their bytes, wherever they lie; a cap ends a run, or not.
    assert spec.read - {"files", "folder", "max_unpacked"} <= named


def test_a_fold_reads_only_what_is_in_its_key(data: Any) -> None:
    spec = Watched(data[0])
    fit_fold(_toolbox(data).prepared(), spec, 0)
    # The recipe is in the key of the matrix, the first task beside the fold's own fields.
    assert spec.read <= {*questions.FOLD_FIELDS, "recipe", "tasks", "id"}
    assert spec.read >= {"split", "recipe", "tasks"}


@pytest.mark.parametrize("item", fields(SelectQuestion), ids=lambda item: item.name)
def test_each_field_of_a_selection_is_in_its_identity(item: Any, data: Any) -> None:
    asked = replace(_select(data), nested=False)
    other = {"tasks": (), "nested": True, "params": {"x": 1}, "noise": 0.5}
    changed = replace(asked, **{item.name: other.get(item.name, "something else")})
    assert changed.identity() != asked.identity()


@pytest.mark.parametrize("item", fields(EvaluateQuestion), ids=lambda item: item.name)
def test_each_field_of_an_evaluation_is_in_its_identity(item: Any, data: Any) -> None:
    asked = EvaluateQuestion("k", "fold", "rf", {}, data[0].tasks[0], 5, 0)
    other = {"task": data[0].tasks[0].model_copy(update={"min_cells": 7}), "noise": 0.5}
    changed = replace(asked, **{item.name: other.get(item.name, "something else")})
    assert changed.identity() != asked.identity()
