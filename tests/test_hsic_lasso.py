"""Block HSIC Lasso: the library's kernels, path and choices, without its design matrix."""

# ruff: noqa: NPY002 - the library's shuffles come from numpy's global generator.

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panelbench.methods.hsic_lasso import Params, select
from panelbench.methods.hsic_lasso.gram import BlockKernels, GramColumns
from panelbench.methods.hsic_lasso.kernels import (
    binary_coordinates,
    centred_basis,
    delta_coordinates,
    gaussian_coordinates,
    shuffles,
)
from panelbench.methods.hsic_lasso.lars import nonnegative_path

from panelbench.errors import MethodError, NotApplicable
from panelbench.method import Target, Task

LIBRARY = Params(backend="library")


def task(X: Any, target: Target, k: int, **more: Any) -> Task:
    if isinstance(X, np.ndarray):
        X = np.ascontiguousarray(X, dtype=np.float32)
        X.setflags(write=False)
    genes = np.array([f"g{j}" for j in range(X.shape[1])])
    return Task(X=X, genes=genes, targets={target.name: target}, k=k, seed=0, **more)


def classify(X: Any, codes: np.ndarray, k: int, **more: Any) -> Task:
    classes = tuple(map(str, range(codes.max() + 1)))
    return task(X, Target("type", "classification", codes.astype(np.int64), classes), k, **more)


def planted(n: int = 203, d: int = 60, k: int = 15, classes: int = 4) -> Task:
    """Log counts in which each class raises ten genes; n is no multiple of the block size."""
    rng = np.random.default_rng(0)
    codes = rng.integers(classes, size=n)
    fold = np.ones((classes, d))
    for kind in range(classes):
        fold[kind, kind * 10 : (kind + 1) * 10] = rng.uniform(1.5, 5, 10)
    counts = rng.poisson(rng.lognormal(0, 0.4, (n, 1)) * rng.lognormal(0, 1, d) * fold[codes])
    return classify(np.log1p(counts), codes, k)


