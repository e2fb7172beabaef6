"""Expression targets through the contract: what is predicted, from what, and how it is scored."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from panelbench.methods.agl.expression import OutputsPredictor
from scipy import sparse

from panelbench.data.catalogue import find_catalogue, load_catalogue
from panelbench.data.specs import DatasetSpec, SplitSpec, TaskSpec
from panelbench.data.splits import split_cells
from panelbench.errors import ConfigError, DataError, MethodError, NotApplicable
from panelbench.method import Selection
from panelbench.records.status import Status
from panelbench.records.store import Address, Record
from panelbench.registry import discover, discover_evaluators
from panelbench.schema import parse
from panelbench.scoring.expression import (
    adjusted_correlations,
    correlations,
    depth_slopes,
    mean_correlation,
    ranks,
    standard_errors,
)
from panelbench.stages.evaluation import at_hand, score_panel
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.panel import panel_of
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion
from panelbench.stages.selection import check, select_panel
from panelbench.stages.targets import choose_outputs, inputs_of, outputs_target
from panelbench.stages.toolbox import Toolbox
from panelbench.suite.plan import make_plan
from panelbench.suite.request import load_suite
from panelbench.suite.specs import SuiteSpec
from tests.tools import Bench

ROOT = Path(__file__).parent.parent
CATALOGUE = load_catalogue(find_catalogue(ROOT / "datasets.yaml"))
METHODS = sorted(id for id, item in discover().methods.items() if item.expression)
SECTIONS, SPOTS, GENES = 4, 40, 60


def write_sections(path: Path, seed: int = 0) -> Path:
    """Sections of spots on a grid: features drive two thirds of the genes; some protein values."""
    rng = np.random.default_rng(seed)
    n = SECTIONS * SPOTS
    inputs = rng.normal(size=(n, 8))
    depth = rng.uniform(0.5, 2, size=(n, 1))
    drive = np.tanh(inputs @ rng.normal(size=(8, 3)))
    loading = rng.normal(size=(3, GENES)) * (np.arange(GENES) < 40)
    rates = depth * np.exp(0.8 * drive @ loading + rng.normal(size=GENES) * 0.5 + 0.5)
    counts = rng.poisson(rates).astype(np.float32)
    counts[:, 7] = 0
    counts[:5, 8] = 1
    counts[5:, 8] = 0
    names = [f"s{i}" for i in range(n)]
    protein = pd.DataFrame(drive + 1, index=names, columns=["P1", "P2", "P3"])
    protein.iloc[::3, 1] = np.nan
    adata = anndata.AnnData(
        X=sparse.csr_matrix(counts),
        obs=pd.DataFrame({"section": [f"S{i // SPOTS}" for i in range(n)]}, index=names),
        var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
        obsm={
            "features": inputs.astype(np.float32),
            "spatial": np.stack([np.arange(n) % 8, np.arange(n) % SPOTS // 8], axis=1) * 1.0,
            "protein": protein,
        },
    )
    adata.write_h5ad(path)
    return path


TASK: dict[str, Any] = {"name": "genes", "kind": "expression", "primary": 6, "min_cells": 6}
INTER: dict[str, Any] = {
    "scheme": "leave-one-group-out", "group": "section", "validate_group": True, "rounds": 2,
}  # fmt: skip


def entry(file: Path, **changes: Any) -> DatasetSpec:
    given = {
        "id": "sections",
        "reader": "h5ad",
        "reader_options": {"x": "counts"},
        "files": [{"name": str(file)}],
        "recipe": ["log1p"],
        "tasks": [TASK],
        "split": INTER,
        "inputs": "features",
    }
    return parse(DatasetSpec, given | changes, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sections")
    write_sections(place / "sections.h5ad")
    return place


def prepared(folder: Path, **changes: Any) -> tuple[DatasetSpec, anndata.AnnData]:
    spec = entry(folder / "sections.h5ad", **changes)
    prepare(spec, folder / "prepared.h5ad", folder)
    return spec, load(folder / "prepared.h5ad")


def sides(cells: anndata.AnnData, spec: DatasetSpec, seed: int = 1) -> tuple[Fold, Any]:
    fold = fit_fold(cells, spec, seed)
    return fold, fold.take(cells, fold.train)


# -- what is asked -----------------------------------------------------------------------------


def test_fields_that_say_nothing_are_in_no_key() -> None:
    """A classification task and an older split are written as they were before expression."""
    assert set(TaskSpec(name="a").model_dump()) == {"name", "column", "kind", "min_cells"}
    older = {"scheme", "test", "validation", "stratify", "group", "min_per_class"}
    for scheme in ("holdout", "groups", "leave-one-group-out"):
        assert set(SplitSpec(scheme=scheme, group="donor").model_dump()) == older
    plain = parse(TaskSpec, TASK, "test").model_dump()
    assert {"primary", "panel", "found_in"} < set(plain)
    folds = SplitSpec(scheme="blocks", folds=4, tiles=3, validation=0.25).model_dump()
    assert (folds["folds"], folds["tiles"]) == (4, 3)


@pytest.mark.parametrize(
    "change",
    [{"primary": 7}, {"primary": ["g1", "g2"]}, {"min_cells": 9}, {"panel": ["g3"]},
     {"found_in": 0.4}, {"column": "protein"}],
    ids=str,
)  # fmt: skip
def test_what_is_predicted_changes_the_keys(folder: Path, change: dict[str, Any]) -> None:
    def keys(task: dict[str, Any]) -> set[str]:
        suite = parse(
            SuiteSpec,
            {"name": "t", "datasets": ["sections"], "methods": ["agl", "ridge-expression"],
             "ks": [5], "seeds": [0], "evaluators": ["expression"]},
            "test",
        )  # fmt: skip
        catalogue = {"sections": entry(folder / "sections.h5ad", tasks=[task])}
        plan = make_plan(suite, catalogue, discover(), lambda spec: "a")
        assert len(plan.evaluations) == 2
        return {run.key for run in [*plan.selections, *plan.evaluations]}

    assert not keys(TASK) & keys(TASK | change)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a", "primary": 3}, "belong to tasks of kind expression"),
        ({**TASK, "primary": ["g1", "g1"]}, "every gene only once"),
        ({**TASK, "primary": []}, "at least one"),
        ({**TASK, "found_in": 1.5}, "found_in"),
    ],
)
def test_tasks_that_make_no_sense_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(TaskSpec, given, "test")


# -- splits ------------------------------------------------------------------------------------


def _obs(sizes: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"group": np.repeat(list(sizes), list(sizes.values()))})


def _none(obs: pd.DataFrame) -> np.ndarray:
    return np.full(len(obs), -1)


def test_folds_take_turns_within_each_group() -> None:
    obs = _obs({"a": 50, "b": 23})
    spec = SplitSpec(scheme="folds", group="section", folds=5, validation=0.2)
    splits = [split_cells(obs, _none(obs), spec, seed) for seed in range(10)]
    for split in splits:
        parts = [split.train, split.validation, split.test]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(73))
        assert (split.test < 50).sum() == 10 and (split.test >= 50).sum() in (4, 5)
    tested = np.sort(np.concatenate([split.test for split in splits[:5]]))
    assert np.array_equal(tested, np.arange(73)), "every cell is tested once in a round"
    assert np.array_equal(splits[0].validation, splits[1].test), "the next fold validates"
    assert np.array_equal(splits[4].validation, splits[0].test)
    assert not np.array_equal(splits[0].test, splits[5].test), "another round, another division"


def test_blocks_keep_tiles_together() -> None:
    rng = np.random.default_rng(0)
    obs, spatial = _obs({"a": 400, "b": 300}), rng.uniform(0, 12, size=(700, 2))
    spec = SplitSpec(scheme="blocks", group="section", folds=4, tiles=4, validation=0.25)
    split = split_cells(obs, _none(obs), spec, 1, (), spatial)
    side = np.zeros(700, dtype=int)
    side[split.validation], side[split.test] = 1, 2
    for name in "ab":
        rows = obs["group"].to_numpy() == name
        low, high = spatial[rows].min(axis=0), spatial[rows].max(axis=0)
        tiles = np.minimum((spatial[rows] - low) / (high - low) * 4, 3).astype(int) @ [4, 1]
        assert all(len(set(side[rows][tiles == tile])) == 1 for tile in set(tiles))
        assert [len({*tiles[side[rows] == part]}) for part in range(3)] == [8, 4, 4]


def test_a_group_validates_and_rounds_go_on() -> None:
    obs = _obs({"a": 5, "b": 6, "c": 7})
    spec = SplitSpec(scheme="leave-one-group-out", group="section", validate_group=True, rounds=2)
    for seed in range(6):
        split = split_cells(obs, _none(obs), spec, seed)
        names = obs["group"].to_numpy()
        assert set(names[split.test]) == {"abc"[seed % 3]}
        assert set(names[split.validation]) == {"abc"[(seed + 1) % 3]}
        assert set(names[split.train]) == {"abc"[(seed + 2) % 3]}
    with pytest.raises(DataError, match="seeds are 0 to 5"):
        split_cells(obs, _none(obs), spec, 6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scheme": "folds", "validation": 0.1}, "less than one of 5 folds"),
        ({"scheme": "folds", "folds": 3, "validation": 0.7}, "leave none to train on"),
        ({"scheme": "holdout", "folds": 3}, "folds belongs to the scheme folds or blocks"),
        ({"scheme": "folds", "tiles": 7}, "tiles belongs to the scheme blocks"),
        ({"scheme": "groups", "group": "a", "rounds": 2}, "rounds belongs to"),
    ],
)
def test_splits_that_make_no_sense_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(SplitSpec, given, "test")


def test_too_few_cells_or_no_places_are_told() -> None:
    obs = _obs({"a": 3, "b": 30})
    with pytest.raises(DataError, match="3 cells in group 'a', fewer than the 5 folds"):
        split_cells(obs, _none(obs), SplitSpec(scheme="folds", group="section"), 0)
    with pytest.raises(DataError, match="no coordinates"):
        split_cells(obs, _none(obs), SplitSpec(scheme="blocks"), 0)
    line = np.stack([np.arange(33.0), np.zeros(33)], axis=1)
    with pytest.raises(DataError, match="lie on a line"):
        split_cells(obs, _none(obs), SplitSpec(scheme="blocks"), 0, (), line)


def test_blocks_of_a_data_set_come_from_its_places(folder: Path) -> None:
    spec, cells = prepared(folder, split={"scheme": "blocks", "group": "section", "folds": 4})
    fold = fit_fold(cells, spec, 0)
    assert cells.obsm["spatial"].shape == (SECTIONS * SPOTS, 2)
    assert len(fold.test) and len(fold.train) + len(fold.test) == SECTIONS * SPOTS


# -- what is predicted -------------------------------------------------------------------------


def test_primary_outputs_are_the_most_variable_of_the_training_cells(folder: Path) -> None:
    import scanpy as sc

    spec, cells = prepared(folder)
    _, train = sides(cells, spec)
    found = choose_outputs(train, spec.tasks[0])
    assert "g7" not in found.names and "g8" not in found.names, "found in too few cells"
    values = train[:, list(found.names)].X.toarray()
    table = sc.pp.highly_variable_genes(anndata.AnnData(values), inplace=False, flavor="seurat")
    order = np.argsort(-table["dispersions_norm"].to_numpy(), kind="stable")
    assert set(np.flatnonzero(found.primary)) == set(order[:6])


def test_other_cells_than_those_trained_on_change_nothing(folder: Path) -> None:
    spec, cells = prepared(folder)
    fold, train = sides(cells, spec)
    found = choose_outputs(train, spec.tasks[0])
    spoiled = cells.copy()
    dense = spoiled.X.toarray()
    others = np.concatenate([fold.validation, fold.test])
    dense[others] = dense[others][:, ::-1] * 9
    spoiled.X = sparse.csr_matrix(dense)
    again = choose_outputs(fold.take(spoiled, fold.train), spec.tasks[0])
    assert again.names == found.names and np.array_equal(again.primary, found.primary)


def test_names_and_shares_decide_what_is_primary(folder: Path) -> None:
    spec, cells = prepared(folder)
    _, train = sides(cells, spec)
    task = spec.tasks[0]
    named = choose_outputs(train, task.model_copy(update={"primary": ("g8", "g3")}))
    assert named.scored().names == ("g3", "g8"), "in the order of the data, and kept though rare"
    often = (train.X.toarray() > 0).mean(axis=0)
    common = choose_outputs(train, task.model_copy(update={"found_in": 0.8}))
    assert all(often[int(name[1:])] >= 0.8 for name in common.scored().names)
    assert len(common.names) == len(choose_outputs(train, task).names), "of the primary ones alone"
    for change, said in (
        ({"primary": ("nope",)}, "have not: nope"),
        ({"primary": 99}, "99 primary outputs are asked for"),
        ({"panel": ("nope",)}, "genes of the panel that the data have not"),
        ({"primary": ("g1",), "panel": ("g1",)}, "on the panel and primary: g1"),
    ):
        with pytest.raises(NotApplicable, match=said):
            choose_outputs(train, task.model_copy(update=change))


def test_a_panel_is_read_and_not_predicted(folder: Path) -> None:
    spec, cells = prepared(folder)
    _, train = sides(cells, spec)
    task = spec.tasks[0].model_copy(update={"panel": ("g5", "g2")})
    found = choose_outputs(train, task)
    assert not {"g5", "g2"} & set(found.names)
    np.testing.assert_array_equal(inputs_of(train, task), train[:, ["g5", "g2"]].X.toarray())
    np.testing.assert_array_equal(inputs_of(train, spec.tasks[0]), train.obsm["inputs"])


def test_outputs_of_obsm_keep_what_is_known_of_a_cell(folder: Path) -> None:
    task = {"name": "p", "column": "protein", "kind": "expression", "primary": ["P1", "P2"]}
    spec, cells = prepared(folder, tasks=[task])
    fold, train = sides(cells, spec)
    outputs = choose_outputs(train, spec.tasks[0])
    target = outputs_target(train, spec.tasks[0], outputs)
    assert target.outputs == ("P1", "P2", "P3") and target.primary.tolist() == [True, True, False]
    assert np.isnan(target.values[:, 1]).sum() == (fold.train % 3 == 0).sum()
    assert target.observed.all(), "a cell that lacks one output keeps the others"
    record = selection(folder, spec, "ridge-expression")
    scores = score_panel(*evaluation(folder, spec, record)).result
    assert scores["metrics"]["outputs_pearson"] > 0.3


# -- methods, through the stages ---------------------------------------------------------------

QUICK: dict[str, Any] = {"hidden": [16, 8], "epochs": 3, "warmup": 1, "batch_size": 32}


def _params(id: str) -> dict[str, Any]:
    known = {item.name for item in fields(discover().get(id).params)}
    return {name: value for name, value in QUICK.items() if name in known}


def _tools(folder: Path, spec: DatasetSpec, **more: Any) -> Toolbox:
    cache = folder / "cache" / spec.split.scheme
    return Toolbox(spec, [load(folder / "prepared.h5ad")], cache, **more)


def selection(folder: Path, spec: DatasetSpec, id: str, **more: Any) -> Record:
    fold = f"fold-{spec.tasks[0].name}"
    question = SelectQuestion(fold, id, _params(id) | more, spec.tasks, 5, 1)
    done = select_panel(question, _tools(folder, spec))
    address = Address("sections", id, "k")
    record = Record("select", address, "a1", "q", Status.OK, result=done.result)
    object.__setattr__(record, "_arrays", done.arrays)
    return record


def evaluation(folder: Path, spec: DatasetSpec, record: Record) -> tuple[Any, Toolbox]:
    question = EvaluateQuestion(
        "k", f"fold-{spec.tasks[0].name}", "expression", {}, spec.tasks[0], None, 1
    )
    arrays = vars(record)["_arrays"]
    return question, _tools(folder, spec, selection=record, arrays=lambda: arrays)


@pytest.mark.parametrize("id", METHODS)
def test_every_method_trains_and_is_scored(folder: Path, id: str) -> None:
    spec, _ = prepared(folder)
    record = selection(folder, spec, id)
    found = record.result
    size = found["size"]
    assert set(found["ranking"][:6]) == set(found["info"]["primary"])
    assert panel_of(found, None) == panel_of(found, 3) == found["ranking"][:size]
    assert len(found["ranking"]) == (6 if "expression" in id else 58)
    measured = score_panel(*evaluation(folder, spec, record))
    assert measured.arrays["outputs"].tolist() == found["info"]["primary"]
    scored = measured.result
    metrics = scored["metrics"]
    assert set(metrics) == {
        "outputs_pearson", "outputs_spearman", "outputs_pearson_depth", "outputs_mse", "outputs_mae"
    }  # fmt: skip
    assert scored["panel_size"] == size and scored["genes_read"] == 0
    if id == "mean-expression":
        assert metrics["outputs_pearson"] == metrics["outputs_pearson_depth"] == 0


def test_what_is_told_of_a_learned_size(folder: Path) -> None:
    spec, _ = prepared(folder)
    found = selection(folder, spec, "agl").result
    info = found["info"]
    assert found["size"] == 6 + info["k"] and info["auxiliary"] == "learned"
    assert info["n_auxiliary"] == 52
    assert [len(values) for values in info["curves"].values()] == [3, 3]
    assert found["scores"][:6] == [1.0] * 6
    assert found["scores"][6:] == sorted(found["scores"][6:], reverse=True)
    assert all((score >= 0.5) == (i < info["k"]) for i, score in enumerate(found["scores"][6:]))
    drawn = selection(folder, spec, "agl-random", n_auxiliary=7).result
    assert drawn["size"] == 13 and drawn["scores"][:13] == [1.0] * 13


def test_validation_cells_have_no_part_in_what_is_primary(folder: Path) -> None:
    spec, cells = prepared(folder)
    fold = fit_fold(cells, spec, 1)
    clean = selection(folder, spec, "mean-expression").result["info"]["primary"]
    dense = cells.X.toarray()
    dense[fold.validation] = dense[fold.validation][:, ::-1] * 9
    cells.X = sparse.csr_matrix(dense)
    question = SelectQuestion("fold-genes", "mean-expression", {}, spec.tasks, 5, 1)
    tools = replace(_tools(folder, spec), cells=[cells])
    assert select_panel(question, tools).result["info"]["primary"] == clean


@pytest.mark.parametrize("id", METHODS)
def test_test_cells_never_reach_a_method(folder: Path, id: str) -> None:
    """Their expression and inputs replaced by nonsense, what is selected and predicted stays."""
    spec, cells = prepared(folder)
    fold = fit_fold(cells, spec, 1)
    clean = selection(folder, spec, id)
    spoiled = cells.copy()
    for holder, name in ((spoiled.layers, "counts"), (spoiled.obsm, "inputs")):
        values = holder[name].toarray() if sparse.issparse(holder[name]) else holder[name].copy()
        values[fold.test] = np.nan
        holder[name] = values if name == "inputs" else sparse.csr_matrix(values)
    dense = spoiled.X.toarray()
    dense[fold.test] = np.nan
    spoiled.X = sparse.csr_matrix(dense)
    tools = replace(_tools(folder, spec), cells=[spoiled])
    question = SelectQuestion("fold-genes", id, _params(id), spec.tasks, 5, 1)
    blind = select_panel(question, tools)
    assert blind.result["ranking"] == clean.result["ranking"]
    for name, array in vars(clean)["_arrays"].items():
        np.testing.assert_array_equal(array, blind.arrays[name])


def test_methods_decline_what_is_not_theirs(folder: Path) -> None:
    spec, _ = prepared(folder, inputs=None)
    with pytest.raises(NotApplicable, match="features of the cells"):
        selection(folder, spec, "agl")
    with pytest.raises(NotApplicable, match="takes no expression targets"):
        selection(folder, spec, "mrmr-f")
    panel = spec.model_copy(
        update={"tasks": (spec.tasks[0].model_copy(update={"panel": ("g1", "g2")}),)}
    )
    assert selection(folder, panel, "agl-none").result["size"] == 6, "a panel is input enough"


def test_a_size_is_given_by_those_who_declare_it() -> None:
    from panelbench.contract import tasks

    method = discover().get("agl")
    task = tasks.make_task(method)
    ranking = list(task.target.outputs)
    for size, said in ((None, "gave no size"), (0, "size of its panel is 0"), (99, "is 99")):
        with pytest.raises(MethodError, match=said):
            check(Selection(ranking, size=size), task, method)
    for wrong in ({"multitask": True}, {"supervised": False}):
        with pytest.raises(ValueError, match="expression needs supervised"):
            replace(method, **wrong)
    plain = discover().get("random")
    with pytest.raises(MethodError, match="gave a size"):
        found = tasks.make_task(plain)
        check(Selection(found.genes.tolist(), size=3), found, plain)


def test_evaluators_of_other_tasks_are_not_asked(folder: Path) -> None:
    spec, _ = prepared(folder)
    record = selection(folder, spec, "mean-expression")
    question, tools = evaluation(folder, spec, record)
    forest = discover_evaluators().get("rf")
    with pytest.raises(NotApplicable, match="scores no tasks of kind expression"):
        at_hand(replace(question, evaluator="rf"), tools, forest, forest.params())


# -- scores ------------------------------------------------------------------------------------


def test_correlations_by_output_and_group() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(2, 40, 4))
    groups = np.repeat(["a", "b"], 20)
    truth[:5, 1], truth[:19, 2], truth[20:, 3] = np.nan, np.nan, 1.0
    predicted[:, 0] = np.where(groups == "a", 3.0, predicted[:, 0])
    found = correlations(truth, predicted, groups)
    assert found.shape == (2, 4)
    assert found[0, 0] == 0, "a constant prediction explains nothing"
    assert found[0, 1] == pytest.approx(np.corrcoef(truth[5:20, 1], predicted[5:20, 1])[0, 1])
    assert np.isnan(found[0, 2]), "one known cell"
    assert np.isnan(found[1, 3]), "a constant truth"
    mean = (np.nanmean(found[0]) + np.nanmean(found[1])) / 2
    assert mean_correlation(found) == pytest.approx(mean)
    assert np.isnan(mean_correlation(np.full((2, 3), np.nan)))


def test_differences_between_groups_earn_nothing() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(["a", "b"], 30)
    shift = np.where(groups == "a", 0, 10)[:, None]
    truth, predicted = rng.normal(size=(2, 60, 2)) + shift
    assert mean_correlation(correlations(truth, predicted)) > 0.9
    assert abs(mean_correlation(correlations(truth, predicted, groups))) < 0.4


def test_spearman_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    truth, predicted = rng.poisson(2, size=(30, 1)) * 1.0, rng.normal(size=(30, 1))
    truth[:4] = np.nan
    known = np.where(np.isnan(truth), np.nan, predicted)
    found = correlations(ranks(truth), ranks(known))[0, 0]
    assert found == pytest.approx(spearmanr(truth[4:, 0], predicted[4:, 0]).statistic)


def test_a_prediction_of_depth_alone_has_no_adjusted_correlation() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(["a", "b"], 100)
    depth, signal = rng.normal(size=(2, 200))
    truth = (depth * 2 + signal + np.where(groups == "a", 0, 5))[:, None]
    slopes = depth_slopes(truth, depth, groups)
    assert slopes[0] == pytest.approx(2, abs=0.2)
    only = depth[:, None] * 3 + 1
    assert correlations(truth, only, groups).min() > 0.8
    assert np.abs(adjusted_correlations(truth, only, depth, slopes, groups)).max() < 1e-9
    # What is right beside depth is kept, however much depth the prediction has.
    for share in (0, 1, 4):
        both = (signal + share * depth)[:, None]
        assert adjusted_correlations(truth, both, depth, slopes, groups).min() > 0.97
    # A wrong slope of the truth rewards no depth either.
    wrong = adjusted_correlations(truth, only, depth, slopes * 0, groups)
    assert np.abs(wrong).max() < 1e-9


def test_depth_is_taken_out_as_the_formula_says() -> None:
    rng = np.random.default_rng(4)
    truth, predicted = rng.normal(size=(2, 50, 2))
    depth = rng.normal(size=50)
    slopes = np.array([0.7, -0.3])
    found = adjusted_correlations(truth, predicted, depth, slopes)
    for j in range(2):
        x = depth - depth.mean()
        c = (x @ (predicted[:, j] - predicted[:, j].mean())) / (x @ x)
        left = truth[:, j] - slopes[j] * depth, predicted[:, j] - c * depth
        assert found[0, j] == pytest.approx(np.corrcoef(*left)[0, 1])


def test_errors_are_in_units_of_the_training_cells() -> None:
    training = np.array([[0.0, 1.0], [4.0, np.nan], [np.nan, 3.0]])  # spreads 2 and 1
    truth, predicted = np.array([[2.0, 1.0], [np.nan, 2.0]]), np.array([[0.0, 1.0], [0.0, 4.0]])
    squared, absolute = standard_errors(truth, predicted, training)
    assert squared == pytest.approx((1 + (0 + 4) / 2) / 2)
    assert absolute == pytest.approx((1 + (0 + 2) / 2) / 2)


# -- suites ------------------------------------------------------------------------------------


def test_the_suite_asks_for_every_method_once_on_each_split() -> None:
    spec = load_suite("agl")
    plan = make_plan(spec, CATALOGUE, discover(), lambda _: "a")
    assert {run.method for run in plan.selections} == set(METHODS)
    assert all(run.k is None and run.evaluator == "expression" for run in plan.evaluations)
    # Two data sets with two tasks each; variable genes come in three numbers.
    assert len(plan.selections) == len(plan.evaluations) == 4 * 18 * (len(METHODS) + 2)
    sizes = [row for row in plan.rows if row.method == "agl-hvg"]
    assert len(sizes) == 3 and all(row.declared.sizes_itself for row in plan.rows)


SUITE = """
name: mine
datasets: [sections]
methods:
  - {method: agl, params: {hidden: [16, 8], epochs: 4, warmup: 1, lr: 0.01}}
  - {method: agl-none, params: {hidden: [16, 8], epochs: 4, lr: 0.01}}
  - {method: agl-all, params: {hidden: [16, 8], epochs: 4, lr: 0.01}}
  - {method: agl-hvg, params: {hidden: [16, 8], epochs: 4, lr: 0.01, n_auxiliary: 10}}
  - mean-expression
