"""Evaluators that train on the panel: shapes, class order, seeds, and the library's models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panelbench.errors import ConfigError, NotApplicable, UnknownName
from panelbench.evaluator import Scores
from panelbench.method import Target
from panelbench.params import validated, variant_name
from panelbench.registry import discover_evaluators
from tests.evaluations import simple

FOUND = discover_evaluators()
DOWNSTREAM = [name for name, item in FOUND.declared.items() if item.noisy and not item.kind]


def params(name: str, given: dict[str, Any]) -> Any:
    return validated(FOUND.get(name).params, given, f"evaluator {name}")


def score(
    name: str, train: Any, y: Any, test: Any, truth: Any, given: Any = None, **more: Any
) -> Scores:
    evaluation = simple(train, y, test, truth, **{"n_classes": 4, **more})
    return FOUND.get(name).score(evaluation, params(name, given or {}))


def fit(name: str, train: Any, y: Any, test: Any, **more: Any) -> np.ndarray:
    """What an evaluator predicts; the labels of the test cells are any."""
    truth = more.pop("truth", np.zeros(len(test), dtype=np.int64))
    found = score(name, train, y, test, truth, **more).predicted
    assert found is not None
    return found


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three separable classes out of four (code 1 is absent) on six genes of unlike scale."""
    rng = np.random.default_rng(0)
    codes = np.array([0, 2, 3])
    y = codes[np.arange(240) % 3]
    X = rng.normal(size=(240, 6)).astype(np.float32)
    X[:, 0] += 3 * (y == 2)
    X[:, 1] += 3 * (y == 3)
    X *= np.array([1, 1, 1, 1, 1, 100], dtype=np.float32)
    return X[:160], y[:160], X[160:], y[160:]


def test_those_that_train_on_labels_are_known() -> None:
    assert {"rf", "knn", "logreg"} <= set(DOWNSTREAM)


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_probabilities_stand_in_the_columns_of_their_codes(name: str, cells: Any) -> None:
    train, y, test, truth = cells
    proba = fit(name, train, y, test)
    assert proba.shape == (80, 4)
    assert (proba[:, 1] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == truth).mean() > 0.8


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_scores_are_those_of_the_predictions(name: str, cells: Any) -> None:
    train, y, test, truth = cells
    found = score(name, train, y, test, truth)
    assert found.predicted is not None and found.confusion is not None
    guess = found.predicted.argmax(axis=1)
    assert found.metrics["accuracy"] == (guess == truth).mean()
    assert found.confusion[2, 3] == ((truth == 2) & (guess == 3)).sum()
    assert found.confusion.sum() == len(truth)
    assert any("T 1" in note for note in found.notes), "class 1 has no test cell"
    assert set(found.per_class_f1) == {"T 0", "T 2", "T 3"}


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_only_the_panels_genes_are_read_in_its_order(name: str, cells: Any) -> None:
    train, y, test, _ = cells
    panel = ["g1", "g0"]
    found = fit(name, train, y, test, panel=panel)
    alone = fit(name, train[:, [1, 0]], y, test[:, [1, 0]])
    np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_sparse_and_dense_panels_score_the_same(name: str, cells: Any) -> None:
    train, y, test, _ = cells
    sparser = np.where(np.abs(train) < 0.5, 0, train), np.where(np.abs(test) < 0.5, 0, test)
    dense = fit(name, sparser[0], y, sparser[1])
    np.testing.assert_allclose(fit(name, sparser[0], y, sparser[1], sparse=True), dense, rtol=1e-9)


def test_the_forest_is_the_librarys_with_the_seed_as_its_random_state(cells: Any) -> None:
    from sklearn.ensemble import RandomForestClassifier

    train, y, test, _ = cells
    theirs = RandomForestClassifier(random_state=7).fit(train, y).predict_proba(test)
    ours = fit("rf", train, y, test, seed=7)
    assert (ours[:, [0, 2, 3]] == theirs).all()
    assert not (fit("rf", train, y, test, seed=8) == ours).all()


