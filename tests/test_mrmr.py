"""mRMR: the library's choices, on dense and sparse matrices."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panelbench.methods.mrmr import (
    FLOOR,
    Columns,
    Params,
    f_statistic,
    greedy_mrmr,
    select_by_f,
    select_by_forest,
)

from panelbench.errors import NotApplicable
from panelbench.method import Target, Task

LIBRARY = Params(backend="library")


def planted(n: int = 400, d: int = 90, classes: int = 4, seed: int = 0) -> Task:
    """Log counts in which each class raises ten genes."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=n)
    fold = np.ones((classes, d))
    for kind in range(classes):
        fold[kind, kind * 10 : (kind + 1) * 10] = rng.uniform(1.5, 5, 10)
    counts = rng.poisson(rng.lognormal(0, 0.4, (n, 1)) * rng.lognormal(-0.5, 1, d) * fold[codes])
    return classify(np.log1p(counts), codes, k=20)


def classify(X: Any, codes: np.ndarray, k: int, **more: Any) -> Task:
    classes = tuple(map(str, range(codes.max() + 1)))
    return task(X, Target("type", "classification", codes.astype(np.int64), classes), k, **more)


def regress(X: Any, values: np.ndarray, k: int) -> Task:
    return task(X, Target("signal", "regression", values), k)


def task(X: Any, target: Target, k: int, **more: Any) -> Task:
    if isinstance(X, np.ndarray):
        X = np.ascontiguousarray(X, dtype=np.float32)
        X.setflags(write=False)
    genes = np.array([f"g{j}" for j in range(X.shape[1])])
    return Task(X=X, genes=genes, targets={target.name: target}, k=k, seed=0, **more)


def as_csr(dense: Task) -> Task:
    from scipy import sparse

    return task(sparse.csr_matrix(dense.X), dense.target, dense.k)


def textbook(X: np.ndarray, relevance: np.ndarray, k: int) -> list[int]:
    """The greedy rule, all in float64 and with the whole correlation matrix."""
    redundancy = np.maximum(np.abs(np.corrcoef(X.T.astype(np.float64))), FLOOR)
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < k:
        scores = relevance / redundancy[:, chosen].mean(axis=1)
        scores[chosen] = -1
        chosen.append(int(np.argmax(scores)))
    return chosen


@pytest.mark.parametrize("select", [select_by_f, select_by_forest])
def test_choices_are_the_librarys(select: Any) -> None:
    given = planted()
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.parametrize("select", [select_by_f, select_by_forest])
def test_choices_are_the_librarys_for_regression(select: Any) -> None:
    given = planted(n=250, d=60)
    X = np.asarray(given.X)
    noise = np.random.default_rng(1).normal(size=250)
    given = regress(X, X[:, 3] + 0.5 * X[:, 20] - X[:, 41] + noise, k=15)
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.slow
@pytest.mark.parametrize("select", [select_by_f, select_by_forest])
def test_choices_are_the_librarys_on_citeseq(select: Any, shared: Path) -> None:
    from scipy.io import loadmat

    counts = loadmat(shared / "mirror" / "CITEseq.mat")["G"].T[::8].astype(np.float32)
    file = loadmat(shared / "mirror" / "CITEseq-labels.mat")
    labels = next(value for key, value in file.items() if not key.startswith("__")).ravel()[::8]
    X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)
    given = classify(X, np.unique(labels, return_inverse=True)[1], k=12)
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.slow
def test_choices_are_the_librarys_on_pbmc68k() -> None:
    import scanpy as sc

    data = sc.datasets.pbmc68k_reduced()
    codes = data.obs["bulk_labels"].cat.codes.to_numpy()
    given = classify(data.raw.X[:, ::3].toarray(), codes, k=12)
    assert select_by_f(given, Params()).ranking == select_by_f(given, LIBRARY).ranking


@pytest.mark.parametrize("select", [select_by_f, select_by_forest])
def test_sparse_matrices_give_the_same(select: Any) -> None:
    # More cells than one product takes at a time.
    dense = planted(n=2500, d=60)
    sparse = as_csr(dense)
    ours, theirs = select(dense, Params()), select(sparse, Params())
    assert ours.ranking == theirs.ranking
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)


def test_the_first_genes_do_not_depend_on_k() -> None:
    given = planted()
    few = task(given.X, given.target, 7)
    assert select_by_f(few, Params()).ranking == select_by_f(given, Params()).ranking[:7]