ks: [5]
seeds: [0, 1]
evaluators: [expression]
tables:
  - {name: pearson, metrics: [outputs_pearson]}
  - {name: gain, metrics: [outputs_pearson], minus: agl-none}
figures:
  - {name: sizes, kind: metric-by-auxiliary, metric: outputs_pearson}
"""


def test_a_suite_of_expression_targets(bench: Bench) -> None:
    import yaml

    spec = entry(write_sections(bench.folder / "sections.h5ad"))
    (bench.folder / "data.yaml").write_text(
        yaml.safe_dump({"sections": spec.model_dump(mode="json", exclude={"id"})})
    )
    (bench.folder / "mine.yaml").write_text(SUITE)
    found = bench.call("run", "--suite", "mine.yaml", "--datasets", "data.yaml")
    assert found.code == 0, found.err + found.out
    folder = bench.results / "reports" / "mine"
    table = (folder / "tables" / "gain.md").read_text()
    assert "AGL (DkGSB)" in table and "Primary genes only" not in table.split("less")[0]
    assert "/2)" in table and "all genes." not in table
    lines = pd.read_csv(folder / "tables" / "gain.csv").set_index(["method", "metric"])
    scores = {
        (r.asked["variant"], r.asked["seed"]): r.result["metrics"]["outputs_pearson"]
        for r in bench.read()
        if r.stage == "evaluate"
    }
    variants = {name.partition("[")[0]: name for name, _ in scores}
    differences = [
        scores[variants["agl"], seed] - scores[variants["agl-none"], seed] for seed in (0, 1)
    ]
    mean = lines.loc[(variants["agl"], "outputs_pearson"), "mean"]
    assert mean == pytest.approx(np.mean(differences))
    assert (folder / "figures" / "sizes.svg").exists()
    assert any(path.name.startswith("training-") for path in folder.iterdir())


def test_the_predictor_is_saved_with_its_kind() -> None:
    predictor = OutputsPredictor
    assert predictor.genes == ()
    with pytest.raises(NotApplicable, match="not classes"):
        predictor(None).predict_proba("x", np.zeros((1, 1)))  # type: ignore[arg-type]