def test_the_forest_adds_up_its_trees_in_one_order_on_any_number_of_threads(cells: Any) -> None:
    train, y, test, _ = cells
    # Mixed leaves give fractions, whose sum depends on the order in which they are added.
    given = {"min_samples_leaf": 7, "n_estimators": 300}
    first = fit("rf", train, y, test, given=given)
    for _ in range(3):
        assert (fit("rf", train, y, test, given=given, n_jobs=8) == first).all()


def test_neighbours_measure_standardised_columns(cells: Any) -> None:
    train, y, test, _ = cells
    # The sixth gene is noise a hundred times as large as the others.
    scaled = train * np.array([1, 8, 1, 1, 1, 1 / 64]), test * np.array([1, 8, 1, 1, 1, 1 / 64])
    assert (fit("knn", scaled[0], y, scaled[1]) == fit("knn", train, y, test)).all()


def test_neighbours_are_standardised_by_the_training_cells_alone(cells: Any) -> None:
    train, y, test, _ = cells
    alone = fit("knn", train, y, test[:1])
    shifted = np.vstack([test[:1], test[1:] * 1000])
    assert (fit("knn", train, y, shifted)[:1] == alone).all()


def test_fewer_training_cells_than_neighbours_all_vote() -> None:
    X = np.array([[0.0], [1.0], [2.0]])
    proba = fit("knn", X, [0, 0, 1], X, n_classes=2)
    np.testing.assert_allclose(proba, [[2 / 3, 1 / 3]] * 3)


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_a_single_training_class_is_predicted_with_certainty(name: str) -> None:
    X = np.arange(12.0).reshape(6, 2)
    proba = fit(name, X, np.full(6, 2), X)
    np.testing.assert_array_equal(proba, np.eye(4)[[2] * 6])


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_a_constant_gene_does_no_harm(name: str, cells: Any) -> None:
    train, y, test, truth = cells
    padded = [np.column_stack([X, np.ones(len(X))]) for X in (train, test)]
    proba = fit(name, padded[0], y, padded[1])
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == truth).mean() > 0.8


@pytest.mark.parametrize("name", ["rf", "knn"])
@pytest.mark.parametrize("outputs", [None, 2])
def test_regression_keeps_the_shape_of_the_targets(
    name: str, outputs: int | None, cells: Any
) -> None:
    train, _, test, _ = cells
    y, truth = (
        Target("t", "regression", (X[:, 0] if outputs is None else X[:, :outputs]).astype(float))
        for X in (train, test)
    )
    found = score(name, train, y, test, truth)
    assert found.predicted is not None
    assert found.predicted.shape == truth.values.shape
    assert np.corrcoef(found.predicted.ravel(), truth.values.ravel())[0, 1] > 0.7
    assert found.metrics["r2"] > 0.5 and found.confusion is None


def test_logistic_regression_declines_a_regression_task(cells: Any) -> None:
    train, _, test, _ = cells
    y, truth = (Target("t", "regression", X[:, 0].astype(float)) for X in (train, test))
    with pytest.raises(NotApplicable, match="use rf or knn"):
        score("logreg", train, y, test, truth)


def test_parameters_reach_the_model(cells: Any) -> None:
    train, y, test, _ = cells
    few = fit("rf", train, y, test, given={"n_estimators": 3})
    assert set(np.unique(few)) <= {0, 1 / 3, 2 / 3, 1}
    one = fit("knn", train, y, test, given={"n_neighbors": 1})
    assert set(np.unique(one)) == {0, 1}
    weak = fit("logreg", train, y, test, given={"C": 1e-6})
    assert weak.max() < 0.4


