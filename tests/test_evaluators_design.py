"""Ways to score that people who order panels ask for: clusters, groups, noise, lost genes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from panelbench.errors import NotApplicable
from panelbench.evaluator import Scores
from panelbench.scoring.clusterings import agreement, leiden, neighbour_graph, partitions
from panelbench.scoring.detection import Platform, per_panel, thinned
from tests.evaluations import simple
from tests.test_evaluators import FOUND, params, score

Y = np.repeat([0, 1], 10)
TELLS = np.where(Y == 0, 0.0, 5.0)
CONSTANT = np.ones(20)


# -- clusters ------------------------------------------------------------------------------


def staircase(resolution: float) -> np.ndarray:
    """As many clusters of 100 cells as the resolution says, in tenths; never seven."""
    n = max(1, int(10 * resolution))
    return np.arange(100) % (8 if n == 7 else n)


def test_the_resolution_is_searched_for_every_number_of_clusters() -> None:
    asked: list[float] = []

    def cluster(resolution: float) -> np.ndarray:
        asked.append(resolution)
        return staircase(resolution)

    found = partitions(cluster, 3, 12)
    assert sorted(found) == [3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert all(len(np.unique(labels)) == n for n, labels in found.items())
    assert asked[:5] == [1.0, 0.5, 0.25, 2.0, 0.375], "down, up, then between"
    assert len(asked) == len(set(asked)) < 40


def test_partitions_agree_by_hand() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])

    def same(one: np.ndarray, two: np.ndarray) -> float:
        return float(np.array_equal(one, two))

    # Agreement is 1 at 2, 0 at 4 (and so 1/2 at 3), 1 at 6 (1/2 at 5); 7 is as 6. Of 5 to 7: 5/6.
    one, two = {2: a, 4: a, 6: b, 9: a}, {2: a, 4: b, 6: b, 7: a}
    assert agreement(one, two, 2, 6, measure=same) == pytest.approx(3 / 5)
    assert agreement(one, two, 5, 7, measure=same) == pytest.approx(2.5 / 3)
    assert np.isnan(agreement({2: a}, {3: a}, 2, 3, measure=same))


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six groups of cells by the first three genes; three more genes of noise."""
    rng = np.random.default_rng(seed)
    codes = np.arange(180) % 6
    places = np.array([[0, 0, 8], [0, 8, 0], [8, 0, 0], [8, 8, 0], [0, 8, 8], [8, 0, 8]])
    X = np.hstack([places[codes] + rng.normal(size=(180, 3)), rng.normal(size=(180, 3))])
    return X, codes % 3


def test_clusters_of_a_good_panel_are_those_of_all_genes() -> None:
    pytest.importorskip("igraph", reason="needs the library igraph: pip install igraph")
    X, y = blobs()
    graph = neighbour_graph(X, 15)
    state = random.getstate()
    assert np.array_equal(leiden(graph, 2.0, seed=1), leiden(graph, 2.0, seed=1))
    given = {"coarse": [5, 8], "fine": [9, 60]}
    good = score("clusterings", X, y, X, y, given=given, panel=["g0", "g1", "g2"])
    assert random.getstate() == state
    assert good.notes == ["at most 36 clusters of 180 cells"]
    assert set(good.metrics) == {"nmi_coarse", "nmi_fine", "ami_coarse", "ami_fine"}
    noise = score("clusterings", X, y, X, y, given=given, panel=["g3", "g4", "g5"])
    assert good.metrics["nmi_coarse"] > 0.9
    assert abs(noise.metrics["ami_coarse"]) < 0.1 < noise.metrics["nmi_fine"], "NMI flatters"
    few = score("clusterings", X, y, X[:45], y[:45], given=given)
    assert set(few.metrics) == {"nmi_coarse", "ami_coarse", "nmi_fine", "ami_fine"}
    with pytest.raises(NotApplicable, match="20 test cells are too few for 5 clusters"):
        score("clusterings", X, y, X[:20], y[:20], given=given)


# -- groups --------------------------------------------------------------------------------


def grouped(panel: list[str]) -> Scores:
    """Two donors; g0 tells the classes in both, g1 in opposite directions."""
    y, donors = np.tile([0, 1], 20), np.repeat(["a", "b"], 20)
    X = np.stack([5.0 * y, np.where(donors == "a", 5.0 * y, 5.0 - 5.0 * y)], axis=1)
    given = simple(X, y, X, y, n_classes=2, panel=panel)
    sides = [replace(side, groups=donors) for side in (given.train, given.test)]
    given = replace(given, train=sides[0], test=sides[1])
    return FOUND.get("transfer").score(given, params("transfer", {"n_estimators": 15}))


def test_a_gene_that_means_another_class_in_another_donor_does_not_transfer() -> None:
    assert grouped(["g0"]).metrics == {"f1_across": 1.0, "f1_within": 1.0, "f1_across_fall": 0.0}
    found = grouped(["g1"])
    assert found.metrics["f1_across"] == 0
    assert found.metrics["f1_within"] > 0.2
    assert found.metrics["f1_across_fall"] == found.metrics["f1_within"]
    assert found.notes == ["2 groups"]


def test_transfer_needs_groups_on_both_sides() -> None:
    X, y = np.stack([TELLS, CONSTANT], axis=1), Y
    with pytest.raises(NotApplicable, match="needs groups of cells"):
        score("transfer", X, y, X, y)
    given = simple(X, y, X, y)
    sides = [
        replace(given.train, groups=np.full(20, "a")),
        replace(given.test, groups=Y.astype(str)),
    ]
    with pytest.raises(NotApplicable, match="no group is on both sides"):
        FOUND.get("transfer").score(
            replace(given, train=sides[0], test=sides[1]), params("transfer", {})
        )