def normalised(kernel: np.ndarray) -> np.ndarray:
    """The textbook: centre a Gram matrix on both sides and divide it by its norm."""
    centring = np.eye(len(kernel)) - 1 / len(kernel)
    centred = centring @ kernel @ centring
    return centred / (np.linalg.norm(centred) + 1e-9)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_basis_spans_the_centred_symmetric_matrices(size: int) -> None:
    basis = centred_basis(size)
    assert len(basis) == size * (size - 1) // 2
    np.testing.assert_allclose(
        np.einsum("aij,bij->ab", basis, basis), np.eye(len(basis)), atol=1e-12
    )
    np.testing.assert_allclose(basis.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(basis, basis.transpose(0, 2, 1))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_inner_products_of_coordinates_are_those_of_gram_matrices(size: int) -> None:
    rng = np.random.default_rng(size)
    values = rng.normal(size=(3, size, 2)).astype(np.float32)
    codes = rng.integers(3, size=(3, size))
    genes = gaussian_coordinates(values)
    labels = delta_coordinates(codes)
    assert genes.shape == (size * (size - 1) // 2, 3, 2)
    for b in range(3):
        difference = values[b, :, None, :] - values[b, None, :, :]
        first, second = (normalised(np.exp(-(difference[:, :, g] ** 2) / 2)) for g in (0, 1))
        same = codes[b][:, None] == codes[b][None, :]
        output = normalised(same / same.sum(axis=1, keepdims=True))
        got = genes[:, b].T @ genes[:, b]
        np.testing.assert_allclose(got[0, 1], (first * second).sum(), atol=1e-6)
        np.testing.assert_allclose(got[0, 0], (first**2).sum(), atol=1e-6)
        np.testing.assert_allclose(
            genes[:, b, 0] @ labels[:, b, 0], (first * output).sum(), atol=1e-6
        )


def test_equal_cells_leave_exact_zeros() -> None:
    values = np.full((2, 5, 3), 0.1, dtype=np.float32)
    assert not gaussian_coordinates(values).any()
    assert np.abs(delta_coordinates(np.ones((2, 5), dtype=np.int64))).max() < 1e-6


def test_looked_up_kernels_are_those_of_any_scale() -> None:
    bits = np.random.default_rng(0).integers(2, size=(40, 5, 7)).astype(np.float32)
    looked_up = binary_coordinates(bits)
    for scale in (0.5, 3.0):
        np.testing.assert_allclose(looked_up, gaussian_coordinates(scale * bits), atol=2e-6)


def test_shuffles_are_the_librarys() -> None:
    state = np.random.get_state()
    got = shuffles(23, 5, 3)
    expected, order = [], np.arange(23)
    for m in range(3):
        np.random.seed(m)
        order = np.random.permutation(order)
        expected += [order[start : start + 5] for start in range(0, 20, 5)]
    np.random.set_state(state)
    np.testing.assert_array_equal(got, expected)
    assert len(shuffles(9, 5, 3)) == 1


def wanted_path(columns: np.ndarray, output: np.ndarray, k: int) -> Any:
    gram = columns.T @ columns
    return nonnegative_path(columns.T @ output, lambda j, _: gram[j], k)


@pytest.mark.parametrize("seed", [0, 2])
def test_path_is_the_librarys_where_columns_leave(seed: int) -> None:
    from pyHSICLasso.nlars import nlars

    rng = np.random.default_rng(seed)
    columns = np.abs(rng.normal(size=(60, 4)) @ rng.normal(size=(4, 40))) + rng.random((60, 40))
    columns /= np.linalg.norm(columns, axis=0)
    output = columns @ rng.random(40) + 0.1 * rng.random(60)
    left = 0
    for k in range(1, 16):
        path = wanted_path(columns, output, k)
        _, beta, chosen, *_ = nlars(columns, columns.T @ output[:, None], k, 5)
        by_weight = [path.active[i] for i in np.argsort(-path.beta, kind="stable")]
        assert by_weight == [int(j) for j in chosen]
        np.testing.assert_allclose(path.beta, beta[path.active, 0], rtol=1e-3, atol=1e-4)
        assert set(path.active) <= set(path.entries)
        left += len(path.left)
    assert left, "this case was made for columns that leave the path"


def test_path_to_its_end_is_the_non_negative_least_squares_solution() -> None:
    from scipy.optimize import nnls

    rng = np.random.default_rng(1)
    columns, output = rng.random((30, 12)), rng.normal(size=30)
    path = wanted_path(columns, output, 12)
    beta = np.zeros(12)
    beta[path.active] = path.beta
    np.testing.assert_allclose(beta, nnls(columns, output)[0], atol=1e-8)


def test_path_without_a_positive_correlation_is_empty() -> None:
    assert wanted_path(np.eye(3), -np.ones(3), 2).active == []


@pytest.mark.parametrize("k", [1, 5, 17])
def test_choices_are_the_librarys(k: int) -> None:
    given = planted(k=k)
    ours, theirs = select(given, Params()), select(given, LIBRARY)
    assert ours.ranking == theirs.ranking
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-3, atol=1e-5)
    assert set(ours.ranking) <= set(ours.info["path_order"])
    levels = ours.info["path_levels"]
    assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize(("size", "times"), [(3, 2), (4, 1), (10, 3)])
def test_choices_are_the_librarys_for_other_blocks(size: int, times: int) -> None:
    given = planted(n=101, d=40)
    ours = select(given, Params(size, times))
    assert ours.ranking == select(given, Params(size, times, backend="library")).ranking


def test_a_longer_path_is_cut_by_coefficient() -> None:
    longer = select(planted(k=12), Params())
    cut = select(planted(k=4), Params(path_genes=12))
    assert list(cut.ranking) == list(longer.ranking)
    assert list(select(planted(k=12), Params(path_genes=4)).ranking) == list(longer.ranking)


def test_choices_are_the_librarys_for_regression() -> None:
    X = np.asarray(planted().X)
    values = X[:, 3] + X[:, 25] + 0.3 * np.random.default_rng(1).normal(size=len(X))
    given = task(X, Target("signal", "regression", values), 12)
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


def test_choices_are_the_librarys_for_binary_genes() -> None:
    X = (np.asarray(planted().X) > 1).astype(np.float32)
    given = classify(X, planted().target.values, k=12)
    assert BlockKernels(X, X.std(axis=0), shuffles(203, 5, 3)).binary
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.slow
def test_choices_are_the_librarys_on_citeseq(shared: Path) -> None:
    from scipy.io import loadmat

    counts = loadmat(shared / "mirror" / "CITEseq.mat")["G"].T[::8, ::2].astype(np.float32)
    file = loadmat(shared / "mirror" / "CITEseq-labels.mat")
    labels = next(value for key, value in file.items() if not key.startswith("__")).ravel()[::8]
    X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)
    given = classify(X, np.unique(labels, return_inverse=True)[1], k=64)
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.slow
def test_choices_are_the_librarys_on_pbmc68k() -> None:
    import scanpy as sc

    data = sc.datasets.pbmc68k_reduced()
    codes = data.obs["bulk_labels"].cat.codes.to_numpy()
    given = classify(data.raw.X[:, ::3].toarray(), codes, k=48)
    assert select(given, Params()).ranking == select(given, LIBRARY).ranking


