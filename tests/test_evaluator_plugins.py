"""Evaluators of one's own: found, keyed, run and shown like those that ship."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import panelbench
from panelbench import registry
from panelbench.contract.evaluations import planted
from panelbench.data.catalogue import find_catalogue, load_catalogue
from panelbench.errors import ConfigError, EvaluatorError, UnknownName
from panelbench.evaluator import Evaluator, Metric, Scores
from panelbench.records.code import import_closure
from panelbench.registry import Evaluators, discover, discover_evaluators
from panelbench.schema import parse
from panelbench.scoring.metrics import CLASSIFICATION, METRICS, REGRESSION
from panelbench.stages.evaluation import check
from panelbench.suite.plan import make_plan
from panelbench.suite.runs import Plan
from panelbench.suite.specs import SuiteSpec
from tests.tools import Bench

ROOT = Path(__file__).parent.parent


def source(id: str, body: str, declared: str = "metrics=CLASSIFICATION") -> str:
    """Source of a module with one evaluator; `body` is the inside of its function."""
    head = f'''
        """An evaluator of the tests."""
        import numpy as np
        from panelbench.evaluator import Metric, Scores, evaluator
        from panelbench.scoring.metrics import CLASSIFICATION

        @evaluator("{id}", {declared})
        def score(given, params):
            """Do as the test wants."""
        '''
    return textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def add(folder: Path, id: str, body: str = "return Scores()", **declared: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{id.replace('-', '_')}.py"
    path.write_text(source(id, body, **declared))
    return path


# -- discovery -----------------------------------------------------------------------------


def test_a_copy_of_an_evaluator_that_ships_is_there(tmp_path: Path) -> None:
    text = (ROOT / "panelbench/scoring/evaluators/rf.py").read_text()
    assert text.count('"rf"') == 1
    (tmp_path / "mine.py").write_text(text.replace('"rf"', '"my-forest"'))
    mine, theirs = (discover_evaluators([tmp_path]).get(name) for name in ("my-forest", "rf"))
    given = planted()
    assert mine.score(given, mine.params()).metrics == theirs.score(given, theirs.params()).metrics


def test_a_clash_names_both_places(tmp_path: Path) -> None:
    path = add(tmp_path, "rf")
    with pytest.raises(ConfigError) as error:
        discover_evaluators([tmp_path])
    assert "evaluator 'rf' is declared twice" in str(error.value)
    assert str(path.with_suffix("")) in str(error.value)
    assert str(Path("scoring/evaluators/rf.py")) in str(error.value)


def test_a_broken_module_is_listed_and_fails_when_asked_for(bench: Bench) -> None:
    path = bench.folder / "own" / "torn.py"
    path.parent.mkdir()
    path.write_text(source("torn-apart", "return Scores()") + "\nraise OSError('no luck')\n")
    found = discover_evaluators([path.parent])
    assert found.broken["torn-apart"].error == "OSError: no luck"
    assert found.get("rf").id == "rf"
    options = ["--evaluators-dir", "own", "--output", "json"]
    listed = bench.call_here("list", "evaluators", *options).json["evaluators"]
    assert "no luck" in next(x["what"] for x in listed if x["evaluator"] == "torn-apart")
    asked = bench.call_here("run", "--method", "random", "--evaluator", "torn-apart", *options[:2])
    assert asked.code == 2 and "no luck" in asked.err and "torn.py" in asked.err


def test_a_folder_that_is_not_there_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--evaluators-dir .*nowhere"):
        discover_evaluators([tmp_path / "nowhere"])


def test_installed_packages_offer_evaluators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "offered_here", "offered")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("offered", "offered_here.offered", "panelbench.evaluators")
    groups: list[str] = []

    def installed(group: str) -> tuple[EntryPoint, ...]:
        groups.append(group)
        return (point,) if group == point.group else ()

    monkeypatch.setattr(registry, "_installed", installed)
    assert discover_evaluators().get("offered").module == "offered_here.offered"
    assert "offered" not in discover().methods
    assert groups == ["panelbench.evaluators", "panelbench.methods"]


def test_one_id_is_one_metric(tmp_path: Path) -> None:
    own = 'kind="own", metrics=(Metric("depth", "{}", "own"),)'
    add(tmp_path, "first", declared=own.format("Depth"))
    add(tmp_path, "second", declared=own.format("Depth"))
    assert discover_evaluators([tmp_path]).metrics["depth"].label == "Depth"
    add(tmp_path, "third", declared=own.format("Height"))
    with pytest.raises(ConfigError, match=r"'depth' is declared twice.*first\.py.*third\.py"):
        discover_evaluators([tmp_path])


def test_a_shared_metric_cannot_be_declared_anew(tmp_path: Path) -> None:
    own = 'kind="own", metrics=(Metric("f1_macro", "F1", "own"),)'
    add(tmp_path, "mine", declared=own)
    with pytest.raises(ConfigError, match=r"'f1_macro' is declared twice.*metrics\.py.*mine\.py"):
        discover_evaluators([tmp_path])


def test_shared_metrics_are_declared_once() -> None:
    assert discover_evaluators().metrics.items() >= METRICS.items()


OWN = Metric("depth", "Depth", "own")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"id": "Bad Id"}, "lower case"),
        ({"params": dict}, "frozen dataclass"),
        ({"metrics": (OWN,)}, "metric depth is about own, not about classification or regression"),
        ({"kind": "own", "metrics": CLASSIFICATION}, "accuracy is about classification"),
        ({"kind": "own", "metrics": (OWN, OWN)}, "depth is declared twice"),
        ({"kind": "own", "metrics": (replace(OWN, low=1.0),)}, "no range"),
        ({"kind": "own", "metrics": (replace(OWN, high=float("nan")),)}, "no range"),
    ],
)
def test_wrong_declarations_are_refused(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Evaluator(**{"id": "x", "score": lambda *_: Scores(), "module": __name__, **declared})


# -- what comes back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"accuracy": 1.0}, "returned dict, not Scores"),
        (Scores({"cleverness": 1.0}), "'cleverness', and declares accuracy"),
        (Scores({"accuracy": float("nan")}), "'accuracy' is nan, not a number from 0.0 to 1.0"),
        (Scores({"accuracy": float("inf")}), "is inf"),
        (Scores({"accuracy": 1.01}), "is 1.01"),
        (Scores({"accuracy": -0.01}), "is -0.01"),
        (Scores(by_class={"T 9": {}}), "class 'T 9', which does not exist"),
        (Scores(per_class_f1={"T 9": 1.0}), "class 'T 9', which does not exist"),
        (Scores(by_class={"T 0": {"accuracy": 2.0}}), "of class 'T 0' is 2.0"),
        (Scores(confusion=np.zeros((2, 3))), r"shape \(2, 3\), expected \(3, 3\)"),
        (Scores(predicted=np.zeros((7, 3))), "predicted 7 cells, there are 50"),
        (Scores(arrays={"x": np.array([object()])}), "'x' is no array"),
        (Scores(arrays={"x": [1, 2]}), "'x' is no array"),
    ],
)
def test_rubbish_is_refused(scores: Any, said: str) -> None:
    item = Evaluator("x", lambda *_: scores, __name__, metrics=CLASSIFICATION)
    with pytest.raises(EvaluatorError, match=said):
        check(scores, item, planted())


def test_no_range_is_wide_enough_for_infinity() -> None:
    item = Evaluator("x", lambda *_: Scores(), __name__, metrics=REGRESSION)
    check(Scores({"mse": 1e300}), item, planted())
    with pytest.raises(EvaluatorError, match="'mse' is inf"):
        check(Scores({"mse": float("inf")}), item, planted())


def test_sound_scores_pass() -> None:
    item = Evaluator("x", lambda *_: Scores(), __name__, metrics=CLASSIFICATION)
    check(Scores({"accuracy": 1.0}, by_class={"T 0": {"accuracy": 0.0}}), item, planted())


# -- keys ----------------------------------------------------------------------------------


def test_the_stage_imports_no_way_to_score() -> None:
    closure = import_closure("panelbench.stages.evaluation")
    assert "panelbench.evaluator" in closure
    assert not [name for name in closure if name.startswith("panelbench.scoring")]


def test_what_an_evaluator_imports_belongs_to_it() -> None:
    closure = import_closure(discover_evaluators().get("robustness").module)
    wanted = {"evaluators.rf", "predictions", "metrics"}
    assert {f"panelbench.scoring.{name}" for name in wanted} <= set(closure)
    assert "panelbench.scoring.evaluators.knn" not in closure


def _plan(evaluators: Evaluators, *names: str, **changes: Any) -> Plan:
    suite = {
        "name": "t", "datasets": [{"dataset": "pbmc68k-reduced", "tasks": ["bulk_labels"]}],
        "methods": ["random"], "ks": [4], "seeds": [0], "evaluators": list(names),
    }  # fmt: skip
    catalogue = load_catalogue(find_catalogue(ROOT / "datasets.yaml"))
    spec = parse(SuiteSpec, suite | changes, "test")
    return make_plan(spec, catalogue, discover(), lambda _: "a", evaluators)


def _keys(plan: Plan) -> dict[str, str]:
    return {run.evaluator: run.key for run in plan.evaluations}


def test_an_edit_of_one_evaluator_changes_its_evaluations_alone(tmp_path: Path) -> None:
    names = ("rf", "mine", "other")
    add(tmp_path, "other")
    add(tmp_path, "mine")
    before = _keys(_plan(discover_evaluators([tmp_path]), *names))
    path = add(tmp_path, "mine", "return Scores({'accuracy': 0.5})")
    after = _keys(_plan(discover_evaluators([tmp_path]), *names))
    assert {name for name in names if before[name] != after[name]} == {"mine"}
    path.write_text(path.read_text() + "\n# A word of comment.\n")
    assert _keys(_plan(discover_evaluators([tmp_path]), *names)) == after


def test_a_version_changes_its_evaluations_alone() -> None:
    found = discover_evaluators()
    raised = {**found.declared, "knn": replace(found.get("knn"), version=99)}
    before, after = (_keys(_plan(item, "rf", "knn")) for item in (found, Evaluators(raised)))
    assert before["rf"] == after["rf"] and before["knn"] != after["knn"]


def test_only_what_trains_on_labels_is_given_noisy_ones() -> None:
    noise = {"noise": {"fractions": 0.5, "variants": "both"}}
    runs = _plan(discover_evaluators(), "rf", "robustness", "neighbours", "reconstruct", **noise)
    assert {run.evaluator for run in runs.evaluations if run.question.noise} == {"rf", "robustness"}


def test_a_metric_of_ones_own_can_be_named_in_tables(tmp_path: Path) -> None:
    add(tmp_path, "deep", declared='kind="own", metrics=(Metric("depth", "Depth", "own"),)')
    found = discover_evaluators([tmp_path])
    tables = [{"name": "t", "metrics": ["depth"]}]
    (run,) = _plan(found, "deep", tables=tables).evaluations
    assert run.kind == run.asked["kind"] == "own"
    with pytest.raises(UnknownName, match="did you mean depth"):
        _plan(found, "deep", tables=[{"name": "t", "metrics": ["dept"]}])
    with pytest.raises(UnknownName, match="dept"):
        _plan(discover_evaluators(), "rf", tables=tables)


# -- a run ---------------------------------------------------------------------------------

DEPTH = 'minutes=7, memory_gb=3, kind="own", metrics=(Metric("depth", "Depth", "own", high=99.0),)'


def test_evaluators_of_ones_own_are_run_and_shown(bench: Bench) -> None:
    own = bench.folder / "own"
    add(own, "deep", "return Scores({'depth': float(len(given.panel))})", declared=DEPTH)
    add(own, "seer", declared='reads="features", metrics=CLASSIFICATION')
    add(own, "far", declared='libraries=("no-such-thing",), metrics=CLASSIFICATION')
    add(own, "wild", "return Scores({'depth': 1e6})", declared=DEPTH)
    bench.add_method("in-order")
    names = ["deep", "seer", "far", "wild", "robustness", "neighbours"]
    asked = [option for name in names for option in ("--evaluator", name)]
    call = [*bench.own("--k", "4", "--k", "5", "--seed", "0", "--method", "in-order", *asked),
            "--evaluators-dir", "own"]  # fmt: skip
    found = bench.call("run", *call)
    assert found.code == 3, found.err + found.out
    records = bench.read()
    scores = {(r.asked["evaluator"], r.asked["k"]): r for r in records if r.stage == "evaluate"}
    deep = scores["deep", 4]
    assert deep.result["metrics"] == {"depth": 4.0} and scores["deep", 5].result["metrics"] == {
        "depth": 5.0
    }
    assert deep.outside["time_limit"] == 7 * 60 and deep.outside["memory_limit"] == 3 * 1024**3
    assert (scores["seer", 4].status, scores["far", 4].status) == ("skipped", "skipped")
    assert "features of the cells" in scores["seer", 4].reason
    assert "pip install no-such-thing" in scores["far", 4].reason
    assert scores["wild", 4].status == "failed"
    assert (
        scores["wild", 4].reason == "its metric 'depth' is 1000000.0, not a number from 0.0 to 99.0"
    )
    assert 0 <= scores["robustness", 4].result["metrics"]["f1_lost"] <= 1
    # The 24 test cells are too few for 30 neighbours.
    assert scores["neighbours", 4].status == "skipped"
    # Without a suite's tables there is one for each kind of metric.
    tables = bench.results / "reports" / "own" / "tables"
    assert {path.stem for path in tables.glob("*.md")} >= {"depth", "f1-lost", "knn-overlap"}
    assert "Depth" in (tables / "depth.md").read_text()
    # An edit makes stale what it scored, and nothing else.
    add(own, "deep", "return Scores({'depth': 1.0 + len(given.panel)})", declared=DEPTH)
    listed = json.loads(bench.call("run", *call, "--dry-run", "--output", "json").out)["runs"]
    assert {x["run"].split(", ")[3] for x in listed if x["status"] == "stale"} == {"deep"}


def test_an_evaluator_that_changes_under_a_planned_run_is_noticed(bench: Bench) -> None:
    own = bench.folder / "own"
    path = add(own, "mine")
    body = f"""
        import pathlib
        path = pathlib.Path({str(path)!r})
        path.write_text(path.read_text() + "OTHER = 1\\n")
        return Scores()
        """
    add(own, "changes", body, declared="metrics=CLASSIFICATION, minutes=1000")
    both = ["--evaluator", "changes", "--evaluator", "mine", "--evaluators-dir", "own"]
    call = bench.own("--method", "random", "--k", "4", "--jobs", "1", *both)
    found = bench.call("run", *call)
    ends = {record.asked.get("evaluator"): record for record in bench.read()}
    assert ends["mine"].status == "fault", found.err
    assert "evaluator mine was changed after the run was planned" in ends["mine"].reason
    assert ends["changes"].status == "ok"


def test_evaluators_of_ones_own_from_python(bench: Bench) -> None:
    add(bench.folder / "own", "deep", "return Scores({'depth': 2.0})", declared=DEPTH)
    frame = panelbench.run(
        data=bench.data, label="cell_type", method="random", k=4, seed=0, evaluator="deep",
        results=bench.results, evaluators_dir=bench.folder / "own", jobs=1,
    )  # fmt: skip
    assert frame["depth"].tolist() == [2.0]
