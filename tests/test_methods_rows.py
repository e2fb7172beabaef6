"""Deviance and NS-Forest: by their formulas, and on cases counted by hand."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from panelbench.contract import tasks
from panelbench.errors import NotApplicable
from panelbench.method import Target, Task
from panelbench.registry import discover

METHODS = discover().methods
deviance = importlib.import_module("panelbench.methods.deviance")
nsforest = importlib.import_module("panelbench.methods.nsforest")
genebasis = importlib.import_module("panelbench.methods.genebasis")


def by_definition(counts: np.ndarray, family: str) -> np.ndarray:
    """Twice the log-likelihood of a rate per cell over that of one share, from the densities."""
    from scipy.stats import binom, poisson

    totals = counts.sum(axis=1)
    found = []
    for y in counts.T:
        share = y.sum() / totals.sum()
        if family == "binomial":
            each = binom.logpmf(y, totals, y / totals) - binom.logpmf(y, totals, share)
        else:
            each = poisson.logpmf(y, y) - poisson.logpmf(y, totals * share)
        found.append(2 * each.sum())
    return np.array(found)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_deviance_by_its_definition(family: str) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 2.0, (40, 6))).astype(np.float64)
    counts[:, 5] = 0
    counts[0] = [3, 0, 0, 0, 0, 0]  # a gene that is all of a cell
    found = deviance.deviances(counts, family)
    np.testing.assert_allclose(found, by_definition(counts, family), rtol=1e-9, atol=1e-9)
    assert np.array_equal(found, deviance.deviances(csr_matrix(counts), family))
    assert found[5] == 0


def test_deviance_by_hand() -> None:
    # Cells (2, 0) and (0, 2): p = 1/2, and 2 (2 log 2 + 2 log 2) for each gene.
    assert deviance.deviances(np.array([[2.0, 0.0], [0.0, 2.0]]), "binomial") == pytest.approx(
        8 * np.log(2)
    )
    same = deviance.deviances(np.array([[1.0, 3.0], [2.0, 6.0]]), "binomial")
    assert same == pytest.approx(0.0, abs=1e-12)
    none = deviance.deviances(np.zeros((3, 2)), "binomial")
    assert not none.any()


def test_markers_deviate_most() -> None:
    method = METHODS["deviance"]
    ranking = method.select(tasks.make_task(method), method.params()).ranking
    planted = set(tasks.gene_names()[: tasks.MARKERS * tasks.N_CLASSES].tolist())
    assert len(planted & set(ranking[:12])) >= 10


def test_binary_scores_by_hand() -> None:
    averages = np.array([[4.0, 0.0, 2.0], [1.0, 0.0, 2.0], [2.0, 3.0, 0.0]])
    # Gene 0 in class 0: (1 - 1/4 + 1 - 2/4) / 2; in class 2: (1 - 1/2) / 2.
    np.testing.assert_allclose(
        nsforest.binary_scores(averages), [[0.625, 0, 0.5], [0, 0, 0.5], [0.25, 1, 0]]
    )
    every = nsforest.threshold(np.array([[1.0, 0, 0], [0, 1, 0]]), np.eye(3)[:2], 1.0)
    assert every == pytest.approx(0.5 + np.std([1, 0, 0, 1], ddof=1)), "the third gene is in none"


def test_f_beta_by_hand() -> None:
    truth, guess = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    # Precision and recall are 2/3, so is every F.
    assert nsforest.f_beta(truth, guess, 0.5) == pytest.approx(2 / 3)
    assert nsforest.f_beta(truth, ~truth, 0.5) == 0
    assert nsforest.f_beta(truth, np.array([1, 0, 0, 0, 0], bool), 0.5) == pytest.approx(5 / 7)


def squares() -> tuple[np.ndarray, np.ndarray]:
    """Class 1 has genes 0 and 1 alike high; class 0 has one of them or none; gene 2 is noise."""
    rng = np.random.default_rng(1)
    kinds = np.arange(80) % 4
    X = np.stack([4.0 * np.isin(kinds, [0, 1]), 4.0 * np.isin(kinds, [0, 2])], axis=1)
    X = np.hstack([X, rng.uniform(1, 1.5, (80, 1))])
    return X.astype(np.float32), (kinds == 0).astype(np.int64)


def test_two_thresholds_together_make_a_class() -> None:
    X, codes = squares()
    params = nsforest.Params(threshold=0.0, n_estimators=10, average="mean")
    averages = nsforest.class_averages(X, codes, np.arange(2), "mean")
    np.testing.assert_allclose(averages[1], X[codes == 1].mean(axis=0), rtol=1e-5)
    binary = nsforest.binary_scores(averages)
    found = nsforest.markers(X, codes == 1, averages[1], binary[1], 0.1, params, 0)
    assert sorted(found.chosen) == [0, 1] and found.f_beta == 1.0
    assert found.others == []
    assert nsforest.markers(X, codes == 1, averages[1], binary[1], 2.0, params, 0).chosen == []


def test_ns_forest_ranks_combinations_first() -> None:
    X, codes = squares()
    target = Target("t", "classification", codes, ("rest", "both"))
    task = Task(X, np.array(["a", "b", "n"]), {"t": target}, k=3, seed=0)
    params = nsforest.Params(threshold=0.5, n_estimators=10, average="mean")
    found = METHODS["ns-forest"].select(task, params)
    assert set(found.ranking[:2]) == {"a", "b"}
    assert found.info["f_beta"]["both"] == 1.0
    alone = Target("t", "classification", codes * 0, ("rest", "both"))
    with pytest.raises(NotApplicable, match="same class"):
        METHODS["ns-forest"].select(Task(X, task.genes, {"t": alone}, k=3, seed=0), params)


# -- geneBasis -----------------------------------------------------------------------------


def test_distance_to_neighbours_by_hand() -> None:
    X = np.array([[0.0, 1.0], [2.0, 1.0], [6.0, 4.0]], dtype=np.float32)
    near = np.array([[1, 2], [0, 2], [0, 1]])
    # Means over neighbours: 4, 3, 1 of the first gene, 2.5, 2.5, 1 of the second.
    apart = np.array([[4, 1, 5], [1.5, 1.5, 3]])
    for p in (1.0, 3.0):
        expected = (apart**p).sum(axis=1) ** (1 / p)
        assert genebasis.unlikeness(X, near, p, block=1) == pytest.approx(expected)


def programmes() -> Task:
    """Three programmes of four genes that vary on their own, and eight genes of noise."""
    rng = np.random.default_rng(3)
    states = rng.integers(0, 2, (150, 3)) * np.array([4.0, 3.0, 2.0])
    X = np.hstack([np.repeat(states, 4, axis=1), np.zeros((150, 8))])
    X = (X + 0.3 * rng.random(X.shape)).astype(np.float32)
    return Task(X, np.array([f"g{i}" for i in range(20)]), {}, k=3, seed=0)


def test_each_gene_brings_a_programme_that_the_panel_lacks() -> None:
    method, task = METHODS["genebasis"], programmes()
    found = method.select(task, method.params())
    programme = [int(gene[1:]) // 4 for gene in found.ranking]
    assert programme == [0, 1, 2], "the strongest first, none twice"
    assert found.info["gain"][0] > found.info["gain"][1] > found.info["gain"][2] > 0
    given = method.select(replace(task, include=("g1", "g6")), method.params())
    assert given.ranking[:2] == ["g1", "g6"] and int(given.ranking[2][1:]) // 4 == 2
    with pytest.raises(NotApplicable, match="fewer than 200 neighbours"):
        method.select(task, method.params(n_neighbors=200))
