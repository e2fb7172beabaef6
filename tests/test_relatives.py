"""SMaSH, RankCorr and scGeneFit: their formulas, exact panels, planted genes, and the XOR toy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from panelbench.methods import rankcorr, rf_importance, scgenefit

from panelbench.contract import tasks
from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task
from panelbench.ranking import gene_variances
from panelbench.registry import discover
from tests.planted import columns, planted, task_of

METHODS = discover().methods
RELATIVES = ("smash", "rankcorr", "scgenefit")


def run(id: str, task: Task, **params: Any) -> Selection:
    return METHODS[id].select(task, METHODS[id].params(**params))


# Every panel.


@pytest.mark.parametrize(
    ("id", "params"),
    [
        ("smash", {}),
        ("rankcorr", {}),
        ("rankcorr", {"mode": "parity"}),
        ("scgenefit", {}),
        ("scgenefit", {"constraints": "pairwise", "max_constraints": 100}),
        ("scgenefit", {"constraints": "pairwise_centers", "max_constraints": 100}),
    ],
)
@pytest.mark.parametrize("k", [1, tasks.N_CLASSES - 1, 50])
def test_panels_have_exactly_k_genes(id: str, params: dict[str, Any], k: int) -> None:
    task = tasks.make_task(METHODS[id], k=k)
    panel = list(run(id, task, **params).ranking)[:k]
    assert len(set(panel)) == k and set(panel) <= set(task.genes.tolist())
    if k < tasks.N_GENES:
        assert task.genes[tasks.SILENT] not in panel


@pytest.mark.parametrize(
    ("id", "params", "least"),
    [
        ("smash", {}, 10),
        ("rankcorr", {}, 10),
        ("scgenefit", {"redundancy": 1.0}, 8),
        ("scgenefit", {"constraints": "pairwise_centers", "max_constraints": 200}, 8),
    ],
)
def test_planted_genes_are_found(id: str, params: dict[str, Any], least: int) -> None:
    found = columns(run(id, planted(), **params), 10)
    assert len(set(found) & set(range(10))) >= least


@pytest.mark.parametrize("id", RELATIVES)
def test_one_class_is_explained(id: str) -> None:
    alone = tasks.cell_type(np.zeros(tasks.N_CELLS, np.int64))
    with pytest.raises(NotApplicable, match="same class"):
        run(id, tasks.make_task(METHODS[id], target=alone))


# SMaSH.


def test_smash_weighs_classes_alike() -> None:
    """Its importances are those of a forest whose cells weigh N / (C N_c)."""
    from sklearn.ensemble import RandomForestClassifier

    task = tasks.make_task(METHODS["smash"])
    codes = task.target.values
    sizes = np.bincount(codes)
    weights = {c: len(codes) / (len(sizes) * n) for c, n in enumerate(sizes.tolist())}
    forest = RandomForestClassifier(class_weight=weights, random_state=task.int_seed("forest"))
    importance = forest.fit(task.dense(), codes).feature_importances_
    found = rf_importance.smash(task, rf_importance.Params())
    assert np.allclose(found.scores, np.sort(importance)[::-1])
    assert list(found.ranking)[:10] == task.genes[np.argsort(-importance)[:10]].tolist()


# RankCorr.


def markers_of_class(v: np.ndarray, lambda_: float) -> set[int]:
    """The genes of one class at one lambda, by walking down the thresholds."""
    size = np.abs(v)
    for threshold in sorted(size, reverse=True):
        shrunk = np.maximum(size - threshold, 0)
        if threshold < size.max() and shrunk.sum() / np.linalg.norm(shrunk) > np.sqrt(lambda_):
            return set(np.flatnonzero(size > threshold).tolist())
    return set(np.flatnonzero(size > 0).tolist())


def union(v: np.ndarray, lambda_: float) -> set[int]:
    return set().union(*(markers_of_class(row, lambda_) for row in v))


def fair_panel(v: np.ndarray, k: int) -> set[int]:
    """Bisect lambda to the smallest union of at least k, keep the k with the largest |v|."""
    low, high = 0.0, float(v.shape[1])
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if len(union(v, middle)) >= k else (middle, high)
    return set(sorted(union(v, high), key=lambda gene: -np.abs(v[:, gene]).max())[:k])


def small(seed: int, n_cells: int = 60, n_genes: int = 25) -> Task:
    """Noise with ties, some signal, and classes of unequal size."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(4), [30, 15, 10, 5]))
    X = np.round(rng.normal(size=(n_cells, n_genes)) + 0.7 * (codes[:, None] == rng.integers(4)), 1)
    return task_of(X, codes)


