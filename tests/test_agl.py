"""Auxiliary gene learning as a whole: roles of genes, strategies, schedules, results, baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods import agl
from panelbench.methods.hvg import SeuratParams, seurat

from panelbench.errors import ConfigError, InputError, NotApplicable
from panelbench.method import Task, frozen_mapping
from panelbench.params import validated
from panelbench.ranking import dispersion_scores
from tests.agl_planted import generators

N_CELLS, N_TRAIN, N_GENES, N_FEATURES = 90, 60, 60, 6


def counts(seed: int = 0, n_genes: int = N_GENES) -> np.ndarray:
    """log(1 + counts) of genes with different means and dispersions, driven by the features."""
    rng = np.random.default_rng(seed)
    drive = np.exp(features(seed) @ rng.normal(size=(N_FEATURES, n_genes)) * 0.4)
    mean = rng.uniform(0.5, 20, size=n_genes) * drive
    return np.log1p(rng.poisson(rng.gamma(2, mean / 2))).astype(np.float32)


def features(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed + 100)
    return rng.normal(size=(N_CELLS, N_FEATURES)).astype(np.float32)


def names(n: int = N_GENES) -> np.ndarray:
    return np.array([f"g{i}" for i in range(n)])


def problem(**changes: Any) -> agl.Problem:
    basis = agl.Problem(features(), counts(), names(), np.arange(N_CELLS) >= N_TRAIN, primary=5)
    return replace(basis, **changes)


SMALL: dict[str, Any] = {
    "hidden": (8, 4), "epochs": 4, "warmup": 1, "patience": 2, "batch_size": 20, "batch_pass": 20,
    "lr": 1e-2,
}  # fmt: skip


def fit(given: agl.Problem | None = None, seed: int = 0, **params: Any) -> agl.Fitted:
    return agl.fit(given or problem(), agl.Params(**SMALL | params), generators(seed))


# Roles of genes


def test_scores_are_those_of_scanpy() -> None:
    import scanpy as sc
    from anndata import AnnData

    values = counts(n_genes=400)
    values[:, 3] = 0  # never expressed: no score
    values[:, 7] = np.log1p(
        np.random.default_rng(0).poisson(3000, size=N_CELLS)
    )  # a bin of its own
    table = sc.pp.highly_variable_genes(AnnData(values), inplace=False, flavor="seurat")
    expected = table["dispersions_norm"].to_numpy()
    assert expected[7] == 1
    np.testing.assert_allclose(dispersion_scores(values), expected, atol=1e-5)


def test_missing_cells_do_not_count_in_scores() -> None:
    values = counts()
    longer = np.concatenate([values, np.full((20, N_GENES), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(dispersion_scores(longer), dispersion_scores(values))


def test_order_does_not_depend_on_the_order_of_columns() -> None:
    values = counts()
    values[:, 10] = 0
    shuffle = np.random.default_rng(1).permutation(N_GENES)
    order, _ = agl.dispersion_order(values)
    other, _ = agl.dispersion_order(values[:, shuffle])
    assert names()[order].tolist() == names()[shuffle][other].tolist()
    assert order[-1] == 10  # no score: last


def test_equal_genes_keep_their_order() -> None:
    values = np.repeat(counts(n_genes=20), 3, axis=1)
    order, _ = agl.dispersion_order(values)
    np.testing.assert_array_equal(order.reshape(20, 3) % 3, np.tile([0, 1, 2], (20, 1)))


def test_the_list_is_that_of_variable_genes() -> None:
    """What is learned is where the list is cut, not the list."""
    given = problem()
    values = given.expression[~given.validation]
    task = Task(values, given.genes, frozen_mapping({}), k=N_GENES, seed=0)
    fitted = fit(given, min_cells=1)
    assert fitted.selected(N_GENES) == list(seurat(task, SeuratParams()).ranking)
    assert len(fitted.selected("auto")) == 5 + fitted.k
    assert fitted.selected(12) == fitted.selected(N_GENES)[:12]


def test_panel_genes_are_no_targets_and_rare_genes_are_left_out() -> None:
    values = counts()
    values[:, 4] = 0
    values[:2, 4] = 1
    fitted = fit(problem(expression=values, exclude=("g1", "g2")))
    assert not {"g1", "g2", "g4"} & set(fitted.selected(N_GENES))
    assert len(fitted.selected(N_GENES)) == N_GENES - 3


def test_roles_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="not in the data: nope"):
        fit(problem(primary=("g1", "nope")))
    with pytest.raises(InputError, match="two roles: g1"):
        fit(problem(primary=("g1",), exclude=("g1",)))
    with pytest.raises(InputError, match="once"):
        fit(problem(primary=("g1", "g1")))
    with pytest.raises(InputError, match="99 primary"):
        fit(problem(primary=99))


def test_validation_cells_change_neither_order_nor_scaling() -> None:
    given = problem()
    changed = given.expression.copy()
    changed[given.validation] = changed[given.validation][:, ::-1]
    inputs = given.inputs.copy()
    inputs[given.validation] += 5
    before, after = fit(given), fit(replace(given, expression=changed, inputs=inputs))
    assert before.selected(N_GENES) == after.selected(N_GENES)
    np.testing.assert_array_equal(before.predictor.front.mean, after.predictor.front.mean)


# Strategies and schedules


def _same(left: agl.Fitted, right: agl.Fitted, atol: float = 0) -> None:
    x = features()
    np.testing.assert_allclose(left.predictor.predict(x), right.predictor.predict(x), atol=atol)


@pytest.mark.parametrize("hyper", ["fast", "faithful"])
@pytest.mark.parametrize("schedule", ["code", "paper"])
def test_the_same_seed_gives_the_same(hyper: agl.Hyper, schedule: agl.Schedule) -> None:
    few: dict[str, Any] = {"hyper": hyper, "schedule": schedule, "epochs": 6, "inner_steps": 2}
    first, again = fit(**few), fit(**few)
    _same(first, again)
    assert first.trace == again.trace
    assert (first.k, first.last_k) == (again.k, again.last_k)
    assert first.mask.tolist() == again.mask.tolist()
    assert first.trace != fit(**few, seed=1).trace


@pytest.mark.parametrize("strategy", ["agl", "all", "none", "amal", "uncertainty"])
def test_every_strategy_trains(strategy: agl.Strategy) -> None:
    fitted = fit(strategy=strategy)
    assert ((fitted.mask >= 0) & (fitted.mask < 10)).all()
    assert fitted.k == (fitted.mask >= 0.5).sum()
    if strategy in ("all", "none"):
        assert set(fitted.mask) == {float(strategy == "all")}
    else:
        assert len(set(fitted.mask)) > 3


def test_fixed_numbers_of_genes_are_taken_by_order_or_at_random() -> None:
    top = fit(strategy="hvg", n_auxiliary=10)
    assert np.flatnonzero(top.mask).tolist() == list(range(10))
    drawn = [fit(strategy="random", n_auxiliary=10, seed=seed).mask for seed in (0, 1)]
    assert [mask.sum() for mask in drawn] == [10, 10]
    assert (drawn[0] != drawn[1]).any()


def test_all_genes_are_the_first_n_genes() -> None:
    everything = fit(strategy="all")
    _same(fit(strategy="hvg", n_auxiliary=N_GENES - 5), everything)
    assert not np.allclose(
        fit(strategy="none").predictor.predict(features()),
        everything.predictor.predict(features()),
    )


def test_a_cut_beyond_all_genes_is_all_genes() -> None:
    """Held far above the last gene, the mask is 1 and training that of all genes."""
    from panelbench.methods.agl.weights import LearnedCut, Weights

    held = LearnedCut(5, 55, start=1.0, tau=0.01, lr=1.0)
    held.cut = 1 + 40 * held.tau
    np.testing.assert_allclose(held.all(), Weights(5, 55).all(), atol=1e-12)


@pytest.mark.parametrize("hyper", ["fast", "faithful"])
def test_the_cut_moves_after_the_warmup_and_stays_in_its_bounds(hyper: agl.Hyper) -> None:
    fitted = fit(hyper=hyper, inner_steps=3, warmup=2, epochs=5, patience=5, lr_weights=0.4)
    cuts = [entry["cut"] for entry in fitted.trace]
    assert cuts[:2] == [0.5, 0.5]
    assert cuts[2] != 0.5
    assert all(0 <= cut <= 1 for cut in cuts)


def test_a_cut_that_stays_at_a_bound_is_told() -> None:
    rng = np.random.default_rng(0)
    signal = features() @ rng.normal(size=(N_FEATURES, 1))
    values = np.concatenate([signal + rng.normal(size=(N_CELLS, 5)), signal**2 * np.ones(20)], 1)
    given = problem(
        expression=values.astype(np.float32),
        genes=names(25),
        primary=tuple(names(25)[:5]),
        auxiliary=tuple(names(25)[5:]),
    )
    assert not fit(given, warmup=9, epochs=10, patience=10).saturated
    assert fit(given, lr_weights=1.0, epochs=40, patience=40).saturated


def test_training_ends_when_validation_stops_rising() -> None:
    fitted = fit(epochs=200, patience=3, strategy="all")
    scores = [entry["validation"] for entry in fitted.trace]
    assert len(scores) < 200
    assert fitted.best_epoch == len(scores) - 3 == int(np.argmax(scores)) + 1


def test_the_paper_schedule_trains_then_moves_the_cut_then_trains() -> None:
    fitted = fit(schedule="paper", epochs=60, patience=2)
    phases = [entry["phase"] for entry in fitted.trace]
    first = phases.index("move")
    assert phases[:first] == ["train"] * first
    assert "train" in phases[first:]
    assert "cut" not in fitted.trace[0]  # all genes at first
    assert fitted.trace[0]["k"] == len(fitted.auxiliary)
    assert 0 < fitted.trace[first]["cut"] < 1


def test_half_of_validation_moves_the_cut_and_half_ends_the_training() -> None:
    given = problem()
    whole, half = fit(given, epochs=3), fit(given, epochs=3, split_validation=True)
    assert whole.trace != half.trace


def test_missing_targets_leave_other_genes_of_the_cell() -> None:
    given = problem()
    values = given.expression.copy()
    values[:30, 20:40] = np.nan
    fitted = fit(replace(given, expression=values), within_groups=True)
    assert np.isfinite(fitted.predictor.predict(features())).all()
    groups = np.where(np.arange(N_CELLS) % 2, "a", "b")
    grouped = replace(given, expression=values, groups=groups)
    assert fit(grouped, within_groups=True).trace != fit(grouped).trace


def test_threads_and_generators_of_the_caller_are_left_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fit()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="shared layer"):
        agl.Params(hidden=())
    with pytest.raises(ValueError, match="hvg needs n_auxiliary"):
        agl.Params(strategy="hvg")
    with pytest.raises(ValueError, match="all takes no n_auxiliary"):
        agl.Params(strategy="all", n_auxiliary=5)
    with pytest.raises(ValueError, match="faithful"):
        agl.Params(normalizer="attached")
    with pytest.raises(InputError, match="there are 55"):
        fit(strategy="hvg", n_auxiliary=56)
    with pytest.raises(NotApplicable, match="2 to move"):
        fit(problem(validation=np.arange(N_CELLS) >= N_CELLS - 2))


@pytest.mark.parametrize("params", [{"tau": 0}, {"batch_size": 4}, {"start": 1.5}, {"hidden": []}])
def test_ranges_are_declared(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(params))):
        validated(agl.Params, params, "agl")


def test_schedules_give_the_values_of_their_source() -> None:
    code, paper = (agl.settings(agl.Params(schedule=name)) for name in ("code", "paper"))
    assert (code.inner_steps, code.normalizer, code.batch_pass) == (12, "detached", 64)
    assert (paper.inner_steps, paper.normalizer, paper.batch_pass) == (2, "sum", 128)


# Results


def test_predictor_survives_saving_and_reads_features() -> None:
    predictor = fit().predictor
    arrays, facts = predictor.save()
    loaded = agl.AglPredictor.load(arrays, json.loads(json.dumps(facts)))
    np.testing.assert_array_equal(loaded.predict(features()), predictor.predict(features()))
    with pytest.raises(ValueError, match="6 features"):
        predictor.predict(features()[:, :3])


def test_predictor_is_the_network_and_calibrated() -> None:
    given = problem()
    fitted = fit(given, epochs=30, patience=30)
    training = ~given.validation
    columns = [int(name[1:]) for name in fitted.primary]
    truth = given.expression[training][:, columns].astype(np.float64)
    predicted = fitted.predictor.predict(given.inputs[training])
    # Least squares: errors have no mean, and nothing in common with what was predicted.
    np.testing.assert_allclose((predicted - truth).mean(axis=0), 0, atol=1e-8)
    common = ((predicted - truth) * (predicted - predicted.mean(axis=0))).mean(axis=0)
    np.testing.assert_allclose(common, 0, atol=1e-8)
    held = agl.mean_correlation(
        fitted.predictor.predict(given.inputs[given.validation]),
        given.expression[given.validation][:, columns],
    )
    assert held == pytest.approx(fitted.trace[fitted.best_epoch - 1]["validation"], abs=1e-4)


def test_correlations_by_gene_and_group() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(size=(2, 40, 3))
    truth[:10, 0] = np.nan
    truth[:, 2] = 0.1
    found = agl.gene_correlations(predicted, truth)
    assert found[0, 0] == pytest.approx(np.corrcoef(predicted[10:, 0], truth[10:, 0])[0, 1])
    assert np.isnan(found[0, 2])
    groups = np.repeat(["a", "b"], 20)
    found = agl.gene_correlations(predicted, truth, groups)
    assert found[1, 1] == pytest.approx(np.corrcoef(predicted[20:, 1], truth[20:, 1])[0, 1])
    assert agl.mean_correlation(predicted, truth, groups) == pytest.approx(
        np.nanmean(found[:, :2], axis=1).mean()
    )


def test_ridge_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    given = problem()
    values = given.expression[:, :4].copy()
    values[:15, 2] = np.nan
    held = given.validation
    ridge = agl.fit_ridge(given.inputs, values, names(4).tolist(), held, penalties=(3.0,))
    x = ridge.scaler(given.inputs[~held])
    for gene in range(4):
        seen = ~np.isnan(values[~held][:, gene])
        model = Ridge(alpha=3.0).fit(x[seen], values[~held][seen, gene].astype(np.float64))
        np.testing.assert_allclose(model.coef_, ridge.weight[:, gene], atol=1e-8)
        np.testing.assert_allclose(model.intercept_, ridge.offset[gene], atol=1e-8)
    best = agl.fit_ridge(given.inputs, values, names(4).tolist(), held)
    found = [
        agl.mean_correlation(
            agl.fit_ridge(given.inputs, values, names(4).tolist(), held, penalties=(p,))
            .predict(given.inputs[held]),
            values[held],
        )
        for p in (1e-1, 1e2, 1e6)
    ]  # fmt: skip
    assert agl.mean_correlation(best.predict(given.inputs[held]), values[held]) >= max(found)


def test_mean_baseline_and_saving() -> None:
    given = problem()
    values = given.expression[:, :3].copy()
    values[:5, 1] = np.nan
    mean = agl.fit_mean(given.inputs, values, names(3).tolist())
    predicted = mean.predict(given.inputs[:2])
    np.testing.assert_allclose(
        predicted, np.nanmean(values.astype(float), axis=0)[None].repeat(2, 0)
    )
    ridge = agl.fit_ridge(given.inputs, values, names(3).tolist(), given.validation)
    arrays, facts = ridge.save()
    loaded = agl.LinearPredictor.load(arrays, json.loads(json.dumps(facts)))
    np.testing.assert_array_equal(loaded.predict(features()), ridge.predict(features()))