def test_f_statistics_are_scikit_learns() -> None:
    from sklearn.feature_selection import f_classif, f_regression

    given = planted()
    X = np.asarray(given.X, dtype=np.float64)
    expected = f_classif(X, given.target.values)[0]
    for version in (given, as_csr(given)):
        got = f_statistic(version, Columns(version.X))
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    values = X[:, 0] + np.random.default_rng(0).normal(size=len(X))
    numbers = regress(X, values, k=3)
    got = f_statistic(numbers, Columns(numbers.X))
    np.testing.assert_allclose(got, f_regression(X, values)[0], rtol=1e-8, atol=1e-12)


def test_a_gene_that_separates_the_classes_is_infinitely_relevant_but_scored_finitely() -> None:
    given = planted()
    X = np.array(given.X)
    X[:, 50] = (given.target.values == 2) * np.float32(0.1)
    given = classify(X, given.target.values == 2, k=5)
    assert np.isinf(f_statistic(given, Columns(given.X))[50])
    selection = select_by_f(given, Params())
    assert selection.ranking[0] == "g50"
    assert np.isfinite(np.asarray(selection.scores)).all()


def test_close_calls_are_settled_in_double_precision() -> None:
    # Far from zero a float32 product loses the digits that decide: with these offsets the plain
    # product alone goes another way halfway through.
    rng = np.random.default_rng(3)
    common = rng.normal(size=(600, 6))
    X = (common @ rng.normal(size=(6, 80)) + rng.normal(size=(600, 80)) + 200_000).astype(
        np.float32
    )
    given = classify(X, rng.integers(3, size=600), k=40)
    relevance = np.full(80, 7.0)
    columns = Columns(given.X)
    chosen, _ = greedy_mrmr(columns, relevance, given)
    assert chosen.tolist() == textbook(X, relevance, 40)


def test_a_copy_is_not_chosen_right_after_its_original() -> None:
    given = planted()
    X = np.array(given.X)
    best = int(select_by_f(given, Params()).ranking[0][1:])
    X[:, 89] = 3 * X[:, best]
    X[:, 88] = X[:, best] + 1
    both = {f"g{j}" for j in (best, 88, 89)}
    ranking = select_by_f(classify(X, given.target.values, k=4), Params()).ranking
    assert ranking[0] in both
    assert ranking[1] not in both


def test_genes_without_relevance_fill_the_panel_by_variance() -> None:
    given = planted(d=40)
    X = np.array(given.X)
    X[:, 30:] = 0.1  # constant, and 0.1 is not exact in binary
    X[:, 39] = 0
    given = classify(X, given.target.values, k=35)
    with pytest.warns(UserWarning, match="30 genes are relevant; 5 of largest variance"):
        selection = select_by_f(given, Params())
    assert selection.info["filled"] == 5
    assert set(selection.ranking[:30]) == {f"g{j}" for j in range(30)}
    assert len(set(selection.ranking)) == 35
    assert np.isfinite(np.asarray(selection.scores)).all()


def test_importing_the_library_does_not_silence_warnings() -> None:
    before = list(warnings.filters)
    select_by_f(planted(n=100, d=40), Params(backend="library"))
    assert list(warnings.filters) == before


def test_progress_is_told_per_gene() -> None:
    told: list[float] = []
    given = planted()
    given = task(given.X, given.target, 12, progress=lambda done, _: told.append(done))
    select_by_f(given, Params())
    assert len(told) >= 11
    assert told == sorted(told)
    assert 0 < told[-1] <= 1


def test_several_outputs_are_not_applicable() -> None:
    given = planted()
    target = Target("two", "regression", np.zeros((400, 2)))
    with pytest.raises(NotApplicable, match="2 outputs"):
        select_by_f(task(given.X, target, 3), Params())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_constant_gene_has_no_deviation_whatever_rounding_leaves(sparse: bool) -> None:
    from scipy.sparse import csr_matrix

    constants = np.random.default_rng(0).uniform(0.1, 9, 60).astype(np.float32)
    X = np.tile(constants, (333, 1))
    squares, means = np.square(X, dtype=np.float64).mean(axis=0), X.mean(axis=0, dtype=np.float64)
    assert (squares - means**2 > 0).any(), "rounding leaves something"
    X[:, -1] = np.arange(333) * 1e-3
    found = Columns(csr_matrix(X) if sparse else X).deviations
    assert (found[:-1] == 0).all() and found[-1] > 0
