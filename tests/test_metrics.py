"""Metrics against hand-counted values, brute force and their definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from panelbench.errors import UnknownName
from panelbench.scoring import metrics

CLASSES = ("a", "b", "c")


def one_hot(codes: list[int], n_classes: int = 3) -> np.ndarray:
    return np.eye(n_classes)[codes]


def test_classification_by_hand() -> None:
    # Class a: 3 cells, 2 found; class b: 1 cell, found; one a is taken for b.
    y_true, y_pred = np.array([0, 0, 0, 1]), [0, 0, 1, 1]
    values = metrics.classification(y_true, one_hot(y_pred), CLASSES)
    assert values["accuracy"] == pytest.approx(3 / 4)
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    f1_a, f1_b = 2 * 1 * (2 / 3) / (1 + 2 / 3), 2 * 0.5 * 1 / 1.5
    assert values["f1_macro"] == pytest.approx((f1_a + f1_b) / 2)
    assert values["f1_weighted"] == pytest.approx((3 * f1_a + f1_b) / 4)


def test_macro_f1_counts_a_class_that_is_only_predicted_and_no_other_absent_one() -> None:
    y_true, y_pred = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    # Class c is predicted but absent: F1 0, it counts. A fourth class would not.
    expected = (2 / 3 + 1 + 0) / 3
    assert metrics.f1_macro(y_true, y_pred) == pytest.approx(expected)
    by_class = metrics.per_class_f1(y_true, y_pred, (*CLASSES, "d"))
    assert by_class == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 0.0}
    assert np.mean(list(by_class.values())) == pytest.approx(expected)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_in_the_test_cells() -> None:
    y_true, y_pred = np.array([0, 0, 1]), np.array([0, 2, 1])
    assert metrics.balanced_accuracy(y_true, y_pred) == pytest.approx((0.5 + 1) / 2)


def test_auroc_and_auprc_are_pair_counts_averaged_over_classes() -> None:
    rng = np.random.default_rng(0)
    y_true = np.repeat([0, 1, 2], 20)
    proba = rng.dirichlet(np.ones(3), size=60) + 0.3 * one_hot(y_true.tolist())

    def area(code: int) -> float:
        inside, outside = proba[y_true == code, code], proba[y_true != code, code]
        return float((inside[:, None] > outside[None, :]).mean())

    def precision(code: int) -> float:
        hits = (y_true == code)[np.argsort(-proba[:, code])]
        at = np.flatnonzero(hits)
        return float(np.mean((np.arange(len(at)) + 1) / (at + 1)))

    assert metrics.auroc(y_true, proba) == pytest.approx(np.mean([area(c) for c in range(3)]))
    assert metrics.auprc(y_true, proba) == pytest.approx(np.mean([precision(c) for c in range(3)]))


def test_an_absent_class_is_left_out_with_a_note() -> None:
    y_true = np.array([0, 0, 1, 1])
    proba = np.array([[0.9, 0.1, 0.0], [0.3, 0.3, 0.4], [0.2, 0.8, 0.0], [0.1, 0.4, 0.5]])
    with_c = metrics.auroc(y_true, proba)
    assert with_c == pytest.approx(metrics.auroc(y_true, proba[:, :2]))
    assert metrics.classification_notes(y_true, CLASSES) == [
        "left out of AUROC and AUPRC (no test cells): c"
    ]
    assert metrics.classification_notes(np.array([0, 1, 2]), CLASSES) == []


def test_one_class_in_the_test_cells_leaves_areas_undefined() -> None:
    values = metrics.classification(np.array([1, 1]), one_hot([1, 0]), CLASSES)
    assert "auroc" not in values
    assert "auprc" not in values
    assert values["accuracy"] == 0.5
    assert len(metrics.classification_notes(np.array([1, 1]), CLASSES)) == 2


def test_confusion_has_a_row_and_column_for_every_class() -> None:
    matrix = metrics.confusion(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("y_true", "proba", "said"),
    [
        ([0, 1], np.ones((3, 3)), "shape"),
        ([0, 1], np.ones((2, 2)), "shape"),
        ([0, -1], np.ones((2, 3)), "missing"),
        ([0, 3], np.ones((2, 3)), "no code"),
        ([0, 1], np.full((2, 3), np.nan), "finite"),
        ([], np.ones((0, 3)), "no test cells"),
    ],
)
def test_rubbish_is_refused(y_true: list[int], proba: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.classification(np.array(y_true, dtype=int), proba, CLASSES)


def test_regression_agrees_with_numpy() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(50, 3))
    guess = truth + rng.normal(size=(50, 3))
    values = metrics.regression(truth, guess)
    r = [np.corrcoef(truth[:, i], guess[:, i])[0, 1] for i in range(3)]
    assert metrics.pearson_per_output(truth, guess) == pytest.approx(r)
    assert values["pearson"] == pytest.approx(np.mean(r))
    assert values["mse"] == pytest.approx(((truth - guess) ** 2).mean())
    explained = 1 - ((truth - guess) ** 2).sum(axis=0) / ((truth - truth.mean(0)) ** 2).sum(axis=0)
    assert values["r2"] == pytest.approx(explained.mean())


def test_a_constant_prediction_scores_0_and_a_constant_truth_does_not_count() -> None:
    truth = np.column_stack([np.arange(5.0), np.arange(5.0), np.full(5, 0.1)])
    guess = np.column_stack([np.arange(5.0), np.full(5, 0.1), np.arange(5.0)])
    np.testing.assert_allclose(metrics.pearson_per_output(truth, guess), [1, 0, np.nan])
    assert metrics.pearson(truth, guess) == pytest.approx(0.5)
    flat = np.ones(4)
    assert set(metrics.regression(flat, np.arange(4.0))) == {"mse"}


def test_jaccard_is_the_mean_over_pairs() -> None:
    panels = [["a", "b"], ["b", "c"], ["a", "b"]]
    assert metrics.jaccard(panels) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert np.isnan(metrics.jaccard(panels[:1]))


def test_stability_is_kunchevas_index_for_panels_of_one_size() -> None:
    rng = np.random.default_rng(2)
    genes, k, n = [f"g{i}" for i in range(40)], 8, 40
    panels = [rng.choice(genes, k, replace=False).tolist() for _ in range(5)]
    # Nogueira et al. 2018 prove that theirs equals Kuncheva's for panels of one size.
    pairs = [len({*a} & {*b}) for a, b in combinations(panels, 2)]
    kuncheva = np.mean([(r - k * k / n) / (k - k * k / n) for r in pairs])
    assert metrics.stability(panels, n).value == pytest.approx(kuncheva)


def test_stability_of_equal_panels_is_1_and_of_random_ones_0_on_average() -> None:
    same = metrics.stability([["a", "b"]] * 3, 10)
    assert same == pytest.approx((1.0, 1.0, 1.0))
    rng = np.random.default_rng(3)
    genes = [f"g{i}" for i in range(30)]
    values, covered = [], 0
    for _ in range(200):
        panels = [rng.choice(genes, rng.integers(5, 15), replace=False) for _ in range(20)]
        found = metrics.stability(panels, len(genes))
        values.append(found.value)
        covered += found.low <= 0 <= found.high
    assert abs(np.mean(values)) < 0.01
    # A 95% interval of an asymptotic formula, with 20 repetitions.
    assert 0.85 <= covered / 200 <= 1.0


def test_stability_interval_is_as_wide_as_the_jackknife_says() -> None:
    rng = np.random.default_rng(6)
    genes = np.array([f"g{i}" for i in range(30)])
    # Some genes are nearly always chosen, and panels have unlike sizes.
    chance = np.repeat([0.9, 0.3, 0.05], 10)
    panels = [genes[rng.random(30) < chance ** rng.uniform(0.5, 2)].tolist() for _ in range(300)]
    found = metrics.stability(panels, 30)
    left_out = [metrics.stability(panels[:i] + panels[i + 1 :], 30).value for i in range(300)]
    jackknife = np.sqrt(299 / 300 * ((left_out - np.mean(left_out)) ** 2).sum())
    assert found.value > 0.3
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(jackknife, rel=0.02)


def test_stability_is_undefined_without_choice() -> None:
    assert np.isnan(metrics.stability([["a", "b"], ["a", "b"]], 2).value)
    assert np.isnan(metrics.stability([["a"]], 5).value)
    with pytest.raises(ValueError, match="more than"):
        metrics.stability([["a", "b"], ["c", "d"]], 3)


def test_redundancy_is_the_mean_absolute_correlation() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 5)).astype(np.float32)
    X[:, 1] = -X[:, 0]
    expected = np.abs(np.corrcoef(X.T))[np.triu_indices(5, 1)].mean()
    assert metrics.redundancy(X) == pytest.approx(expected, abs=1e-6)
    assert metrics.redundancy(sparse.csr_matrix(X)) == pytest.approx(expected, abs=1e-6)
    constant = np.column_stack([X[:, 0], np.full(60, 0.1)])
    assert metrics.redundancy(constant) == 0
    assert np.isnan(metrics.redundancy(X[:, :1]))


def test_marker_recovery_counts_only_markers_that_could_be_found() -> None:
    markers = {"T": ["CD3D", "CD3E"], "B": ["MS4A1"], "fish": ["unmeasured"]}
    values = metrics.marker_recovery(
        ["CD3D", "LYZ"], markers, genes=["CD3D", "CD3E", "MS4A1", "LYZ"]
    )
    assert values == {
        "marker_recall": pytest.approx(1 / 3),
        "marker_precision": 0.5,
        "marker_classes": 0.5,
    }
    assert metrics.marker_recovery(["LYZ"], {"x": ["y"]}, genes=["LYZ"]) == {}


def test_metrics_name_what_the_functions_return() -> None:
    rng = np.random.default_rng(5)
    classified = metrics.classification(np.array([0, 1, 2]), rng.dirichlet([1, 1, 1], 3), CLASSES)
    regressed = metrics.regression(rng.normal(size=9), rng.normal(size=9))
    for values, kind in ((classified, "classification"), (regressed, "regression")):
        known = {item.id for item in metrics.METRICS.values() if item.kind == kind}
        assert set(values) == known


def test_an_unknown_metric_lists_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="f1_macro"):
        metrics.metric("f1_makro")
