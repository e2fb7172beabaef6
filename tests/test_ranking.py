"""Variances and orders that all score-based methods share."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from panelbench.ranking import gene_variances, score_order


def _matrix(cells: int = 1500, genes: int = 70) -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.gamma(1.0, 1.0, (cells, genes)) * (rng.random((cells, genes)) < 0.3)
    X[:, 3], X[:, 4], X[:, 5] = 2.0, 0.0, -X[:, 6]
    X[:, 7] = 100 + 0.1 * rng.random(cells)
    return X.astype(np.float32)


def test_variances_are_those_of_numpy_and_the_same_for_csr() -> None:
    X = _matrix()
    found = gene_variances(X)
    assert np.allclose(found, X.astype(np.float64).var(axis=0), rtol=1e-9, atol=1e-7)
    assert np.array_equal(found, gene_variances(sparse.csr_matrix(X)))
    assert found[3] == found[4] == 0
    assert (np.delete(found, [3, 4]) > 0).all()


def test_variances_take_no_copy_of_the_matrix() -> None:
    X = np.random.default_rng(0).random((6000, 400), dtype=np.float32)
    for matrix in (X, sparse.csr_matrix(X)):
        tracemalloc.start()
        gene_variances(matrix)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < X.nbytes


@given(st.data())
def test_order_is_by_score_then_variance_then_position(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    values = st.sampled_from([0.0, 1.0, 2.0, -1.0, np.nan, np.inf])
    scores = np.array(data.draw(st.lists(values, min_size=n, max_size=n)))
    spread = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=n, max_size=n)))
    order = score_order(scores, spread)
    assert sorted(order) == list(range(n))

    def place(gene: int) -> tuple[bool, bool, float, float, int]:
        missing = bool(np.isnan(scores[gene]))
        score = 0.0 if missing else -scores[gene]
        return (bool(spread[gene] == 0), missing, score, -spread[gene], gene)

    assert [place(gene) for gene in order] == sorted(place(gene) for gene in range(n))


@pytest.mark.parametrize("as_csr", [False, True])
def test_one_cell_has_no_variance(as_csr: bool) -> None:
    X = np.ones((1, 3), dtype=np.float32)
    assert gene_variances(sparse.csr_matrix(X) if as_csr else X).tolist() == [0, 0, 0]


@pytest.mark.parametrize("as_csr", [False, True])
def test_a_gene_that_hardly_varies_is_told_from_one_that_does_not(as_csr: bool) -> None:
    """Rounding hides the variance of the one, and makes some for the other."""
    X = np.zeros((600, 3), dtype=np.float32)
    X[:, 0], X[:, 1], X[0, 0] = 1000.0, 0.1, np.nextafter(np.float32(1000), np.float32(2000))
    found = gene_variances(sparse.csr_matrix(X) if as_csr else X)
    assert found[0] > 0 and found[1] == found[2] == 0
