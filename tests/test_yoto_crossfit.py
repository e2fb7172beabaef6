"""YOTO's default: folds, levels, genes that held-out cells find, the fitted predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from panelbench.methods import yoto

from panelbench.method import NoParams, Target, Task, frozen_mapping
from tests.test_yoto import N_CELLS, check_sizes, classes, make_task, outputs, run


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task()


def test_networks_of_the_folds_read_exactly_k_genes(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panelbench.methods.yoto.search import Search

    seen: list[tuple[int, bool]] = []
    plain = Search.first_layer

    def spied(self: Any, x: Any, weights: Any, k: int) -> Any:
        changed = x.clone()
        changed[:, k * self.encoding.steps :] = 1e6
        hidden = plain(self, x, weights, k)
        seen.append((k, bool((plain(self, changed, weights, k) == hidden).all())))
        return hidden

    monkeypatch.setattr(Search, "first_layer", spied)
    run(task, epochs=5)
    check_sizes(seen)


def test_scores_follow_held_out_cells_and_weights_the_others(task: Task) -> None:
    import torch
    from panelbench.methods.yoto import crossfit
    from panelbench.methods.yoto.optimizers import RowAdam, ScoreAdam

    settings = yoto.settings(yoto.Params(epochs=1, weight_decay=0.0, prior=0.0))
    search, *_ = crossfit.learn_scores(task, settings)
    for train, judge in search.counts:
        assert not bool((train & judge).any())
        assert bool((judge.sum(0) == 1).all()), "every cell judges once"
        assert bool((train.sum(0) == search.count - 1).all())
    everyone = np.arange(N_CELLS)

    def moved(train: int, judge: int) -> tuple[bool, bool]:
        """Whether scores and weights move when only these cells count."""
        kept = search.counts
        search.counts = [(t & bool(train), j & bool(judge)) for t, j in kept]
        search.ascent = ScoreAdam(search.scores, settings.lr_scores)
        search.rows = RowAdam(search.first, settings.lr, settings.weight_decay)
        scores, weights = search.scores.clone(), search.first.clone()
        search.step(everyone, search.k, 0.3)
        search.counts = kept
        return not torch.equal(scores, search.scores), not torch.equal(weights, search.first)

    assert moved(1, 0) == (False, True)
    assert moved(0, 1) == (True, False)


def few_cells(seed: int) -> tuple[Task, set[str]]:
    """600 cells, 3,000 genes, 12 types with three markers each, most counts lost."""
    from panelbench.data import synthetic

    cells = synthetic.make(
        cells=600, genes=3000, types=(12,), markers=3, effect=12.0, dropout=0.6, seed=seed
    )
    counts = cells.X.toarray()
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    codes = cells.obs["type_a"].cat.codes.to_numpy()
    truth = {gene for genes in cells.uns["markers"].values() for gene in genes}
    task = Task(
        X=np.log1p(counts / depth * 1e4).astype(np.float32),
        genes=np.asarray(cells.var_names, dtype=str),
        targets={"type": classes("type", codes, 12)},
        k=36,
        seed=seed,
    )
    return task, truth


def planted_found(seeds: int, **params: Any) -> float:
    """Mean number of the 36 planted genes among the 36 with the best learned scores."""
    from panelbench.methods.yoto import crossfit

    found = []
    for seed in range(seeds):
        task, truth = few_cells(seed)
        search, *_ = crossfit.learn_scores(task, yoto.settings(yoto.Params(**params)))
        genes = search.cells.genes[search.scores.topk(36).indices.numpy()]
        found.append(len(truth & set(task.genes[genes])))
    return float(np.mean(found))


@pytest.mark.slow
def test_most_planted_genes_are_found_where_cells_are_few_and_counts_are_lost() -> None:
    task, truth = few_cells(1)
    assert len(truth & set(yoto.select(task, yoto.Params()).ranking[:36])) >= 33


@pytest.mark.slow
def test_scores_that_hardly_know_the_start_find_them_on_held_out_cells() -> None:
    """With the scores' gradient from each network's own cells it is 27 of 36."""
    assert planted_found(2, prior=0.25) >= 31


@pytest.mark.slow
def test_one_network_judged_on_its_own_cells_finds_few_of_them() -> None:
    from panelbench.methods.yoto import training

    task, truth = few_cells(0)
    settings = yoto.settings(yoto.Params(preset="joint", epochs=300))
    assert len(truth & set(task.genes[training.train(task, settings).genes[:36]])) <= 18


def test_folds_spread_classes_and_keep_groups_whole(task: Task) -> None:
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.folds import assign_folds

    cells = Cells(task, standardize=True)
    rng = np.random.default_rng(0)
    fold = assign_folds(cells.labels, None, 3, rng)
    for code in range(3):
        sizes = np.bincount(fold[task.targets["type"].values == code])
        assert sizes.max() - sizes.min() <= 1
    groups = np.repeat(list("abcd"), [300, 100, 100, 100])
    whole = assign_folds(cells.labels, groups, 3, rng)
    assert all(len(set(whole[groups == group])) == 1 for group in "abcd")
    assert sorted(np.bincount(whole)) == [100, 200, 300]
    assert set(assign_folds(cells.labels, np.repeat(["a", "b"], 300), 3, rng)) == {0, 1}


def test_two_cells_of_a_class_are_enough(task: Task) -> None:
    values = task.targets["type"].values.copy()
    rare = np.flatnonzero(values == 2)[2:]
    values[rare] = 0
    target = {"type": replace(task.targets["type"], values=values)}
    found = run(replace(task, targets=frozen_mapping(target)), epochs=5)
    assert np.isfinite(outputs(found, replace(task, targets=target))["type"]).all()
    assert np.isfinite(found.info["curves"]["held:type"]).all()


def test_levels_encode_a_gene_and_are_the_layer_of_the_predictor(task: Task) -> None:
    import torch
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.encoding import Encoding

    cells = Cells(task, standardize=True)
    encoding = Encoding(cells, (0.0, 0.5, 1.0), np.random.default_rng(0))
    genes = torch.tensor([7, 3])
    x = cells.batch(np.arange(N_CELLS), genes)
    steps = encoding(x, genes).numpy()
    assert steps.shape == (N_CELLS, 6)
    assert (steps >= 0).all()
    assert np.argmin(np.asarray(task.X)[:, 7]) == np.argmin(steps[:, :3].sum(axis=1))
    order = np.argsort(x[:, 0].numpy())
    assert (np.diff(steps[order, :3], axis=0) >= 0).all(), "steps only rise with expression"
    weight, bias = encoding.layer(genes)
    above, below = np.split(np.maximum(x.numpy() @ weight + bias, 0), 2, axis=1)
    np.testing.assert_allclose(above - below, steps, atol=1e-4)


@pytest.mark.parametrize("better", [-10.0, 10.0])
def test_what_the_predictor_uses_is_settled_on_panels_chosen_without_the_fold(
    task: Task, monkeypatch: pytest.MonkeyPatch, better: float
) -> None:
    import torch
    from panelbench.methods.yoto import start as starts
    from panelbench.methods.yoto.fit import RATES, Fit

    tried: list[tuple[int, int, int, int]] = []
    plain = Fit.held_out

    def better_with_half(self: Any, seen: Any, rates: tuple[float, ...], epochs: int) -> Any:
        size = self.x.shape[1] // self.steps
        tried.append((size, len(seen), len(self.hidden), epochs))
        found = plain(self, seen, rates, epochs)
        if len(seen) == 1:
            assert bool((found[:, seen[0]] == 0).all()), "cells that train judge nothing"
            found[len(rates) // 2] -= 10.0 * (size < 8) * ~seen[0]
            found -= better * (len(self.hidden) == 2) * ~seen[0]
        return found

    used: list[Any] = []
    start = starts.relevances
    monkeypatch.setattr(
        starts, "relevances", lambda *given: (used.extend(given[3:]), start(*given))[1]
    )
    monkeypatch.setattr(Fit, "held_out", better_with_half)
    found = run(task, epochs=3)
    facts = found.info["chosen"]
    assert (facts["genes_used"], facts["input_dropout"]) == (4, RATES[2])
    assert facts["hidden_layers"] == (2 if better > 0 else 1)
    nested, chosen = [(8, 1, 1, 1)] * 3, [(8, 3, 1, 1)] * 3
    halves, usual, deep = [(4, 1, 1, 1)] * 3, [(4, 1, 1, 3)] * 3, [(4, 1, 2, 3)] * 3
    assert tried == nested * 2 + chosen + halves + usual + deep
    assert bool((torch.stack(used).sum(0) == 2).all())
    X = np.asarray(task.X)[:, [int(g[1:]) for g in found.ranking[:8]]].copy()
    assert isinstance(found.predictor, yoto.YotoPredictor)
    before = found.predictor.predict_proba("type", X)
    X[:, 4:] += 100
    np.testing.assert_array_equal(found.predictor.predict_proba("type", X), before)
    monkeypatch.undo()
    facts = run(task, epochs=3, input_dropout=0.1, hidden=(8, 8, 8)).info["chosen"]
    assert (facts["input_dropout"], facts["hidden_layers"]) == (0.1, 3)


@pytest.mark.parametrize(("margin", "start"), [(2.0, 0.0), (3.0, 1.0), (6.0, 100.0)])
def test_the_panel_leaves_the_start_by_what_held_out_cells_say_for_sure(
    task: Task, monkeypatch: pytest.MonkeyPatch, margin: float, start: float
) -> None:
    """The third is ahead of the second by 2.4 standard errors, of the first by 4.9."""
    import torch
    from panelbench.methods.yoto.fit import Fit

    calls: list[int] = []
    noise = torch.from_numpy(np.where(np.arange(N_CELLS) % 2, 1.0, -1.0))

    plain = Fit.held_out

    def held_out(self: Any, seen: Any, rates: tuple[float, ...], epochs: int) -> Any:
        if len(seen) == 1:
            return plain(self, seen, rates, epochs)
        calls.append(1)
        return (1 - 0.1 * len(calls) + noise * (len(calls) < 3)).expand(len(rates), -1)

    monkeypatch.setattr(Fit, "held_out", held_out)
    facts = run(task, epochs=1, margin=margin).info["chosen"]
    losses = [facts[f"held_out_loss:{share:g}"] for share in (100, 1, 0)]
    np.testing.assert_allclose(losses, [0.9, 0.8, 0.7])
    assert facts["start"] == start


def start_of(X: np.ndarray, *targets: Target, order: str = "boosting") -> np.ndarray:
    """Relevance of each gene."""
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.encoding import Encoding
    from panelbench.methods.yoto.relevance import relevances

    genes = np.array([f"g{i}" for i in range(X.shape[1])])
    named = {target.name: target for target in targets}
    cells = Cells(Task(X, genes, frozen_mapping(named), 3, 0), standardize=True)
    encoding = Encoding(cells, (0.0, 0.5, 1.0), np.random.default_rng(0))
    return relevances(cells, encoding, 64)[order].numpy()


def marked(rng: np.random.Generator) -> tuple[np.ndarray, Target]:
    """Four classes; genes 0 to 3 are one marker each, 4 to 7 copies of the first, noise."""
    codes = np.repeat(np.arange(4), [100, 60, 30, 10])
    X = rng.normal(size=(200, 100)).astype(np.float32)
    X[:, :4] += np.array([8, 5, 4, 4]) * np.eye(4)[codes]
    X[:, 4:8] = X[:, :1] + 0.1 * X[:, 4:8]
    return X, classes("type", codes, 4)


def test_the_start_has_a_gene_for_every_class_before_copies() -> None:
    X, target = marked(np.random.default_rng(0))
    found = start_of(X, target)
    first = np.argsort(-found)[:4]
    assert {1, 2, 3} <= set(first)
    assert found[8:].max() < found[[1, 2, 3]].min()
    assert (found == 0).sum() > 40, "what chance explains has no head start"


def test_a_task_without_most_labels_leaves_the_others_start_as_it_was() -> None:
    X, target = marked(np.random.default_rng(0))
    gone = np.where(np.arange(200) % 10, -1, target.values)
    both = start_of(X, target, replace(target, name="other", values=gone))
    first = np.argsort(-start_of(X, target))[:4]
    assert {1, 2, 3} <= set(first) <= set(np.argsort(-both)[:8])


def test_markers_come_class_by_class_in_the_order_of_the_rank_sum_test() -> None:
    """As the method `wilcoxon` has them, which is another code for the same."""
    import torch
    from panelbench.methods.rank_genes import wilcoxon
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.markers import marker_places

    _, target = marked(np.random.default_rng(1))
    X = np.random.default_rng(1).normal(size=(200, 100)).astype(np.float32)
    X[:, :4] += 1.5 * np.eye(4, dtype=np.float32)[target.values]  # no two rank sums are the same
    genes = np.array([f"g{i}" for i in range(X.shape[1])])
    task = Task(X, genes, frozen_mapping({"type": target}), 3, 0)
    cells = Cells(task, standardize=True)
    everyone = torch.ones(200, dtype=torch.bool)
    place = marker_places(cells, torch.arange(100), everyone)
    assert place is not None
    expected = [int(gene[1:]) for gene in wilcoxon(task, NoParams()).ranking]
    assert np.argsort(place.numpy()).tolist()[:20] == expected[:20]
    fewer = marker_places(cells, torch.arange(100), torch.arange(200) < 190)
    assert fewer is not None and not torch.equal(place, fewer), "only the cells used count"


def test_both_orders_count_as_the_product_of_places() -> None:
    import torch
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.markers import marker_places

    X, target = marked(np.random.default_rng(0))
    boosting, both = start_of(X, target), start_of(X, target, order="both")
    known = np.argsort(-boosting, kind="stable")[: (boosting > 0).sum()]
    genes = np.array([f"g{i}" for i in range(X.shape[1])])
    cells = Cells(Task(X, genes, frozen_mapping({"type": target}), 3, 0), standardize=True)
    place = marker_places(cells, torch.from_numpy(known), torch.ones(200, dtype=torch.bool))
    assert place is not None
    product = np.arange(1, len(known) + 1) * place.numpy()
    order = np.argsort(-both, kind="stable")[: len(known)]
    assert np.all(np.diff(product[[known.tolist().index(gene) for gene in order]]) >= 0)
    assert (both > 0).sum() == (boosting > 0).sum()


@pytest.mark.parametrize(("better", "name"), [(0.1, "boosting"), (1.0, "both")])
def test_markers_count_only_where_they_are_better_for_sure(
    task: Task, monkeypatch: pytest.MonkeyPatch, better: float, name: str
) -> None:
    """The second order is better by `better` of 0.33 on average, with a standard error of 0.1."""
    import torch
    from panelbench.methods.yoto.fit import Fit

    plain, calls = Fit.held_out, []
    noise = torch.from_numpy(np.where(np.arange(N_CELLS) % 2, 1.0, -1.0)) * (N_CELLS**0.5 / 10)

    def held_out(self: Any, seen: Any, rates: tuple[float, ...], epochs: int) -> Any:
        if len(seen) > 1:
            return plain(self, seen, rates, epochs)
        calls.append(1)
        loss = 2.0 - (noise + better) * (3 < len(calls) <= 6)
        return (loss * ~seen[0]).expand(len(rates), -1)

    monkeypatch.setattr(Fit, "held_out", held_out)
    facts = run(task, epochs=1).info["chosen"]
    assert facts["markers"] == (name == "both")
    assert facts["start_loss:boosting"] == 2.0
    np.testing.assert_allclose(facts["start_loss:both"], 2 - better, atol=1e-5)
