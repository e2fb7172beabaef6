"""The evaluator `imputation`: strategies compared on planted data, what is imputed, suites."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panelbench.methods import agl
from panelbench.methods.agl import imputation

from panelbench.contract.evaluators import RULES, EvaluatorTrial
from panelbench.data.catalogue import find_catalogue, load_catalogue
from panelbench.errors import ConfigError, NotApplicable
from panelbench.evaluator import Evaluation, Evaluator, Scores
from panelbench.params import validated
from panelbench.records.code import import_closure
from panelbench.registry import Evaluators, discover, discover_evaluators
from panelbench.suite.plan import make_plan
from panelbench.suite.request import load_suite
from tests.evaluations import simple
from tests.tools import Bench

ROOT = Path(__file__).parent.parent
N_PANEL, N_OTHERS = 12, 120
FOUND: Evaluator = vars(imputation)["__evaluators__"]["imputation"]


def planted(*, linear: bool = False, seed: int = 0, **more: Any) -> Evaluation:
    """Cells whose other genes all follow two functions of the panel's, under much noise."""
    rng = np.random.default_rng(seed)
    panel = rng.normal(size=(900, N_PANEL))
    drive = panel @ rng.normal(size=(N_PANEL, 2)) / np.sqrt(N_PANEL)
    latent = drive if linear else np.cos(2 * drive)
    others = latent @ rng.normal(size=(2, N_OTHERS)) + rng.normal(size=(900, N_OTHERS))
    X = np.maximum(np.concatenate([panel, others], axis=1) + 4, 0)
    names = tuple(f"g{i}" for i in range(N_PANEL))
    cut = 400
    return simple(X[:cut], np.arange(cut) % 3, X[cut:], np.arange(900 - cut) % 3, panel=names,
                  **{"seed": seed, **more})  # fmt: skip


SMALL: dict[str, Any] = {
    "hidden": (64, 8), "n_primary": 10, "epochs": 80, "warmup": 10, "lr": 3e-3, "tau": 0.02,
    "batch_size": 64, "batch_pass": 64,
}  # fmt: skip
FEW: dict[str, Any] = {**SMALL, "epochs": 3, "warmup": 1}


def scored(given: Evaluation, **params: Any) -> Scores:
    chosen = validated(FOUND.params, SMALL | params, "test")
    return FOUND.score(given, chosen)


# -- planted data --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_other_genes_as_targets_help_where_they_follow_the_same(seed: int) -> None:
    given = planted(seed=seed)
    alone, learned, line = (scored(given, strategy=name) for name in ("none", "agl", "ridge"))
    assert learned.metrics["imputed_pearson"] > alone.metrics["imputed_pearson"] + 0.05
    assert learned.metrics["imputed_mse"] < alone.metrics["imputed_mse"]
    # No straight line follows a cosine around its top.
    assert line.metrics["imputed_pearson"] < learned.metrics["imputed_pearson"] - 0.1
    assert "imputed_gain" not in alone.metrics
    for found in (learned, line):
        difference = found.metrics["imputed_pearson"] - alone.metrics["imputed_pearson"]
        assert found.metrics["imputed_gain"] == difference


def test_ridge_is_near_the_best_of_straight_lines() -> None:
    given = planted(linear=True)
    found = scored(given, strategy="ridge")
    signal = given.test.dense(found.arrays["primary"].tolist())
    panel = given.test.dense(given.panel).astype(np.float64)
    design = np.column_stack([panel, np.ones(len(panel))])
    best = design @ np.linalg.lstsq(design, signal, rcond=None)[0]
    reached = found.metrics["imputed_pearson"]
    assert 0.9 * agl.mean_correlation(best, signal) < reached < agl.mean_correlation(best, signal)
    assert found.metrics["imputed_spearman"] == pytest.approx(reached, abs=0.05)


def test_the_mean_has_an_error_of_one_and_no_correlation() -> None:
    found = scored(planted(), strategy="mean")
    assert found.metrics.keys() == {"imputed_mse"}
    assert found.metrics["imputed_mse"] == pytest.approx(1, abs=0.1)
    assert "10 of them without a correlation" in " ".join(found.notes)


def test_the_learned_number_and_its_path_are_kept() -> None:
    found = scored(planted(), **FEW)
    path = found.arrays["trace_k"]
    assert len(path) == len(found.arrays["trace_validation"]) == 3
    assert path[0] == 55 and path[-1] != 55  # half of 110 at first, then it moves
    assert int(found.arrays["k"]) in path
    assert f"{found.arrays['k']} of 110 auxiliary genes" in " ".join(found.notes)
    fixed = scored(planted(), **FEW, strategy="hvg", n_auxiliary=7)
    assert set(fixed.arrays["trace_k"]) == {7}


# -- what is imputed -----------------------------------------------------------------------


def test_variable_genes_beside_the_panel_are_imputed() -> None:
    given = planted()
    held = given.rng("imputation validation").permutation(given.train.n_cells)[:80]
    rest = np.delete(given.train.dense(), held, axis=0)[:, N_PANEL:]
    top = [f"g{i + N_PANEL}" for i in agl.dispersion_order(rest)[0][:10]]
    assert not set(top) & set(given.panel)
    for name in ("ridge", "none", "agl", "mean"):
        assert scored(given, **FEW, strategy=name).arrays["primary"].tolist() == top


