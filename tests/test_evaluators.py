"""Evaluators: shapes, class order, seeds, and that they are the library's models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from panelbench.errors import ConfigError, NotApplicable, UnknownName
from panelbench.scoring.evaluators import EVALUATORS, get, make_params, variant

DOWNSTREAM = [name for name, item in EVALUATORS.items() if item.fit_predict is not None]


def fit(name: str, train: Any, y: np.ndarray, test: Any, **changes: Any) -> np.ndarray:
    given = {"kind": "classification", "n_classes": 4, "seed": 0, "n_jobs": 1} | changes
    given.setdefault("params", get(name).params())
    function = get(name).fit_predict
    assert function is not None
    return function(train, y, test, **given)


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


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_probabilities_stand_in_the_columns_of_their_codes(name: str, cells: Any) -> None:
    train, y, test, truth = cells
    proba = fit(name, train, y, test)
    assert proba.shape == (80, 4)
    assert (proba[:, 1] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == truth).mean() > 0.8


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_sparse_and_dense_panels_score_the_same(name: str, cells: Any) -> None:
    train, y, test, _ = cells
    sparser = np.where(np.abs(train) < 0.5, 0, train), np.where(np.abs(test) < 0.5, 0, test)
    dense = fit(name, sparser[0], y, sparser[1])
    assert (
        fit(name, sparse.csr_matrix(sparser[0]), y, sparse.csr_matrix(sparser[1])) == dense
    ).all()


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_neither_threads_nor_global_seeds_change_the_result(name: str, cells: Any) -> None:
    train, y, test, _ = cells
    first = fit(name, train, y, test)
    kept = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(99)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        assert (fit(name, train, y, test, n_jobs=2) == first).all()
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    finally:
        np.random.set_state(kept)  # noqa: NPY002


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
    params = make_params("rf", {"min_samples_leaf": 7, "n_estimators": 300})
    first = fit("rf", train, y, test, params=params)
    for _ in range(3):
        assert (fit("rf", train, y, test, params=params, n_jobs=8) == first).all()


def test_neighbours_measure_standardised_columns(cells: Any) -> None:
    train, y, test, _ = cells
    # The sixth gene is noise a hundred times as large as the others.
    scaled = train * np.array([1, 10, 1, 1, 1, 0.01]), test * np.array([1, 10, 1, 1, 1, 0.01])
    assert (fit("knn", *(scaled[0], y, scaled[1])) == fit("knn", train, y, test)).all()


def test_neighbours_are_standardised_by_the_training_cells_alone(cells: Any) -> None:
    train, y, test, _ = cells
    alone = fit("knn", train, y, test[:1])
    shifted = np.vstack([test[:1], test[1:] * 1000])
    assert (fit("knn", train, y, shifted)[:1] == alone).all()


def test_fewer_training_cells_than_neighbours_all_vote() -> None:
    X = np.array([[0.0], [1.0], [2.0]])
    proba = fit("knn", X, np.array([0, 0, 1]), X, n_classes=2)
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
    y = train[:, 0] if outputs is None else train[:, :outputs]
    truth = test[:, 0] if outputs is None else test[:, :outputs]
    found = fit(name, train, y, test, kind="regression", n_classes=0)
    assert found.shape == truth.shape
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.7


def test_logistic_regression_declines_a_regression_task(cells: Any) -> None:
    train, _, test, _ = cells
    with pytest.raises(NotApplicable, match="use rf or knn"):
        fit("logreg", train, train[:, 0], test, kind="regression")


def test_parameters_reach_the_model(cells: Any) -> None:
    train, y, test, _ = cells
    few = fit("rf", train, y, test, params=make_params("rf", {"n_estimators": 3}))
    assert set(np.unique(few)) <= {0, 1 / 3, 2 / 3, 1}
    one = fit("knn", train, y, test, params=make_params("knn", {"n_neighbors": 1}))
    assert set(np.unique(one)) == {0, 1}
    weak = fit("logreg", train, y, test, params=make_params("logreg", {"C": 1e-6}))
    assert weak.max() < 0.4


def test_names_with_parameters() -> None:
    assert variant("rf", {}) == "rf"
    assert variant("rf", {"n_estimators": 100}) == "rf"
    assert variant("rf", {"n_estimators": 500}) == "rf[n_estimators=500]"
    assert variant("rf", make_params("rf", {"n_estimators": 500})) == "rf[n_estimators=500]"
    assert variant("builtin", {}) == "builtin"


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="knn"):
        get("knnn")
    with pytest.raises(UnknownName, match="n_neighbors"):
        make_params("knn", {"n_neighbours": 3})
    with pytest.raises(ConfigError, match="n_neighbors"):
        make_params("knn", {"n_neighbors": "many"})
