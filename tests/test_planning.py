"""What is asked for, found and planned: every run once, with all that can change it."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from panelbench import registry
from panelbench.records.keys import digest
from panelbench.registry import discover, discover_evaluators
from panelbench.schema import parse
from panelbench.suite import plan as planning
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request, read_panel
from panelbench.suite.runs import Plan
from panelbench.suite.specs import SuiteSpec
from tests.lab import SPY, SUITE, Lab
from tests.tools import IN_ORDER, method_source

# -- what is planned -----------------------------------------------------------------------


def test_seeds_sizes_and_folds_of_a_plan(planned: Callable[..., Plan]) -> None:
    plan = planned()
    selected = {(r.method, r.question.k, r.question.seed) for r in plan.selections}
    assert selected == {
        *(("nested", 8, seed) for seed in (0, 1)),
        *(("exact", k, seed) for k in (4, 8) for seed in (0, 1)),
        *(("whole", 8, seed) for seed in (0, 1)),
    }  # fmt: skip
    (dataset,) = plan.datasets
    for run in plan.selections:
        assert run.question.fold == dataset.fold_key(run.seed)
    scored = {(r.select.method, r.k, r.question.seed, r.evaluator) for r in plan.evaluations}
    sizes = {"nested": (4, 8), "exact": (4, 8), "whole": (None,)}
    assert scored == {
        (method, k, seed, evaluator)
        for method, ks in sizes.items()
        for k in ks
        for seed in (0, 1)
        for evaluator in ("rf", "knn")
    }
    for evaluation in plan.evaluations:
        question, select = evaluation.question, evaluation.select
        assert question.fold == select.question.fold and question.select == select.key
        assert question.seed == select.seed
        assert select.method != "exact" or question.k == select.k


def test_noise_of_a_plan_is_where_the_suite_wants_it(planned: Callable[..., Plan]) -> None:
    plan = planned(noise={"fractions": [0, 0.2], "variants": ["both", "select"]}, seeds=[0], ks=[4])
    for run in plan.selections:
        assert run.noise in ((0.0,) if run.method == "whole" else (0.0, 0.2))
    nested = [(r.select.noise, r.question.noise) for r in plan.evaluations
              if (r.select.method, r.evaluator) == ("nested", "rf")]  # fmt: skip
    assert sorted(nested) == [(0.0, 0.0), (0.2, 0.0), (0.2, 0.2)]


def test_shards_share_the_work_and_do_each_run_once(planned: Callable[..., Plan]) -> None:
    whole = planned()
    for stage in ("selections", "evaluations"):
        parts = [[run.key for run in getattr(planned(shard=(i, 3)), stage)] for i in range(3)]
        assert sorted(itertools.chain(*parts)) == sorted(run.key for run in getattr(whole, stage))
        assert all(parts)


def test_keys_hold_the_code_and_the_libraries_that_each_stage_uses(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, lab: Lab
) -> None:
    monkeypatch.setattr(planning, "code_digest", lambda *names: json.dumps(names))
    monkeypatch.setattr(planning, "library_versions", lambda names: dict.fromkeys(names, "1"))
    plan = planned(methods=["exact"])
    (dataset,), run, evaluation = plan.datasets, plan.selections[0], plan.evaluations[0]
    reader = "panelbench.data.readers.h5ad"
    assert json.loads(dataset.identity["code"]) == ["panelbench.stages.preprocess", [reader]]
    assert {"anndata", "numpy", "scanpy"} <= set(dataset.identity["libraries"])
    assert json.loads(dataset.fold_identity["code"]) == ["panelbench.stages.fold", []]
    assert {"scikit-learn", "scikit-misc"} == set(dataset.fold_identity["libraries"])
    assert json.loads(run.identity["code"]) == ["panelbench.stages.selection", []]
    assert json.loads(evaluation.identity["code"]) == ["panelbench.stages.evaluation", []]
    evaluator = discover_evaluators().get(evaluation.evaluator)
    assert set(evaluation.identity["libraries"]) == set(evaluator.libraries) != set()
    found = discover_evaluators().source_digest(evaluation.evaluator)
    assert evaluation.identity["source"] == found
    for each, identity in ((run, run.identity), (evaluation, evaluation.identity)):
        assert each.key == digest(dict(identity))
    assert dataset.identity["source"] == "sum" and dataset.fold_identity["prep"] == dataset.key


def test_libraries_of_a_method_are_in_its_key() -> None:
    suite = parse(SuiteSpec, {**SUITE, "datasets": ["pbmc68k-reduced"], "methods": ["mrmr-f"],
                              "seeds": [0]}, "test")  # fmt: skip
    from panelbench.data.catalogue import find_catalogue, load_catalogue

    catalogue = load_catalogue(find_catalogue(None))
    (run, *_) = make_plan(suite, catalogue, discover(), lambda spec: "a").selections
    wanted = discover().get("mrmr-f").libraries
    assert wanted and set(run.identity["libraries"]) == set(wanted)


def test_the_source_of_a_method_is_in_its_key(tmp_path: Path, lab: Lab) -> None:
    keys = set()
    for text in (SPY, SPY, SPY.replace("[::-1]", "[::1]"), SPY.replace("1 / (1", "1 / (2")):
        (tmp_path / "spy.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("panelbench_extra_")]:
            del sys.modules[name]
        suite = parse(SuiteSpec, {**SUITE, "methods": ["spy"], "seeds": [0]}, "test")
        plan = make_plan(suite, {"own": lab.spec}, discover([tmp_path]), lambda spec: "sum")
        (run,) = plan.selections
        keys.add(run.key)
    assert len(keys) == 3


def test_a_question_is_of_its_data_set(planned: Callable[..., Plan]) -> None:
    first, second = (
        planned(datasets=[{"dataset": "own", "tasks": ["cell_type"], "split": {"test": share}}])
        for share in (0.2, 0.3)
    )
    for stage in ("selections", "evaluations"):
        questions = [{run.question_digest for run in getattr(p, stage)} for p in (first, second)]
        assert not questions[0] & questions[1]


def test_tasks_are_selected_for_at_once_or_one_by_one(planned: Callable[..., Plan]) -> None:
    two = [{"dataset": "own", "tasks": ["cell_type", "state"]}]
    plan = planned(datasets=two, methods=["nested", "several", "whole"], seeds=[0])
    tasks = {(run.method, run.tasks) for run in plan.selections}
    both = ("cell_type", "state")
    assert tasks == {
        ("nested", both[:1]), ("nested", both[1:]), ("several", both), ("whole", ()),
    }  # fmt: skip
    scored = {(run.select.method, run.task.name) for run in plan.evaluations}
    assert scored == {(m, task) for m in ("nested", "several", "whole") for task in both}


def test_a_predictor_is_scored_in_each_of_its_modes(planned: Callable[..., Plan]) -> None:
    plan = planned(methods=["several", "nested"], evaluators=["builtin"], seeds=[0], ks=[4])
    found = [(run.select.method, run.question.params["mode"]) for run in plan.evaluations]
    assert found == [("several", ""), ("several", "hard")]


# -- what is asked for ---------------------------------------------------------------------


def test_options_replace_parts_of_a_suite(tmp_path: Path) -> None:
    forest = {"method": "rf-importance", "params": {"n_estimators": 7}}
    suite = {**SUITE, "methods": [forest, "random"], "ks": [4, 8], "seeds": [0, 1]}
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(suite))
    whole = Request(suite=str(path)).resolve()
    assert whole.ks == (4, 8) and whole.seeds == (0, 1) and whole.name == "t"
    part = Request(suite=str(path), seed=[5], sets={"rf-importance.max_depth": 3}).resolve()
    assert (part.seeds, part.ks, part.name) == ((5,), (4, 8), "t-part")
    assert {m.method: dict(m.params) for m in part.methods} == {
        "rf-importance": {"n_estimators": 7, "max_depth": 3}, "random": {},
    }  # fmt: skip
    other = Request(suite=str(path), method=["random"], k=[16], task=["state"]).resolve()
    assert [m.method for m in other.methods] == ["random"] and other.ks == (16,)
    assert other.datasets[0].tasks == ("state",)


def test_a_panel_file_is_read_by_rank(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = [(10, "last"), (2, "second"), (1, "first")]
    path.write_text("rank,gene\n" + "".join(f"{rank},{gene}\n" for rank, gene in rows))
    assert read_panel(path) == ["first", "second", "last"]


# -- plug-ins ------------------------------------------------------------------------------


def test_installed_packages_offer_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "methods_offered"
    folder.mkdir()
    (folder / "found.py").write_text(method_source("found", IN_ORDER))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("found", "methods_offered.found", "panelbench.methods")
    monkeypatch.setattr(registry, "_installed", lambda group: (point,) * (group == point.group))
    assert discover().get("found").module == "methods_offered.found"
    broken = EntryPoint("gone", "methods_offered.gone", "panelbench.methods")
    monkeypatch.setattr(registry, "_installed", lambda group: (broken,) * (group == point.group))
    assert "entry point gone" in discover().broken["gone"].place


def test_helpers_that_are_loaded_by_name_belong_to_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "helpers_of_found.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "methods").mkdir()
    source = method_source("found", IN_ORDER, 'helpers=("helpers_of_found",)')
    (tmp_path / "methods" / "found.py").write_text(source)
    digests = set()
    for number in (1, 2, 2):
        helper.write_text(f"NUMBER = {number}\n")
        importlib.invalidate_caches()
        digests.add(discover([tmp_path / "methods"]).source_digest("found"))
    assert len(digests) == 2


def test_another_text_of_a_broken_method_is_another_method(tmp_path: Path) -> None:
    digests = set()
    for number in (1, 2):
        text = f"import there_is_no_such_module_{number}\n" + method_source("broken", IN_ORDER)
        (tmp_path / "broken.py").write_text(text)
        digests.add(discover([tmp_path]).source_digest("broken"))
    assert len(digests) == 2
