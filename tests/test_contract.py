"""The contract of a method: kept by every method that is found, and each rule can be broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from panelbench.contract.imports import HEAVY
from panelbench.contract.methods import RULES, MethodTrial
from panelbench.contract.rules import Outcome
from panelbench.method import Method, Selection, Task
from panelbench.registry import discover
from tests import bad_methods as bad
from tests.tools import method_source, need_libraries

REGISTRY = discover()


def failures(outcomes: Any) -> dict[str, str]:
    """Rules that are not kept, and why."""
    return {item.rule: item.why for item in outcomes if item.verdict == "failed"}


def test_every_module_imports() -> None:
    assert not REGISTRY.broken, {item.place: item.error for item in REGISTRY.broken.values()}
    assert len(REGISTRY.methods) > 0


def test_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys; from panelbench.registry import discover; found = discover()\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules)); sys.exit(not found.methods)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", "import heavy libraries inside functions"


@lru_cache
def trial(id: str) -> MethodTrial:
    """One for all rules, so that the run that others are compared with is done once."""
    return MethodTrial(REGISTRY.get(id))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("id", REGISTRY.methods)
def test_contract(id: str, rule: str) -> None:
    if REGISTRY.get(id).gpu == "required":
        pytest.skip("needs a GPU")
    need_libraries(REGISTRY.get(id))
    found = RULES.outcome(rule, trial(id))
    if found.verdict == "not asked":
        pytest.skip(found.why)
    assert found.verdict == "passed", found.why


# -- each rule can be broken ---------------------------------------------------------------


LABELS = {"supervised": True}
TOGETHER = {**LABELS, "predictor": bad.Faithful}
OUTPUTS = {
    **LABELS, "expression": True, "reads": "inputs", "sizes_itself": True,
    "predictor": bad.Averages,
}  # fmt: skip
BREAKS: list[tuple[Callable[[Task, Any], Selection], dict[str, Any], dict[str, str]]] = [
    (bad.sound, {}, {}),
    (bad.telling, {**LABELS, "predictor": bad.Faithful}, {}),
    (bad.telling, {**TOGETHER, "together": bad.each_alone}, {}),
    (
        bad.telling,
        {**TOGETHER, "together": bad.all_alike},
        {"together_as_alone": "ranks otherwise in a group (k = 10, seed 2, 130 cells)"},
    ),
    (
        bad.telling,
        {**TOGETHER, "together": bad.one_answer},
        {"together_as_alone": "gives 1 answers to 3 tasks"},
    ),
    (
        bad.telling,
        {**TOGETHER, "together": bad.weighed},
        {"together_as_alone": "scores or predicts otherwise (k = 10, seed 0, 150 cells)"},
    ),
    (bad.nameless, {}, {"says_what_it_is": "no docstring"}),
    (bad.twice, {}, {"ranks_known_genes_once": "more than once", "serves_every_k": "'G035'"}),
    (bad.too_few, {}, {"serves_every_k": "ranked 30 genes, 60 were asked for"}),
    (
        bad.moody,
        {},
        {
            "same_seed_same_ranking": "task.rng('purpose')",
            "sparse_as_dense": "",
            "nested_means_prefix": "",
            "workers_change_nothing": "",
        },
    ),
    (
        bad.moody,
        {"deterministic": False, "nested": False},
        {"sparse_as_dense": ""},
    ),
    (bad.scribbler, {}, {"leaves_inputs_alone": "changes task.X"}),
    (bad.storage_bound, {}, {"sparse_as_dense": "CSR"}),
    (bad.deaf, LABELS, {"reads_its_labels": "declare supervised=False"}),
    (
        bad.fragile,
        LABELS,
        {"reads_its_labels": "", "copes_with_rare_classes": "bad_methods.py, line"},
    ),
    (bad.flat, {}, {"constant_genes_come_last": "a constant gene stands above"}),
    (bad.k_bound, {}, {"nested_means_prefix": "declare nested=False"}),
    (bad.k_bound, {"nested": False}, {}),
    (bad.job_bound, {}, {"workers_change_nothing": "n_jobs = 2"}),
    (bad.forking, {}, {"one_job_starts_no_process": "starts the process"}),
    (bad.calling, {}, {"one_job_starts_no_process": "starts the program true"}),
    (bad.seeding, {}, {"global_random_states_stay": "state of numpy;"}),
    (bad.unwritable, {}, {"info_is_json": "ndarray is not JSON"}),
    (
        bad.forgetful,
        {**LABELS, "predictor": bad.Forgetful},
        {"predictor_survives_saving": "changes when saved and loaded"},
    ),
    (
        bad.two_faced,
        {**LABELS, "predictor": bad.Moody, "modes": ("one", "two")},
        {"predicts_in_every_mode": "(150, 2), not (150, 3)"},
    ),
    (
        bad.turned,
        {**LABELS, "predictor": bad.Turned, "modes": ("one", "two")},
        {"predicts_in_every_mode": "in the mode one otherwise than as returned"},
    ),
    (
        bad.relabelling,
        {**LABELS, "predictor": bad.Faithful},
        {"leaves_inputs_alone": "changes the labels of cell_type"},
    ),
    (
        bad.forgetting_half,
        {**LABELS, "predictor": bad.Moody, "reconstructs": True},
        {"reconstructs_all_genes": "(150, 30), not (150, 60)"},
    ),
    (bad.averaging, OUTPUTS, {}),
    (bad.gappy, OUTPUTS, {"copes_with_missing_outputs": "not finite"}),
    (bad.sidelong, OUTPUTS, {"reads_inputs_only": "task.X changes what it finds"}),
]
"""Methods with what they declare, all rules that they break, and a part of what is said."""


def method_of(function: Callable[[Task, Any], Selection], **declared: Any) -> Method:
    id = function.__name__.replace("_", "-")
    return Method(id, function, bad.__name__, **{"label": "x", **declared})


@pytest.mark.parametrize(
    ("function", "declared", "expected"), BREAKS, ids=[function.__name__ for function, *_ in BREAKS]
)
def test_a_method_that_breaks_a_rule_is_caught_by_it(
    function: Callable[[Task, Any], Selection], declared: dict[str, Any], expected: dict[str, str]
) -> None:
    found = failures(RULES.examine(MethodTrial(method_of(function, **declared))))
    assert found.keys() == expected.keys(), found
    for rule, words in expected.items():
        assert words in found[rule]


def found_in(folder: Path, imports: str = "") -> dict[str, str]:
    (folder / "mine.py").write_text(imports + method_source("mine", "return 1 / 0"))
    method = discover([folder]).get("mine")
    return failures(RULES.examine(MethodTrial(method)))


def test_imports_of_a_module_are_caught(tmp_path: Path) -> None:
    imports = "import sklearn.svm\nfrom panelbench.data import splits\n"
    found = found_in(tmp_path, imports)
    assert "sklearn" in found["imports_heavy_libraries_late"]
    assert "mine.py imports panelbench.data" in found["imports_what_is_offered"]


def test_what_a_method_raises_is_told_with_its_line(tmp_path: Path) -> None:
    found = found_in(tmp_path)
    assert {"ranks_known_genes_once", "serves_every_k"} <= found.keys()
    assert found["serves_every_k"].startswith("raised ZeroDivisionError: division by zero (")
    assert found["serves_every_k"].endswith("mine.py, line 9)")
    assert not {"imports_heavy_libraries_late", "imports_what_is_offered"} & found.keys()


def test_each_rule_has_a_method_that_breaks_it() -> None:
    told = {rule for *_, expected in BREAKS for rule, words in expected.items() if words}
    assert told | {"imports_what_is_offered", "imports_heavy_libraries_late"} == set(RULES)


def test_without_its_libraries_nothing_is_tried() -> None:
    method = method_of(bad.sound, libraries=("no-such-thing",))
    assert [*RULES.examine(MethodTrial(method))] == [
        Outcome("can_be_tried", "It can run here.", "failed",
                "needs no-such-thing: pip install no-such-thing")
    ]  # fmt: skip


def test_rules_that_do_not_concern_a_method_say_so() -> None:
    found = {item.rule: item for item in RULES.examine(MethodTrial(method_of(bad.sound)))}
    assert found["reads_its_labels"].verdict == "not asked"
    assert found["reads_its_labels"].why == "declared unsupervised: it gets no labels"
    assert found["serves_every_k"].asks.startswith("It serves k = 1")


def test_trainings_are_cut_short_unless_they_are_given() -> None:
    yoto = REGISTRY.get("yoto")
    assert MethodTrial(yoto).params.epochs == 3
    assert MethodTrial(yoto, {"epochs": 7}).params.epochs == 7