# -- noise of detection --------------------------------------------------------------------


def test_each_molecule_is_seen_or_not() -> None:
    rng = np.random.default_rng(0)
    found = thinned(np.full((2000, 2), [10, 3]), 0.3, rng)
    assert found.max() <= 10 and (found[:, 1] <= 3).all() and (found % 1 == 0).all()
    np.testing.assert_allclose(found.mean(axis=0), [3.0, 0.9], atol=0.1)
    np.testing.assert_allclose(found.var(axis=0), [2.1, 0.63], atol=0.2)
    assert np.array_equal(thinned(np.full((2, 2), 7.0), 1.0, rng), np.full((2, 2), 7.0))


def test_the_platform_by_its_formula() -> None:
    """Moments of many cells of one kind: those of the negative binomial, times the sizes'."""
    model = Platform(spread=0.0, silent=0.0, size_sd=0.0)
    rng = np.random.default_rng(1)
    gamma, c = model.genes(2, rng)
    np.testing.assert_allclose(gamma, np.exp(4.267))
    np.testing.assert_allclose(c, -3.641)
    share = np.tile([0.001, 0.004], (40_000, 1))
    counts = model.seen(share, gamma, c, rng)
    rate = expit(np.exp(4.267) * np.sqrt(share[0]) - 3.641)
    mean = np.exp(-1.025) * rate * 2 * 169 / 33
    np.testing.assert_allclose(counts.mean(axis=0), mean, rtol=0.05)
    variance = mean + mean**2 / np.exp(-0.093 + rate)
    np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.1)
    unlike, _ = Platform(spread=1.0).genes(5000, rng)
    assert np.log(unlike).std() == pytest.approx(1.298, rel=0.05)
    silent = Platform(silent=1.0).seen(share, gamma, c, rng)
    assert not silent.any()
    sizes = Platform(size_sd=1.0, spread=0.0).seen(share, gamma, c, rng)
    assert sizes.mean() > 1.5 * counts.mean(), "a log-normal mean is above its median"


def test_counts_are_described_by_their_share_of_the_panel() -> None:
    found = per_panel(np.array([[1.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, np.log1p([[25, 75], [0, 0]]), rtol=1e-6)
    assert found.dtype == np.float32


def counted(name: str, **given: Any) -> Scores:
    """Two genes of which each marks one of two classes, four molecules a cell."""
    y = np.arange(400) % 2
    X = np.random.default_rng(2).poisson(np.where(y[:, None] == [0, 1], 4.0, 0.2))
    given = {"n_estimators": 10, "draws": 2} | given
    return score(name, X[:300], y[:300], X[300:], y[300:], given=given, n_classes=2)


def test_what_is_seen_of_few_molecules_tells_less() -> None:
    whole, half, least = (counted("thinning", share=share) for share in (1.0, 0.5, 0.1))
    clean = float(whole.notes[0].split()[3])
    assert whole.metrics["f1_thinned"] == pytest.approx(clean, abs=5e-4)
    assert whole.metrics["f1_thinned_fall"] == pytest.approx(0.0)
    order = [found.metrics["f1_thinned"] for found in (whole, half, least)]
    assert order[0] > order[1] > order[2]
    sum_ = least.metrics["f1_thinned"] + least.metrics["f1_thinned_fall"]
    assert sum_ == pytest.approx(clean, abs=5e-4)


def test_a_platform_sees_some_genes_badly() -> None:
    """Every panel that holds a gene meets it in the same way; small cells tell less."""
    alike = counted("platform", spread=0.0, size_per_gene=1000.0)
    assert alike.metrics["f1_imaged"] > 0.85
    small = counted("platform", spread=0.0, size_per_gene=2.0)
    assert small.metrics["f1_imaged"] < alike.metrics["f1_imaged"]
    assert counted("platform", spread=3.0).metrics != counted("platform", spread=0.0).metrics


# -- genes that are lost -------------------------------------------------------------------


def lost(**given: Any) -> Scores:
    """Of three genes g0 tells the classes, g1 is constant, g2 tells them as g0 does."""
    X = np.stack([TELLS, CONSTANT, TELLS], axis=1)
    given = {"n_estimators": 5} | given
    panel = ["g0", "g1"] if given.pop("two", False) else None
    more = {"panel": panel} if panel else {}
    return score("robustness", X, Y, X, Y, given=given, n_classes=2, **more)


def test_each_gene_is_lost_in_turn() -> None:
    # A forest of two genes reads g0 alone: without it all cells look like class 0, F1 is 1/3.
    found = lost(each=True, two=True)
    assert found.metrics["f1_lost"] == pytest.approx((1 + 1 / 3) / 2)
    assert found.metrics["f1_fall"] == pytest.approx(1 / 3)
    assert found.notes == ["g0 lost costs 0.667"]


def test_a_forest_that_is_retrained_reads_what_is_left() -> None:
    assert lost(each=True, retrained=True).metrics["f1_lost"] == 1.0
    assert lost(each=True, retrained=True, two=True).metrics["f1_fall"] == pytest.approx(1 / 3)
    nothing = lost(share=1.0, draws=1, retrained=True)
    assert nothing.metrics["f1_lost"] == pytest.approx(1 / 3), "no gene is left to train on"
    drawn = lost(share=0.34, draws=6, retrained=True)
    assert drawn.metrics["f1_fall"] == 0 and "1 of 3 genes lost, 6 draws" in drawn.notes
