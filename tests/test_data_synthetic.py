"""Synthetic data: the planted truth is there, and the same seed gives the same data."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from panelbench.data import synthetic
from panelbench.errors import ConfigError

SMALL = {"cells": 600, "genes": 120, "types": (2, 4, 8), "markers": 2, "seed": 5}


def test_counts_and_columns() -> None:
    adata = synthetic.make(**SMALL, batches=2)
    assert isinstance(adata.X, sparse.csr_matrix) and adata.X.dtype == np.float32
    assert adata.shape == (600, 120) and adata.X.min() >= 0
    assert np.array_equal(adata.X.data, np.rint(adata.X.data)) and (adata.X.data > 0).all()
    assert list(adata.obs) == ["type_a", "type_b", "type_c", "batch"]
    assert [adata.obs[c].nunique() for c in adata.obs] == [2, 4, 8, 2]


def test_types_are_nested() -> None:
    obs = synthetic.make(**SMALL).obs
    assert (obs.groupby("type_c", observed=True)["type_b"].nunique() == 1).all()
    assert (obs.groupby("type_b", observed=True)["type_a"].nunique() == 1).all()


def test_markers_stand_out_in_their_type() -> None:
    adata = synthetic.make(**SMALL)
    X = adata.X.toarray()
    share = X / X.sum(axis=1, keepdims=True)
    for column in ("type_a", "type_b", "type_c"):
        for name in adata.obs[column].cat.categories:
            inside = (adata.obs[column] == name).to_numpy()
            columns = adata.var_names.get_indexer(adata.uns["markers"][name])
            assert len(columns) == 2
            fold = share[inside][:, columns].mean(axis=0) / share[~inside][:, columns].mean(axis=0)
            assert (fold > 4).all(), (name, fold)


def test_xor_needs_two_genes() -> None:
    adata = synthetic.make(**{**SMALL, "cells": 4000}, xor=2)
    same = (adata.obs["xor"] == "same").to_numpy()
    genes = adata.var_names.get_indexer(adata.uns["markers"]["xor"])
    on = adata.X[:, genes].toarray() > 0
    for pair in (on[:, :2], on[:, 2:]):
        assert np.array_equal(pair[:, 0] == pair[:, 1], same)
    # A single gene is on equally often in both classes.
    assert np.abs(on[same].mean(axis=0) - on[~same].mean(axis=0)).max() < 0.06


def test_same_seed_same_data() -> None:
    first, again = synthetic.make(**SMALL, xor=1), synthetic.make(**SMALL, xor=1)
    assert (first.X != again.X).nnz == 0 and first.obs.equals(again.obs)
    other = synthetic.make(**{**SMALL, "seed": 6}, xor=1)
    assert (first.X != other.X).nnz > 0


def test_chunks_do_not_hold_a_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_MOLECULES_PER_CHUNK", 5000)
    tracemalloc.start()
    adata = synthetic.make(cells=2000, genes=20_000, types=(2, 4), depth=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert adata.X.nnz < 150_000
    assert peak < 2000 * 20_000 * 4 / 4, f"{peak / 1e6:.0f} MB"


def test_dropout_and_batches_change_the_counts() -> None:
    plain = synthetic.make(**SMALL)
    dropped = synthetic.make(**SMALL, dropout=0.5)
    assert 0.45 < dropped.X.nnz / plain.X.nnz < 0.55
    adata = synthetic.make(**{**SMALL, "effect": 1}, batches=2, batch_effect=1.0)
    first = (adata.obs["batch"] == "batch_0").to_numpy()
    means = np.log([np.asarray(adata.X[rows].mean(axis=0)).ravel() for rows in (first, ~first)])
    assert np.abs(means[0] - means[1]).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cels": 10}, "did you mean cells"),
        ({"types": (4, 2)}, "coarse to fine"),
        ({"cells": 20, "types": (2, 10)}, "at least 40 cells"),
        ({"genes": 30, "types": (2, 10)}, "need 36 genes"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthetic.make(**options)