@pytest.mark.parametrize("binary", [False, True])
def test_sparse_matrices_and_threads_change_nothing(binary: bool) -> None:
    from scipy import sparse

    given = planted()
    X = np.asarray(given.X) > 1 if binary else np.asarray(given.X)
    dense, threaded, sparse_one = (
        select(task(matrix, given.target, given.k, n_jobs=n_jobs), Params())
        for matrix, n_jobs in ((X, 1), (X, 2), (sparse.csr_matrix(X.astype(np.float32)), 2))
    )
    assert threaded.ranking == dense.ranking == sparse_one.ranking
    np.testing.assert_array_equal(threaded.scores, dense.scores)
    np.testing.assert_allclose(sparse_one.scores, dense.scores, rtol=1e-3)


def test_gram_columns_do_not_depend_on_what_comes_with_them() -> None:
    X = np.asarray(planted().X)
    kernels = BlockKernels(X, X.std(axis=0, dtype=np.float64), shuffles(203, 5, 3))
    all_at_once = kernels.with_genes(np.arange(60))
    np.testing.assert_allclose(all_at_once, all_at_once.T, atol=1e-6)
    columns = GramColumns(kernels, batch=8)
    np.testing.assert_allclose(columns(7, np.arange(60.0)), all_at_once[7], atol=1e-6)
    assert columns.sweeps == 1
    columns(7, np.arange(60.0))
    assert columns.sweeps == 1


def test_memory_stays_far_below_the_design_matrix() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((2000, 400), dtype=np.float32)
    given = classify(X, (X[:, :5].argmax(axis=1)), k=10)
    design = 2000 * 5 * 3 * 400 * 4
    tracemalloc.start()
    select(given, Params())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < design / 4


def test_copies_of_a_gene_are_not_chosen_with_it() -> None:
    given = planted(k=12)
    X = np.array(given.X)
    best = int(select(given, Params()).info["path_order"][0][1:])
    X[:, 58] = X[:, best]
    X[:, 59] = 2 * X[:, best]
    selection = select(classify(X, given.target.values, k=12), Params())
    assert selection.info["filled"] == 0
    assert len({f"g{best}", "g58", "g59"} & set(selection.ranking)) == 1


def test_a_path_that_ends_early_is_filled() -> None:
    given = planted(d=45, k=45)
    X = np.array(given.X)
    X[:, 40:] = 0.1
    given = classify(X, given.target.values, k=43)
    with pytest.warns(UserWarning, match="fill the panel"):
        selection = select(given, Params())
    on_path = 43 - selection.info["filled"]
    assert 0 < on_path < 40
    assert len(set(selection.ranking)) == 43
    assert set(selection.ranking[40:]) <= {f"g{j}" for j in range(40, 45)}
    scores = np.asarray(selection.scores)
    assert (scores[:on_path] > 0).all()
    assert not scores[on_path:].any()
    with pytest.raises(MethodError, match="pyHSICLasso"):
        select(given, LIBRARY)


@pytest.mark.parametrize("params", [Params(), LIBRARY])
def test_the_global_generator_is_left_alone(params: Params) -> None:
    np.random.seed(11)
    before = np.random.get_state()[1].copy()
    select(planted(n=60, d=40, k=4), params)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_what_it_cannot_do_is_said() -> None:
    given = planted()
    with pytest.raises(NotApplicable, match="203 training cells"):
        select(given, Params(block_size=204))
    two = task(given.X, Target("two", "regression", np.zeros((203, 2))), 3)
    with pytest.raises(NotApplicable, match="2 outputs"):
        select(two, Params())