def statistics(task: Task) -> np.ndarray:
    codes = task.target.values
    return rankcorr.rank_statistics(task.X, codes == np.unique(codes)[:, None])


def test_statistics_are_those_of_the_formula() -> None:
    from scipy.stats import rankdata

    task = small(0)
    ranks = rankdata(np.asarray(task.X, np.float64), axis=0)
    standard = (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)
    for code, row in enumerate(statistics(task)):
        signs = np.where(task.target.values == code, 1, -1)
        assert np.allclose(row, signs @ standard)


@pytest.mark.parametrize("seed", range(5))
def test_fair_panels_are_those_found_by_bisection(seed: int) -> None:
    task = small(seed)
    v = statistics(task)
    for k in range(1, task.n_genes):
        found = rankcorr.select(Task(**{**vars(task), "k": k}), rankcorr.Params())
        assert set(columns(found, k)) == fair_panel(v, k), f"k = {k}"
        assert len(union(v, found.info["lambda"] * (1 + 1e-9))) == found.info["union"] >= k


def test_fair_panels_are_no_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the method is not declared nested: the first gene of a weak class may be dropped."""
    v = np.zeros((3, 6))
    v[0, :2], v[1, 2:4], v[2, 4:] = (9, 8), (7, 6), (2, 1)
    monkeypatch.setattr(rankcorr, "rank_statistics", lambda *_: v)
    task = task_of(np.random.default_rng(0).normal(size=(6, 6)), np.arange(6) % 3)
    panels = [
        columns(rankcorr.select(Task(**{**vars(task), "k": k}), rankcorr.Params()), k)
        for k in (3, 4)
    ]
    assert panels == [[0, 2, 4], [0, 1, 2, 3]] and not METHODS["rankcorr"].nested


@pytest.mark.parametrize("lambda_", [1.0, 2.5, 6.0, 20.0])
def test_parity_cuts_the_union_in_the_order_of_the_data(lambda_: float) -> None:
    task = small(3)
    expected = sorted(union(statistics(task), lambda_))
    found = rankcorr.select(task, rankcorr.Params(mode="parity", sparsity=lambda_))
    assert columns(found, len(expected)) == expected
    assert found.info == {"lambda": lambda_, "union": len(expected)}


def test_tied_genes_enter_together() -> None:
    entry = rankcorr.entry_lambdas(np.array([[4.0, -4.0, 2.0, 1.0, 0.0, 1.0]]))[0]
    assert entry[:3].tolist() == [0, 0, 2]
    assert entry[3] == entry[5] > 2 and entry[4] == np.inf


def test_genes_without_rank_correlation_come_last_by_variance() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(40) % 2
    X = np.zeros((40, 4))
    X[:, 0] = np.tile([1, 1, -1, -1], 10)  # the same ranks in both classes
    X[:, 1] = codes + rng.normal(size=40)
    X[:, 3] = 2 * X[:, 0]
    task = task_of(X, codes, k=4)
    assert columns(rankcorr.select(task, rankcorr.Params())) == [1, 3, 0, 2]


# scGeneFit.


def test_weights_are_an_optimum_of_the_programme() -> None:
    """No panel of k genes has less slack, and the weights meet what they claim to."""
    from itertools import combinations

    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(4), 10)
    task = task_of(rng.normal(size=(40, 8)) + 2 * (codes[:, None] == np.arange(8)), codes, k=3)
    params = scgenefit.Params(redundancy=1.0)
    found = scgenefit.select(task, params)
    centres = np.stack([np.asarray(task.X, np.float64)[codes == c].mean(axis=0) for c in range(4)])
    A = np.stack([(centres[a] - centres[b]) ** 2 for a, b in combinations(range(4), 2)])
    delta = A.sum(axis=1).min()
    weights = np.empty(8)
    weights[columns(found)] = found.scores
    assert weights.min() >= 0 and weights.max() <= 1 and weights.sum() <= 3 + 1e-6

    def slack(x: np.ndarray) -> float:
        return float(np.maximum(0, 1 - A @ x / delta).sum())

    assert slack(weights) == pytest.approx(found.info["slack"], abs=1e-5)
    panels = (np.isin(np.arange(8), panel).astype(float) for panel in combinations(range(8), 3))
    assert slack(weights) <= min(slack(panel) for panel in panels) + 1e-6


@pytest.mark.parametrize(
    ("params", "rows"),
    [
        ({}, 3),
        ({"redundancy": 1.0}, 6),
        ({"constraints": "pairwise", "n_neighbors": 2}, 40 * 3 * 2),
        ({"constraints": "pairwise", "sampling_rate": 0.5}, 20 * 3 * 3),
        ({"constraints": "pairwise_centers"}, 40 * 3),
        ({"constraints": "pairwise_centers", "max_constraints": 50}, 50),
    ],
)
def test_constraints_are_counted(params: dict[str, Any], rows: int) -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(4), 10)
    task = task_of(rng.normal(size=(40, 8)) + (codes[:, None] == np.arange(8)), codes, k=2)
    assert scgenefit.select(task, scgenefit.Params(**params)).info["constraints"] == rows


def test_neighbours_are_the_nearest_of_each_other_class() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(3), 6)
    X = rng.normal(size=(18, 4)).astype(np.float32)
    params = scgenefit.Params(constraints="pairwise", n_neighbors=2)
    found = scgenefit._separations(task_of(X, codes), params)
    expected = []
    for cell in range(18):
        for code in set(range(3)) - {int(codes[cell])}:
            squares = (X[codes == code].astype(np.float64) - X[cell]) ** 2
            expected += squares[np.argsort(squares.sum(axis=1))[:2]].tolist()
    assert np.allclose(sorted(found.tolist()), sorted(expected))


def test_genes_of_equal_weight_are_ordered_by_separation() -> None:
    task, params = planted(n_genes=30), scgenefit.Params(redundancy=1.0)
    found = scgenefit.select(task, params)
    weights = np.asarray(found.scores)
    assert found.info["weighted"] == (weights > 0).sum() < task.n_genes
    separation = scgenefit._separations(task, params).mean(axis=0)[columns(found)]
    for better, worse in zip(range(29), range(1, 30), strict=True):
        assert weights[better] >= weights[worse]
        if weights[better] == weights[worse]:
            assert separation[better] >= separation[worse]


# What one gene at a time cannot see.


def xor(seed: int, n_cells: int = 1000, n_genes: int = 200) -> Task:
    """Two states: genes 0, 1 and 2 are all equal, or not; each gene alone says nothing."""
    rng = np.random.default_rng(seed)
    X = rng.choice([-1.0, 1.0], size=(n_cells, n_genes))
    return task_of(X, (np.abs(X[:, :3].sum(axis=1)) == 3).astype(np.int64), seed=seed)


def places(id: str, seeds: Sequence[int]) -> np.ndarray:
    """Positions of the three genes in the rankings of a method."""
    orders = [columns(run(id, xor(seed))) for seed in seeds]
    return np.array([order.index(gene) for order in orders for gene in range(3)])


@pytest.mark.parametrize("id", ["t-test", "wilcoxon", "cosg", "rankcorr"])
def test_methods_of_one_gene_at_a_time_are_at_chance_on_xor(id: str) -> None:
    found = places(id, range(12))
    # Uniform over 200 places: the mean of 36 has a standard deviation of 9.6.
    assert abs(found.mean() - 99.5) < 35
    assert (found < 10).sum() <= 8, "1.8 are expected among the first ten"


def test_constant_genes_come_last_in_every_ranking() -> None:
    for id in RELATIVES:
        task = tasks.make_task(METHODS[id], k=tasks.N_GENES)
        silent = task.genes[gene_variances(task.X) == 0].tolist()
        assert list(run(id, task).ranking)[-len(silent) :] == silent