def test_test_cells_change_no_prediction() -> None:
    given = planted()
    some = replace(given, test=planted(seed=5).test)
    first, second = (scored(item, **FEW) for item in (given, some))
    assert first.arrays["primary"].tolist() == second.arrays["primary"].tolist()
    assert first.arrays["trace_k"].tolist() == second.arrays["trace_k"].tolist()
    assert first.metrics != second.metrics


def test_seeds_give_other_trainings() -> None:
    first, second = (scored(planted(), **FEW), scored(replace(planted(), seed=1), **FEW))
    assert first.metrics != second.metrics


def test_correlations_are_taken_within_groups() -> None:
    given = planted(linear=True)
    names = np.array(["a", "b"])[np.arange(given.test.n_cells) % 2]
    shifted = given.test.dense().copy()
    shifted[names == "b", N_PANEL:] += 8

    def measured(X: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
        test = replace(given.test, read=lambda needs: X, groups=groups)
        return dict(scored(replace(given, test=test), strategy="ridge").metrics)

    plain = given.test.dense()
    grouped, moved = measured(plain, names), measured(shifted, names)
    for name in ("imputed_pearson", "imputed_spearman"):
        assert moved[name] == pytest.approx(grouped[name], abs=1e-6)
        assert measured(shifted, None)[name] < measured(plain, None)[name] - 0.2


def test_fewer_genes_than_asked_for_are_told() -> None:
    found = scored(planted(), strategy="ridge", n_primary=100)
    assert len(found.arrays["primary"]) == N_OTHERS // 2
    assert "fewer than the 100 asked for" in " ".join(found.notes)
    given = planted()
    with pytest.raises(NotApplicable, match="1 are not on the panel"):
        scored(replace(given, panel=tuple(given.train.genes[:-1].tolist())), strategy="ridge")
    with pytest.raises(NotApplicable, match="there are 110"):
        scored(given, strategy="random", n_auxiliary=111)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "hvg"}, "hvg needs n_auxiliary"),
        ({"strategy": "ridge", "n_auxiliary": 5}, "ridge takes no n_auxiliary"),
        ({"strategy": "best"}, "strategy"),
        ({"n_primary": 0}, "n_primary"),
        ({"validation": 0.9}, "validation"),
    ],
)
def test_parameters_that_do_not_fit_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validated(FOUND.params, given, "evaluator imputation")


# -- the contract, and suites --------------------------------------------------------------


def test_the_contract_is_kept_by_a_baseline_too() -> None:
    """By default it is a network; an installed package has it tried with all other evaluators."""
    found = RULES.examine(EvaluatorTrial(FOUND, {"strategy": "ridge"}))
    assert {item.rule: item.why for item in found if item.verdict == "failed"} == {}


def test_the_package_offers_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["panelbench.evaluators"]["imputation"] == FOUND.module
    closure = import_closure(FOUND.module)
    files = {path.stem for path in (ROOT / "methods/agl").glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in closure} >= files


def test_the_suite_asks_for_each_strategy() -> None:
    spec = load_suite("agl-imputation")
    catalogue = load_catalogue(find_catalogue(ROOT / "datasets.yaml"))
    known = Evaluators({**discover_evaluators().declared, FOUND.id: FOUND})
    plan = make_plan(spec, catalogue, discover(), lambda _: "a", known)
    asked = [run.question.params.get("strategy", "agl") for run in plan.evaluations]
    strategies = {"agl", "none", "all", "random", "hvg", "ridge", "mean"}
    assert set(asked) == strategies
    assert len({run.key for run in plan.evaluations}) == len(asked) == 5 * 3 * len(strategies)


SUITE = """
name: mine
datasets: [synthetic-small]
methods: [in-order]
ks: [6]
seeds: [0]
evaluators:
  - {evaluator: imputation, params: {strategy: none, epochs: 2, n_primary: 5}}
  - {evaluator: imputation, params: {epochs: 2, n_primary: 5, hidden: [8, 4]}}
  - {evaluator: imputation, params: {strategy: ridge, n_primary: 5}}
"""


def test_strategies_are_rows_of_a_suite(bench: Bench) -> None:
    bench.add_method("in-order")
    own = bench.folder / "own"
    own.mkdir()
    (own / "offered.py").write_text(
        "from panelbench.methods.agl.imputation import __evaluators__ as __evaluators__\n"
    )
    (bench.folder / "mine.yaml").write_text(SUITE)
    found = bench.call("run", "--suite", "mine.yaml", *bench.own("--evaluators-dir", "own"))
    assert found.code == 0, found.err + found.out
    scores = [record for record in bench.read() if record.stage == "evaluate"]
    assert len(scores) == 3
    for record in scores:
        assert "imputed_pearson" in record.result["metrics"]
        assert record.result["notes"][0] == "5 genes imputed"
    (table,) = (path.read_text() for path in bench.results.glob("reports/*/tables/*pearson*.md"))
    assert "strategy=none" in table and "strategy=ridge" in table
