"""SCMER, spapros and scGIST: what is asked of their libraries, and what becomes of the answer.

What runs in an environment of its own is tested where this is there (`PANELBENCH_ENVIRONMENTS`);
what stands around the script is tested anywhere, with a script that says what it was given.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.contract import tasks
from panelbench.errors import NotApplicable
from panelbench.method import Task
from panelbench.params import make_params
from panelbench.registry import discover
from tests.tools import need_libraries

METHODS = discover().methods


@pytest.mark.parametrize("id", ["spapros", "scgist"])
def test_it_needs_an_environment_of_exact_versions(id: str) -> None:
    method = METHODS[id]
    assert method.environment is not None and not method.libraries
    names = {item.partition("==")[0] for item in method.environment.requirements}
    assert {id, "numpy", "scikit-learn"} <= names
    assert len(names) == len(method.environment.requirements), "none twice"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a script was given; it ranks genes backwards, by weight too."""
    given: dict[str, Any] = {}

    def call(task: Task, script: Path, content: dict[str, Any]) -> dict[str, Any]:
        given.update(content, script=script)
        n = task.n_genes
        return {
            "order": np.arange(n)[::-1],
            "rank": np.arange(n),
            "weights": np.arange(n) / n,
            "loss": [2.0, 1.0],
        }

    for id in ("spapros", "scgist"):
        monkeypatch.setattr(importlib.import_module(f"panelbench.methods.{id}"), "call", call)
    return given


def planted(id: str, codes: np.ndarray | None = None, **more: Any) -> Task:
    method = replace(METHODS[id], environment=None)
    target = None if codes is None else tasks.cell_type(codes, classes=5)
    return tasks.make_task(method, target=target, **more)


@pytest.mark.parametrize("id", ["spapros", "scgist"])
def test_its_order_is_kept_and_constant_genes_come_last(id: str, asked: dict[str, Any]) -> None:
    task = planted(id, k=3)
    found = METHODS[id].select(task, METHODS[id].params())
    position = {gene: number for number, gene in enumerate(task.genes.tolist())}
    order = [position[gene] for gene in found.ranking]
    constant = set(np.flatnonzero(task.dense().std(axis=0) == 0).tolist())
    varies = [gene for gene in range(task.n_genes - 1, -1, -1) if gene not in constant]
    assert order[: len(varies)] == varies and set(order[len(varies) :]) == constant
    assert asked["script"].read_text().startswith('"""Calls s'), "the script is there"
    assert asked["X"].shape == task.X.shape


def test_spapros_is_given_what_is_to_be_included(asked: dict[str, Any]) -> None:
    task = replace(planted("spapros"), n_jobs=2)
    task = replace(task, include=(str(task.genes[30]), str(task.genes[2])))
    found = METHODS["spapros"].select(task, METHODS["spapros"].params(n_trees=7))
    assert asked["include"] == [30, 2] and asked["n_jobs"] == 2 and asked["n_trees"] == 7
    assert len(found.info["rank"]) == task.k


@pytest.mark.parametrize(("id", "fewest"), [("spapros", 4), ("scgist", 2)])
def test_small_classes_are_left_out(id: str, fewest: int, asked: dict[str, Any]) -> None:
    codes = tasks.labels().copy()
    codes[: fewest - 1], codes[-fewest:] = 4, 3
    METHODS[id].select(planted(id, codes), METHODS[id].params())
    kept = np.asarray(asked["codes"])
    assert len(kept) == tasks.N_CELLS - (fewest - 1) and len(np.unique(kept)) == 4
    with pytest.raises(NotApplicable, match="fewer than two classes"):
        METHODS[id].select(planted(id, codes * 0), METHODS[id].params())


def test_scgist_needs_a_cell_of_each_class_to_watch(asked: dict[str, Any]) -> None:
    with pytest.raises(NotApplicable, match="150 cells are too few for 3 classes"):
        METHODS["scgist"].select(planted("scgist"), METHODS["scgist"].params(validation=0.01))
    METHODS["scgist"].select(planted("scgist", k=5, seed=1), METHODS["scgist"].params())
    first, _ = (
        asked["seed"],
        METHODS["scgist"].select(planted("scgist", k=5, seed=2), METHODS["scgist"].params()),
    )
    assert asked["seed"] != first and asked["k"] == 5


@pytest.mark.parametrize(
    ("id", "given", "least"),
    [("spapros", {"n_trees": 5}, 6), ("scgist", {"epochs": 120}, 6), ("scmer", {}, 6)],
)
def test_planted_markers_are_found(id: str, given: dict[str, Any], least: int) -> None:
    need_libraries(METHODS[id])
    task = tasks.make_task(METHODS[id], k=10)
    found = METHODS[id].select(task, make_params(METHODS[id], given))
    markers = set(task.genes[: tasks.MARKERS * tasks.N_CLASSES].tolist())
    assert len(markers & set(found.ranking[:10])) >= least


def test_scmer_refuses_more_pairs_than_there_is_memory() -> None:
    need_libraries(METHODS["scmer"])
    task = tasks.make_task(METHODS["scmer"], memory_limit=10**6)
    with pytest.raises(NotApplicable, match="memory suffices for 100: --max-cells 100"):
        METHODS["scmer"].select(task, METHODS["scmer"].params())
    with pytest.raises(NotApplicable, match="a perplexity of 200"):
        METHODS["scmer"].select(task, METHODS["scmer"].params(perplexity=200))
    with pytest.raises(ValueError, match="below max_lasso"):
        METHODS["scmer"].params(min_lasso=2.0)
