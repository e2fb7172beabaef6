"""Ways to score a panel that train no classifier: markers, load, genes predicted by neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from panelbench.errors import NotApplicable
from panelbench.scoring.markers import pair_auroc
from panelbench.scoring.neighbours import neighbour_correlation
from tests.test_evaluators import score

Y = np.repeat([0, 1, 2], 4)
#           class 0      class 1      class 2
MARKS_0 = [5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 1, 0]
MARKS_2 = [0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 5, 6]
NOTHING = [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
TEST = np.array([MARKS_0, MARKS_2, NOTHING], dtype=np.float32).T


def test_coverage_by_hand() -> None:
    found = score("coverage", TEST, Y, TEST, Y, given={"markers": 1})
    # Class 1 has no gene of its own; every pair is told apart by one of the others' genes. The
    # fourth class has no cells.
    assert found.metrics == {
        "class_coverage": pytest.approx(2 / 3), "pair_coverage": 1.0,
        "n_markers": pytest.approx(2 / 3),
    }  # fmt: skip
    assert found.notes == ["fewer than 1 markers: T 1"]
    one = score("coverage", TEST, Y, TEST, Y, given={"markers": 1}, panel=["g0"])
    assert one.metrics["pair_coverage"] == pytest.approx(2 / 3)
    assert one.notes[1] == "no gene tells apart: T 1 and T 2"
    two = score("coverage", TEST, Y, TEST, Y, given={"markers": 2})
    assert two.metrics["class_coverage"] == 0
    rare = score("coverage", TEST * (np.arange(12) % 4 == 0)[:, None], Y,
                 TEST * (np.arange(12) % 4 == 0)[:, None], Y,
                 given={"markers": 1, "auroc": 0.5, "detection": 0.25})  # fmt: skip
    assert rare.metrics["n_markers"] == 0, "seen in a quarter of the cells, and no more"


def test_coverage_needs_two_classes() -> None:
    found = score("coverage", TEST, Y, TEST[:4], Y[:4])
    assert found.metrics == {} and found.notes == ["the test cells are all of one class"]


def test_pairs_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    values, codes = rng.poisson(1.0, (50, 3)).astype(float), rng.integers(0, 3, 50)
    found = pair_auroc(values, codes, 4)
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    for (a, b), value in found.items():
        rows = np.isin(codes, [a, b])
        each = [roc_auc_score(codes[rows] == b, values[rows, g]) for g in range(3)]
        assert value == pytest.approx(max(max(x, 1 - x) for x in each), abs=1e-12)


def test_load_by_hand() -> None:
    found = score("load", TEST, Y, TEST, Y)
    # Class 0: 6.5 + 0 + 0.5; class 1: 0.25 + 0.5; class 2: 0.25 + 4.5 + 0.5.
    assert found.metrics == {
        "load_max": pytest.approx(7.0), "load_mean": pytest.approx((28 + 3 + 21) / 12),
        "load_top_gene": pytest.approx(6.5 / 7),
    }  # fmt: skip
    assert found.notes == ["highest in T 0: g0 93%, g2 7%"]
    half = score("load", TEST, Y, TEST, Y, given={"efficiency": 0.5, "share": 0.5})
    assert half.metrics["load_max"] == pytest.approx(3.5) and half.notes == [
        "highest in T 0: g0 93%"
    ]
    assert score("load", TEST, Y, 0 * TEST, Y).metrics == {"load_max": 0.0, "load_mean": 0.0}


def test_correlation_with_neighbours_is_spearmans() -> None:
    rng = np.random.default_rng(2)
    X, near = rng.normal(size=(30, 5)), rng.integers(0, 30, (30, 4))
    X[:, 4] = 1.0
    found = neighbour_correlation(X, near, block=2)
    for gene in range(4):
        expected = spearmanr(X[:, gene], X[near, gene].mean(axis=1)).statistic
        assert found[gene] == pytest.approx(max(expected, 1e-5), abs=1e-12)
    assert found[4] == 1e-5, "a gene without variance"


def test_neighbours_by_all_genes_tell_all_there_is() -> None:
    rng = np.random.default_rng(3)
    state = rng.normal(size=(90, 1))
    X = np.hstack([state + 0.3 * rng.normal(size=(90, 4)), rng.normal(size=(90, 2))])
    y, noise = np.arange(90) % 3, ["g4", "g5"]
    whole = score("gene-prediction", X, y, X, y)
    assert whole.metrics["gene_prediction"] == pytest.approx(1.0)
    assert "of 6 genes can be predicted at all" in whole.notes[0]
    one = score("gene-prediction", X, y, X, y, panel=["g0"]).metrics["gene_prediction"]
    bad = score("gene-prediction", X, y, X, y, panel=noise).metrics["gene_prediction"]
    assert 0 < bad < 0.5 < one
    drawn = score("gene-prediction", X, y, X, y, given={"max_cells": 40})
    assert drawn.notes[1] == "40 of 90 test cells"
    apart = rng.normal(size=(90, 20))
    none = score("gene-prediction", apart, y, apart, y, given={"least": 0.9})
    assert none.metrics == {} and none.notes == ["0 of 20 genes can be predicted at all"]
    with pytest.raises(NotApplicable, match="fewer than 5"):
        score("gene-prediction", X, y, X[:5], y[:5])
