"""The contract of an evaluator: kept by every one that is found, and each rule can be broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.contract.evaluators import RULES, EvaluatorTrial, markers_and_noise
from panelbench.contract.imports import HEAVY
from panelbench.evaluator import Evaluation, Evaluator, Metric, Scores
from panelbench.registry import discover_evaluators
from panelbench.scoring.metrics import CLASSIFICATION
from tests import bad_evaluators as bad

FOUND = discover_evaluators()


def failures(evaluator: Evaluator) -> dict[str, str]:
    """Rules that an evaluator does not keep, and why."""
    found = RULES.examine(EvaluatorTrial(evaluator))
    return {item.rule: item.why for item in found if item.verdict == "failed"}


def test_every_module_imports() -> None:
    assert not FOUND.broken, {item.place: item.error for item in FOUND.broken.values()}
    assert {"rf", "builtin", "reconstruct", "umap"} <= set(FOUND.declared)


def test_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys; from panelbench.registry import discover_evaluators; discover_evaluators()\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", "import heavy libraries inside functions"


@pytest.mark.parametrize("id", FOUND.declared)
def test_contract(id: str) -> None:
    """All rules in one test: what an evaluator compiles on its first call is compiled once."""
    if hindrance := EvaluatorTrial(FOUND.declared[id]).hindrance:
        pytest.skip(hindrance)
    assert not failures(FOUND.declared[id])


@pytest.mark.parametrize("id", ["robustness", "neighbours", "transfer", "thinning", "platform"])
def test_metrics_of_their_own_kind_that_like_markers(id: str) -> None:
    """The rule is not asked of kinds that the suite does not know; these are known."""
    good, bad = markers_and_noise(EvaluatorTrial(FOUND.get(id)))
    assert good > bad


# -- each rule can be broken ---------------------------------------------------------------


OUTPUTS = {
    "takes": ("expression",), "reads": "predictor", "kind": "outputs", "noisy": False,
    "metrics": (Metric("error", "Error", "outputs", False, high=np.inf),),
}  # fmt: skip
Fake = Callable[[Evaluation, Any], Scores]
BREAKS: list[tuple[Fake, dict[str, Any], str, str]] = [
    (bad.nameless, {}, "says_what_it_is", "no docstring"),
    (bad.inventive, {}, "gives_what_it_declares", "gave the metric 'cleverness', and declares"),
    (bad.blunt, {}, "scores_or_declines_regression", "raised ValueError: need at least one"),
    (bad.moody, {}, "same_seed_same_scores", "differ in metrics; take all randomness from"),
    (bad.scribbler, {}, "leaves_inputs_alone", "changes the expression of the test cells"),
    (bad.storage_bound, {}, "sparse_as_dense", "scores CSR matrices otherwise: metric accuracy"),
    (bad.job_bound, {}, "workers_change_nothing", "n_jobs = 2: metrics"),
    (bad.forking, {}, "one_job_starts_no_process", "starts the process"),
    (bad.seeding, {}, "global_random_states_stay", "state of numpy;"),
    (bad.blind, {}, "a_panel_of_markers_beats_noise", "0.5 of markers and 0.5 of noise"),
    (bad.cheat, {}, "predicts_without_the_test_labels", "predictions change with the test labels"),
    (bad.blind, {}, "predicts_without_the_test_labels", "does not say what it predicts"),
    (bad.cheat, {"describes": True}, "predicts_without_the_test_labels", "describes=True, and pre"),
    (bad.sly, {"noisy": False}, "reads_training_labels_as_declared", "declare noisy=True"),
    (bad.blind, {}, "reads_training_labels_as_declared", "declare noisy=False"),
    (bad.fragile, {}, "copes_with_rare_classes", "bad_evaluators.py, line"),
    (bad.paired, {}, "copes_with_one_gene", "raised ValueError"),
    (bad.pickling, {}, "can_be_written_down", "allow_pickle=False"),
    (bad.hopeful, OUTPUTS, "copes_with_missing_outputs", "is nan, not a number from"),
]
"""Evaluators with what they declare, a rule that they break, and a part of what is said."""
ONLY = {
    bad.nameless,
    bad.blunt,
    bad.scribbler,
    bad.forking,
    bad.seeding,
    bad.sly,
    bad.hopeful,
}
"""Those that break no other rule."""


def declared(function: Fake, **changes: Any) -> Evaluator:
    given = {"label": "x", "metrics": CLASSIFICATION, "noisy": True} | changes
    return Evaluator(function.__name__.replace("_", "-"), function, bad.__name__, **given)


@pytest.mark.parametrize(
    ("function", "changes", "rule", "words"),
    BREAKS,
    ids=[f"{x[0].__name__}-{x[2]}" for x in BREAKS],
)
def test_an_evaluator_that_breaks_a_rule_is_caught_by_it(
    function: Fake, changes: dict[str, Any], rule: str, words: str
) -> None:
    found = failures(declared(function, **changes))
    assert words in found[rule]
    assert found.keys() == {rule} or function not in ONLY, found


def test_imports_of_a_module_are_caught(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import pandas\nfrom panelbench.report import tables\n"
        "from panelbench.evaluator import Scores, evaluator\n\n"
        "@evaluator('mine', kind='view')\ndef score(given, params):\n    return Scores()\n"
    )
    found = failures(discover_evaluators([tmp_path]).get("mine"))
    assert "pandas" in found["imports_heavy_libraries_late"]
    assert "mine.py imports panelbench.report" in found["imports_what_is_offered"]


def test_each_rule_has_an_evaluator_that_breaks_it() -> None:
    imports = {"imports_what_is_offered", "imports_heavy_libraries_late"}
    assert {rule for _, _, rule, _ in BREAKS} | imports == set(RULES)


def test_a_sound_evaluator_breaks_no_rule() -> None:
    assert not failures(declared(bad.sound))


def test_trees_and_draws_are_few_unless_they_are_given() -> None:
    assert EvaluatorTrial(FOUND.get("robustness")).params.draws == 3
    assert EvaluatorTrial(FOUND.get("robustness"), {"draws": 7}).params.draws == 7
