"""Keys: equal for equal questions, different for every change that can change an answer."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panelbench.data.catalogue import find_catalogue, load_catalogue
from panelbench.errors import UnknownName
from panelbench.records.keys import (
    canonical,
    digest,
)
from panelbench.registry import Registry, discover
from panelbench.schema import parse
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request
from panelbench.suite.runs import Plan
from panelbench.suite.specs import SuiteSpec

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values))
def test_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    items = list(value.items())
    random.Random(0).shuffle(items)
    assert canonical(dict(items)) == canonical(value)


@given(json_values, json_values)
def test_different_values_have_different_keys(left: Any, right: Any) -> None:
    assert (canonical(left) == canonical(right)) == (digest(left) == digest(right))


def test_numbers_that_look_alike_are_told_apart() -> None:
    assert len({digest(v) for v in ([1, 5], [1.5], ["1", "5"], [1.0, 5], 15, "15")}) == 6


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"x": float("nan")})


# -- the keys of a plan --------------------------------------------------------------------

DATA = "pbmc68k-reduced"
SUITE = {
    "name": "t",
    "datasets": [{"dataset": DATA, "tasks": ["bulk_labels"]}],
    "methods": ["mrmr-f", "random", "rf-importance"],
    "ks": [4, 8],
    "seeds": [0, 1],
    "evaluators": ["rf", "knn"],
}


def _plan(checksum: str = "a", **changes: Any) -> Plan:
    suite = parse(SuiteSpec, {**SUITE, **changes}, "test")
    catalogue = load_catalogue(find_catalogue(Path(__file__).parent.parent / "datasets.yaml"))
    return make_plan(suite, catalogue, discover(), lambda spec: checksum)


def _keys(plan: Plan) -> tuple[set[str], set[str]]:
    return {r.key for r in plan.selections}, {r.key for r in plan.evaluations}


IDENTITIES = {
    "prep": {"stage", "id", "reader", "reader_options", "recipe", "source", "code", "libraries"},
    "fold": {"stage", "prep", "split", "group", "inputs", "stratify", "code", "libraries"},
    "select": {
        "stage", "fold", "method", "params", "tasks", "k", "seed", "nested", "noise", "constraints",
        "version", "source", "code", "libraries",
    },
    "evaluate": {
        "stage", "select", "fold", "evaluator", "params", "task", "k", "seed", "noise", "version",
        "source", "code", "libraries",
    },
}  # fmt: skip
"""What each key is made of. A field that goes missing in the code is missed here."""


def test_identities_have_every_field_and_each_changes_the_key() -> None:
    plan = _plan()
    dataset = plan.datasets[0]
    identities = {
        "prep": dataset.identity,
        "fold": dataset.fold_identity,
        "select": plan.selections[0].identity,
        "evaluate": plan.evaluations[0].identity,
    }
    keys = {
        "prep": dataset.key,
        "select": plan.selections[0].key,
        "evaluate": plan.evaluations[0].key,
    }
    for stage, names in IDENTITIES.items():
        assert set(identities[stage]) == names, stage
    for stage, key in keys.items():
        assert digest(dict(identities[stage])) == key
        for name in identities[stage]:
            assert digest({**identities[stage], name: "something else"}) != key, (stage, name)


def test_questions_are_in_keys_field_by_field() -> None:
    """A question's field that its identity leaves out could change an answer under an old key."""
    plan = _plan()
    for run in (plan.selections[0], plan.evaluations[0]):
        for item in fields(run.question):
            assert item.name in run.identity, item.name


def test_each_seed_has_a_fold_of_its_own() -> None:
    dataset = _plan().datasets[0]
    assert len({dataset.fold_key(seed) for seed in range(5)}) == 5
    for name in dataset.fold_identity:
        flipped = {**dataset.fold_identity, name: "something else"}
        assert replace(dataset, fold_identity=flipped).fold_key(0) != dataset.fold_key(0), name


def test_shuffled_plan_has_the_same_keys() -> None:
    shuffled = {
        name: list(reversed(value)) if isinstance(value, list) else value
        for name, value in SUITE.items()
    }
    assert _keys(_plan()) == _keys(_plan(**shuffled))