def test_names_with_parameters() -> None:
    assert variant_name("rf", params("rf", {"n_estimators": 100})) == "rf"
    assert variant_name("rf", params("rf", {"n_estimators": 500})) == "rf[n_estimators=500]"


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="knn"):
        FOUND.get("knnn")
    with pytest.raises(UnknownName, match="n_neighbors"):
        params("knn", {"n_neighbours": 3})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("knn", {"n_neighbors": "many"}),
        ("knn", {"n_neighbors": 0}),
        ("rf", {"n_estimators": 0}),
        ("rf", {"max_depth": 0}),
        ("logreg", {"C": 0}),
        ("umap", {"n_neighbors": 1}),
        ("robustness", {"share": 0}),
        ("robustness", {"share": 1.5}),
        ("neighbours", {"sizes": []}),
    ],
)
def test_parameters_out_of_their_range_are_named(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"evaluator {name}: parameter {next(iter(given))}"):
        params(name, given)


# -- genes that are lost -------------------------------------------------------------------


def test_genes_are_lost_at_the_test_only() -> None:
    """Two genes of which one is lost: by hand.

    Gene g0 tells the classes apart, g1 is constant, and a forest reads g0 alone. A draw that
    loses g1 changes nothing (macro F1 of 1); one that loses g0 makes every cell look like class
    0, with F1 of 2/3 and 0, on average 1/3.
    """
    X, y = np.array([[0.0, 1.0]] * 4 + [[5.0, 1.0]] * 4), np.repeat([0, 1], 4)
    given = {"share": 0.5, "draws": 20, "n_estimators": 5}
    found = score("robustness", X, y, X, y, given=given, n_classes=2)
    rng = simple(X, y, X, y).rng("lost genes")
    lost = np.array([rng.choice(2, size=1, replace=False)[0] for _ in range(20)])
    assert 0 < (lost == 0).sum() < 20
    share = (lost == 0).mean()
    assert found.metrics["f1_lost"] == pytest.approx(1 - share * 2 / 3)
    assert found.metrics["f1_fall"] == pytest.approx(share * 2 / 3)
    assert found.metrics["f1_fall_worst"] == pytest.approx(2 / 3)


def test_a_lost_gene_of_scaled_values_reads_as_undetected() -> None:
    # Scaled values: -2 is a cell without a count, 0 is the mean and would look like class 1.
    X, y = np.array([[-2.0]] * 6 + [[1.0]] * 4), np.repeat([0, 1], [6, 4])
    given = {"share": 1.0, "draws": 1, "n_estimators": 5}
    found = score("robustness", X, y, X, y, given=given, n_classes=2)
    assert found.predicted is not None
    assert (found.predicted.argmax(axis=1) == 0).all()


def test_another_seed_loses_other_genes(cells: Any) -> None:
    train, y, test, truth = cells
    given = {"share": 0.3, "draws": 2, "n_estimators": 10}
    first, second = (
        score("robustness", train, y, test, truth, given=given, seed=seed) for seed in (0, 1)
    )
    assert first.metrics != second.metrics
    whole = score("rf", train, y, test, truth, given={"n_estimators": 10}).metrics["f1_macro"]
    assert whole < 1
    assert first.metrics["f1_lost"] + first.metrics["f1_fall"] == pytest.approx(whole)
    assert "2 of 6 genes lost, 2 draws" in first.notes


# -- neighbourhoods ------------------------------------------------------------------------

LINE = np.array([0.0, 1.0, 3.0, 7.0])
"""Cells on a line. Nearest: 0-1, 1-0, 2-1, 3-2; the two nearest of 0: 1 and 2."""
SWAPPED = np.array([0.0, 3.0, 1.0, 7.0])
"""The same with cells 1 and 2 in each other's place. Nearest: 0-2, 1-2, 2-0, 3-1."""


