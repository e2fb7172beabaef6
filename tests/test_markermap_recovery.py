"""What MarkerMap finds in planted data, where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from panelbench.methods import markermap
from sklearn.linear_model import LinearRegression

from panelbench.method import Selection, Target, Task, frozen_mapping


def task_of(X: np.ndarray, codes: np.ndarray | None, k: int, seed: int) -> Task:
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    targets = {}
    if codes is not None:
        names = tuple(f"c{i}" for i in range(int(codes.max()) + 1))
        targets["state"] = Target("state", "classification", codes.astype(np.int64), names)
    genes = np.array([f"g{i:05d}" for i in range(X.shape[1])])
    return Task(X=X, genes=genes, targets=frozen_mapping(targets), k=k, seed=seed)


def panel(found: Selection, k: int) -> set[int]:
    return {int(gene[1:]) for gene in list(found.ranking)[:k]}


def steady(epochs: int) -> dict[str, Any]:
    """As many epochs, at a fixed learning rate."""
    return {"lr": 1e-3, "min_epochs": epochs, "max_epochs": epochs}


def shifted(seed: int, n_cells: int = 800) -> Task:
    """Five classes, two genes of 500 each, shifted by two standard deviations."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(5, size=n_cells)
    X = rng.normal(size=(n_cells, 500))
    for code in range(5):
        X[codes == code, 2 * code : 2 * code + 2] += 2
    return task_of(X, codes, 10, seed)


def factors(seed: int, n_cells: int = 2000) -> tuple[Task, np.ndarray]:
    """Ten hidden factors, ten noisy copies of each among 200 genes; the others are noise."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n_cells, 10))
    copies = np.repeat(hidden, 10, axis=1) + 0.3 * rng.normal(size=(n_cells, 100))
    task = task_of(np.hstack([copies, rng.normal(size=(n_cells, 100))]), None, 10, seed)
    return task, np.repeat(np.arange(10), 10)


def triple(seed: int, n_cells: int, n_genes: int, k: int) -> Task:
    """Genes -1 or 1; state 1 where the first three agree, so that no pair of them tells."""
    rng = np.random.default_rng(seed)
    X = rng.choice([-1.0, 1.0], size=(n_cells, n_genes))
    codes = (X[:, 0] == X[:, 1]) & (X[:, 1] == X[:, 2])
    return task_of(X, codes.astype(int), k, seed)


@pytest.mark.slow
def test_planted_markers_are_found_with_labels() -> None:
    for seed in range(2):
        found = markermap.select_supervised(shifted(seed), markermap.SupervisedParams(**steady(25)))
        assert panel(found, 10) == set(range(10))


@pytest.mark.slow
def test_planted_markers_are_found_jointly_only_after_repair() -> None:
    """The paper's rates hardly move the logits in so few steps, and its loss is all genes'."""
    task, planted = shifted(0), set(range(10))
    robust = markermap.select_joint(task, markermap.JointParams(preset="robust"))
    paper = markermap.select_joint(task, markermap.JointParams(preset="paper"))
    assert len(panel(robust, 10) & planted) >= 9
    assert len(panel(paper, 10) & planted) < 5


@pytest.mark.slow
def test_without_labels_genes_that_share_something_are_preferred() -> None:
    task, factor = factors(0)
    found = markermap.select_unsupervised(task, markermap.MarkerMapParams(**steady(60)))
    chosen = panel(found, 10)
    assert max(chosen) < 100, "a gene of pure noise was taken"
    assert len(set(factor[sorted(chosen)])) >= 3


@pytest.mark.slow
def test_a_rate_that_moves_the_logits_reconstructs_better_than_chance() -> None:
    """Squared error per entry of all genes, fitted by least squares on the panel's.

    One gene of each factor leaves 0.57, random genes 0.8. Seven of ten factors give 0.70, and what
    a seed finds varies from six to nine.
    """
    task, _ = factors(1, n_cells=2700)
    train, test = task.X[:2200], task.X[2200:]

    def error(genes: list[int]) -> float:
        fit = LinearRegression().fit(train[:, genes], train)
        return float(((fit.predict(test[:, genes]) - test) ** 2).mean())

    settings = markermap.MarkerMapParams(hidden=128, **steady(100))
    found = markermap.select_unsupervised(replace(task, X=train), settings)
    rng = np.random.default_rng(0)
    chance = np.mean([error(list(rng.permutation(200)[:10])) for _ in range(20)])
    assert error(sorted(panel(found, 10))) < 0.72 < chance


@pytest.mark.slow
def test_three_genes_that_only_tell_together_are_found() -> None:
    """The toy of the MarkerMap paper, at 200 genes; tests of single genes are blind to it."""
    from panelbench.methods.rank_genes import t_test

    from panelbench.method import NoParams

    blind = []
    for seed in range(3):
        task = triple(seed, n_cells=1100, n_genes=200, k=3)
        found = markermap.select_supervised(task, markermap.SupervisedParams(**steady(60)))
        assert panel(found, 3) == {0, 1, 2}
        blind.append(panel(t_test(task, NoParams()), 3) & {0, 1, 2})
    assert all(len(hits) < 3 for hits in blind)


@pytest.mark.slow
def test_three_genes_that_only_tell_together_are_found_among_a_thousand() -> None:
    """Twice as many cells as genes are enough; ranks of single genes stay at chance."""
    from panelbench.methods.rank_genes import CosgParams, cosg, t_test, wilcoxon

    from panelbench.method import NoParams

    task = triple(0, n_cells=2200, n_genes=1000, k=50)
    settings = markermap.SupervisedParams(hidden=64, **steady(60))
    found = markermap.select_supervised(task, settings)
    assert {0, 1, 2} <= panel(found, 50)
    for blind in (t_test(task, NoParams()), wilcoxon(task, NoParams()), cosg(task, CosgParams())):
        assert not {0, 1, 2} <= panel(blind, 50)