CHANGES: dict[str, dict[str, Any]] = {
    "data": {"checksum": "b"},
    "recipe": {"datasets": [{"dataset": DATA, "recipe": [{"filter_genes": {"min_cells": 9}}]}]},
    "split": {"datasets": [{"dataset": DATA, "split": {"test": 0.3}}]},
    "task": {"datasets": [{"dataset": DATA, "tasks": ["phase"]}]},
    "seed": {"seeds": [5]},
    "constraints": {"constraints": {"exclude": ["MT-*"]}},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_can_change_a_ranking_changes_every_key(name: str) -> None:
    select, evaluate = _keys(_plan())
    changed = _keys(_plan(**CHANGES[name]))
    supervised = {r.key for r in _plan(**CHANGES[name]).selections if r.tasks}
    assert not (select & (supervised if name == "task" else changed[0]))
    assert not (evaluate & changed[1])


def test_a_parameter_changes_only_its_method() -> None:
    forest = {"method": "rf-importance", "params": {"n_estimators": 7}}
    plan, other = _plan(), _plan(methods=["mrmr-f", "random", forest])
    changed = {r.method for r in other.selections if r.key not in _keys(plan)[0]}
    assert changed == {"rf-importance"}


def test_a_default_given_explicitly_changes_nothing() -> None:
    default = next(r for r in _plan().selections if r.method == "rf-importance").question.params
    other = _plan(
        methods=["mrmr-f", "random", {"method": "rf-importance", "params": dict(default)}]
    )
    assert _keys(_plan()) == _keys(other)


def test_k_is_no_part_of_a_nested_selection_but_of_its_evaluations() -> None:
    plan, other = _plan(), _plan(ks=[4, 16])
    assert _keys(plan)[0] == _keys(other)[0]
    shared = {r.k for r in other.evaluations if r.key in _keys(plan)[1]}
    assert shared == {4}


def test_evaluator_parameters_change_evaluations_only() -> None:
    other = _plan(evaluators=[{"evaluator": "rf", "params": {"n_estimators": 7}}])
    assert _keys(_plan())[0] == _keys(other)[0]
    assert not _keys(_plan())[1] & _keys(other)[1]


def test_noise_changes_supervised_selections_only() -> None:
    noisy = _plan(noise={"fractions": 0.2, "variants": "select"})
    same = {r.method for r in noisy.selections if r.key in _keys(_plan())[0]}
    assert same == {"random"}
    both = _plan(noise={"fractions": 0.2, "variants": "both"})
    assert _keys(both)[0] == _keys(noisy)[0]
    assert not _keys(both)[1] & _keys(noisy)[1]


def test_a_run_that_noise_cannot_change_answers_for_every_level() -> None:
    plan = _plan(noise={"fractions": [0, 0.1, 0.2], "variants": ["both", "select"]})
    names = {level: level.label for level in plan.suite.noise_levels}
    assert list(names.values()) == [
        "no noise", "10% noise", "20% noise", "10% noise, selection only",
        "20% noise, selection only",
    ]  # fmt: skip
    # Noise in the selection only cannot reach a method without labels.
    clean = [r for r in plan.evaluations if r.select.method == "random" and not r.question.noise]
    assert {tuple(names[level] for level in r.levels) for r in clean} == {
        ("no noise", "10% noise, selection only", "20% noise, selection only")
    }
    by_method = Counter(r.method for r in plan.selections if r.seed == 0)
    assert by_method["mrmr-f"] == 3 * by_method["random"]


def test_an_evaluator_can_be_kept_to_some_runs(tmp_path: Path) -> None:
    umap = {"evaluator": "umap", "methods": ["random"], "ks": [8], "seeds": [0]}
    plan = _plan(evaluators=["rf", umap])
    pictures = [r for r in plan.evaluations if r.evaluator == "umap"]
    assert [(r.select.method, r.k, r.select.seed) for r in pictures] == [("random", 8, 0)]
    with pytest.raises(UnknownName, match="did you mean random"):
        _plan(evaluators=[{"evaluator": "umap", "methods": ["randm"]}])
    # A part of the suite keeps what is left of it.
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps({**SUITE, "evaluators": ["rf", umap]}))
    for part, left in (({"k": [8]}, ["rf", "umap"]), ({"k": [4]}, ["rf"]),
                       ({"method": ["mrmr-f"]}, ["rf"])):  # fmt: skip
        found = Request(suite=str(path), **part).resolve().evaluators
        assert [entry.evaluator for entry in found] == left


def test_labels_and_limits_are_in_no_key() -> None:
    other = _plan(
        title="T",
        methods=[{"method": "mrmr-f", "label": "M"}, "random", "rf-importance"],
        limits={"time": 5},
    )
    assert _keys(_plan()) == _keys(other)


def test_version_changes_the_key() -> None:
    registry = discover()
    raised = {**registry.methods, "random": replace(registry.methods["random"], version=99)}
    catalogue = load_catalogue(find_catalogue(Path(__file__).parent.parent / "datasets.yaml"))
    suite = parse(SuiteSpec, SUITE, "test")
    other = make_plan(suite, catalogue, Registry(raised, {}), lambda spec: "a")
    changed = {r.method for r in other.selections if r.key not in _keys(_plan())[0]}
    assert changed == {"random"}


def test_number_of_models_is_that_of_the_papers_table() -> None:
    plan = _plan(
        datasets=[{"dataset": "pbmc3k"}], methods=["seurat", "mrmr-f"], ks=[64], seeds=[0],
        evaluators=["rf"],
    )  # fmt: skip
    fitted = {
        method: sum(r.method == method for r in plan.selections)
        + sum(r.select.method == method for r in plan.evaluations)
        for method in ("seurat", "mrmr-f")
    }
    assert fitted == {"seurat": 4, "mrmr-f": 6}