def test_redundancy_is_that_of_the_panels_genes_on_test_cells() -> None:
    # The first two genes are opposites, the third correlates with neither.
    test = np.array([[0, 3, 1, 9], [1, 2, 0, 1], [2, 1, 0, 9], [3, 0, 1, 1]], dtype=float)
    train, y, truth = np.zeros((4, 4)), np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1])
    found = score("redundancy", train, y, test, truth, panel=["g0", "g1", "g2"])
    assert found.metrics == {
        "redundancy": pytest.approx(1 / 3),
        "redundancy_max": pytest.approx(1.0),
    }
    assert score("redundancy", train, y, test, truth, panel=["g0"]).metrics == {}


def test_common_neighbours_by_hand() -> None:
    from panelbench.scoring.neighbours import nearest, overlap

    full, panel = LINE[:, None], SWAPPED[:, None]
    assert nearest(full, 1).ravel().tolist() == [1, 0, 1, 2]
    assert nearest(panel, 1).ravel().tolist() == [2, 2, 0, 1]
    assert overlap(full, full, [1, 2, 3]) == 1.0
    # k = 1: none. k = 2: {1,2}{2,1}, {0,2}{2,0}, {1,0}{0,1}, {2,1}{1,2}: all. k = 3: all.
    assert overlap(full, panel, [1]) == 0.0
    assert overlap(full, panel, [1, 2, 3]) == pytest.approx(2 / 3)
    # With a far cell, whose neighbours are 3, 2 and 3, 1: 1/5 at k = 1, 9/10 at 2, 1 at 4.
    far = [np.append(side, 100.0)[:, None] for side in (LINE, SWAPPED)]
    # Between 2 and 4 a straight line: 19/20 at 3.
    assert overlap(*far, [1, 2, 4]) == pytest.approx((1 / 5 + 9 / 10 + 19 / 20 + 1) / 4)


def test_preserved_neighbourhoods_by_hand() -> None:
    from panelbench.scoring.neighbours import preservation

    full, panel = LINE[:, None], SWAPPED[:, None]
    np.testing.assert_allclose(preservation(full, full, 1), 1.0)
    # Mean distances to the others: 11/3, 3, 3, 17/3. Nearest: 1, 1, 2, 4. By the panel: 3 (0-2),
    # 2 (1-2), 3 (2-0), 6 (3-1).
    expected = [(11 / 3 - 3) / (11 / 3 - 1), (3 - 2) / (3 - 1), 0.0, (17 / 3 - 6) / (17 / 3 - 4)]
    np.testing.assert_allclose(preservation(full, panel, 1), expected, atol=1e-9)


def test_cells_that_are_all_alike_have_no_neighbourhood() -> None:
    from panelbench.scoring.neighbours import preservation

    assert np.isnan(preservation(np.zeros((4, 2)), LINE[:, None], 1)).all()


def test_a_panel_of_all_that_varies_keeps_every_neighbour(cells: Any) -> None:
    train, y, test, truth = cells
    padded = [np.column_stack([X, np.ones((len(X), 2))]) for X in (train, test)]
    panel = [f"g{i}" for i in range(6)]
    # One constant gene more, since a panel has one component less than genes.
    found = score("neighbours", padded[0], y, padded[1], truth, panel=[*panel, "g6"]).metrics
    assert found["knn_overlap"] == pytest.approx(1.0)
    assert found["knn_preservation"] == pytest.approx(1.0)
    fewer = score("neighbours", padded[0], y, padded[1], truth, panel=panel).metrics
    assert fewer["knn_overlap"] < 1 and fewer["knn_preservation"] == pytest.approx(1.0)
    worse = score("neighbours", padded[0], y, padded[1], truth, panel=["g0", "g1"]).metrics
    assert worse["knn_overlap"] < 0.7
    assert worse["knn_preservation_low"] < worse["knn_preservation"] < 0.7


def test_of_many_cells_some_are_drawn(cells: Any) -> None:
    train, y, test, truth = cells
    found = score("neighbours", train, y, test, truth, given={"max_cells": 40})
    assert found.notes == ["40 of 80 test cells"]
    with pytest.raises(NotApplicable, match="fewer than 30"):
        score("neighbours", train, y, test, truth, given={"max_cells": 30})
