"""Recipe steps on small matrices whose result can be checked by hand or with scanpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from panelbench.data.recipes import apply, choose_genes, fit_scaling, resolve, split_recipe
from panelbench.data.specs import DatasetSpec, Step
from panelbench.errors import ConfigError, DataError


def counts_data(X: Any = None, names: Sequence[str] | None = None, dense: bool = False) -> Any:
    if X is None:
        rng = np.random.default_rng(1)
        X = rng.poisson(rng.gamma(0.5, 4.0, size=60), size=(300, 60))
    X = np.asarray(X, dtype=np.float32)
    names = names or [f"g{i}" for i in range(X.shape[1])]
    matrix = X if dense else sparse.csr_matrix(X)
    adata = anndata.AnnData(X=matrix, var=pd.DataFrame(index=list(names)))
    adata.obs["kind"] = pd.Categorical(["a", "b"] * (len(X) // 2) + ["a"] * (len(X) % 2))
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=[])
    return adata


def steps(*items: Any) -> tuple[Step, ...]:
    return resolve(DatasetSpec(id="d", reader="h5ad", recipe=items).recipe)


def run(adata: Any, *items: Any) -> Any:
    for step in steps(*items):
        adata = apply(adata, step)
    return adata


def dense(matrix: Any) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def test_filter_cells_and_genes() -> None:
    X = [[1, 0, 0], [2, 3, 0], [1, 1, 0], [0, 0, 5]]
    adata = run(counts_data(X), {"filter_cells": {"min_genes": 2}})
    assert adata.X.toarray().tolist() == [[2, 3, 0], [1, 1, 0]]
    adata = run(counts_data(X), {"filter_genes": {"min_cells": 2}})
    assert list(adata.var_names) == ["g0", "g1"]
    assert adata.uns["notes"] == ["filter_genes: 1 of 3 genes dropped"]
    with pytest.raises(DataError, match="drops all 4 cells"):
        run(counts_data(X), {"filter_cells": {"min_genes": 3}})


def test_max_mito() -> None:
    adata = counts_data([[9, 1], [8, 2], [0, 3]], names=["A", "mt-Co1"])
    kept = run(adata, {"max_mito": {"percent": 10, "prefix": "mt-"}})
    assert kept.X.toarray().tolist() == [[9, 1]]
    with pytest.raises(DataError, match="no gene name starts with 'MT-'"):
        run(adata, "max_mito")


def test_drop_genes_by_prefix_name_and_file(tmp_path: Path) -> None:
    listed = tmp_path / "housekeeping.txt"
    listed.write_text("# a comment\nActb\n\n")
    names = ["Rps4", "rps5", "Mtor", "Actb", "Cd3d", "Gapdh"]
    options = {"prefixes": ["Rps", "Mt"], "names": ["Gapdh"], "file": str(listed)}
    resolved = steps({"drop_genes": options})
    # What the file said belongs to the recipe (and so to the key), its path does not.
    assert resolved[0].options["names"] == ["Gapdh", "Actb"]
    assert resolved[0].options["file"] is None
    adata = apply(counts_data(np.ones((2, 6)), names=names), resolved[0])
    assert list(adata.var_names) == ["rps5", "Cd3d"]
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.txt"):
        steps({"drop_genes": {"file": str(tmp_path / "absent.txt")}})


def test_class_expression_filter() -> None:
    # Cells alternate a, b. g0: in 1 of 4 a; g1: in 2 of 4 a; g2: everywhere; g3: in all a only,
    # which is half of the classes.
    X = np.zeros((8, 4))
    X[0, 0] = X[[0, 2], 1] = 1
    X[:, 2] = 1
    X[::2, 3] = 1
    adata = run(counts_data(X), {"class_expression_filter": {"column": "kind"}})
    assert list(adata.var_names) == ["g1"]
    loose = {"class_expression_filter": {"column": "kind", "max_classes": 0.6}}
    assert list(run(counts_data(X), loose).var_names) == ["g1", "g3"]


def test_rare_and_unwanted_cells() -> None:
    adata = counts_data(np.ones((6, 2)))
    adata.obs["kind"] = pd.Categorical(["a", "a", "a", "b", None, "Unk"])
    kept = run(adata, {"min_cells_per_class": {"column": "kind", "cells": 2}})
    assert kept.n_obs == 4 and kept.obs["kind"].isna().sum() == 1
    kept = run(adata, {"drop_cells": {"column": "kind", "values": ["Unk"], "missing": True}})
    assert kept.obs["kind"].tolist() == ["a", "a", "a", "b"]
    with pytest.raises(DataError, match="did you mean kind"):
        run(adata, {"drop_cells": {"column": "knid"}})


@pytest.mark.parametrize("as_array", [False, True])
def test_normalize_and_log1p_keep_counts(as_array: bool) -> None:
    original = counts_data(dense=as_array)
    before = dense(original.X).copy()
    adata = run(original, {"normalize": {"target_sum": 1000}}, "log1p")
    expected = np.log1p(before / before.sum(axis=1, keepdims=True) * 1000)
    np.testing.assert_allclose(dense(adata.X), expected, rtol=1e-5)
    np.testing.assert_array_equal(dense(adata.layers["counts"]), before)
    assert adata.uns["x"] == "lognorm" and adata.X.dtype == np.float32


def test_binarize_and_scale_keep_lognorm() -> None:
    lognorm = run(counts_data(), "normalize", "log1p")
    before = lognorm.X.toarray()
    binary = run(lognorm.copy(), "binarize")
    np.testing.assert_array_equal(binary.X.toarray(), before > 0)
    np.testing.assert_array_equal(binary.layers["lognorm"].toarray(), before)
    scaled = run(lognorm.copy(), {"scale": {"fit": "all", "clip": 3}})
    reference = sc.pp.scale(before.astype(np.float64), max_value=3)
    np.testing.assert_allclose(scaled.X, reference, atol=1e-4)
    np.testing.assert_array_equal(scaled.layers["lognorm"].toarray(), before)
    assert (binary.uns["x"], scaled.uns["x"]) == ("binary", "scaled")


def test_cells_can_be_brought_to_their_median() -> None:
    before = counts_data(dense=True)
    totals = before.X.sum(axis=1)
    after = run(before.copy(), {"normalize": {"target_sum": "median"}})
    np.testing.assert_allclose(after.X.sum(axis=1), np.median(totals), rtol=1e-5)


def test_one_mean_and_deviation_for_the_whole_matrix() -> None:
    counts = run(counts_data(), "log1p")
    whole = {"scale": {"by": "matrix", "clip": None, "fit": "all"}}
    scaled = run(counts.copy(), whole).X
    before = counts.X.toarray().astype(np.float64)
    np.testing.assert_allclose(
        scaled, (before - before.mean()) / before.std(), rtol=1e-3, atol=1e-3
    )
    assert not np.allclose(scaled.mean(axis=0), 0, atol=0.1)


def test_constant_genes_scale_to_zero() -> None:
    X = np.full((50, 2), 0.1, dtype=np.float32)
    X[:25, 1] = 3
    adata = counts_data(X)
    adata.uns["x"] = "lognorm"
    for matrix in (adata.X, adata.X.toarray()):
        adata.X = matrix
        scaling = fit_scaling(adata, steps("scale"))
        assert scaling is not None
        assert np.abs(scaling.apply(adata.X)[:, 0]).max() < 1e-5


def test_to_lognorm_detects_counts() -> None:
    counts = counts_data()
    by_hand = run(counts.copy(), "normalize", "log1p")
    np.testing.assert_array_equal(run(counts.copy(), "to_lognorm").X.toarray(), by_hand.X.toarray())
    ready = by_hand.copy()
    ready.uns["notes"] = []
    again = run(ready, "to_lognorm")
    np.testing.assert_array_equal(again.X.toarray(), by_hand.X.toarray())
    assert "taken as lognorm" in again.uns["notes"][0]


@pytest.mark.parametrize("flavor", ["seurat_v3", "seurat", "cell_ranger"])
def test_hvg_agrees_with_scanpy(flavor: str) -> None:
    adata = run(counts_data(), "normalize", "log1p")
    kept = choose_genes(adata, steps({"hvg": {"n": 20, "flavor": flavor}}))
    assert kept is not None and len(kept) == 20 and kept.dtype == np.int64
    layer = "counts" if flavor == "seurat_v3" else None
    table = sc.pp.highly_variable_genes(
        adata, n_top_genes=20, flavor=flavor, layer=layer, inplace=False
    )
    assert np.array_equal(kept, np.flatnonzero(table["highly_variable"]))


def test_hvg_without_counts() -> None:
    adata = run(counts_data(), "to_lognorm")
    del adata.layers["counts"]
    with pytest.raises(DataError, match="seurat_v3 needs raw counts"):
        choose_genes(adata, steps({"hvg": {"n": 20}}))
    auto = choose_genes(adata, steps({"hvg": {"n": 20, "flavor": "auto"}}))
    seurat = choose_genes(adata, steps({"hvg": {"n": 20, "flavor": "seurat"}}))
    assert np.array_equal(auto, seurat)


def test_gene_steps_combine_to_columns_of_the_data() -> None:
    adata = run(counts_data(), "normalize", "log1p")
    both = steps({"hvg": {"n": 30}}, {"drop_genes": {"prefixes": ["g1"]}}, "scale")
    first = choose_genes(adata, steps({"hvg": {"n": 30}}))
    assert first is not None
    expected = [i for i in first if not f"g{i}".startswith("g1")]
    assert choose_genes(adata, both).tolist() == expected  # type: ignore[union-attr]
    assert choose_genes(adata, steps("scale")) is None


def test_resolve_fills_in_defaults() -> None:
    found = steps("normalize", "log1p", "hvg")
    assert [s.options for s in found] == [
        {"target_sum": 10000.0},
        {},
        {"n": 2000, "flavor": "seurat_v3", "fit": "train"},
    ]
    assert found == steps({"normalize": {"target_sum": 1e4}}, "log1p", {"hvg": {"n": 2000}})


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["normalise"], "unknown recipe step 'normalise': did you mean normalize"),
        ([{"hvg": {"n_top": 5}}], "unknown key 'n_top'"),
        ([{"hvg": {"n": 0}}], "greater than 0"),
        ([{"min_cells_per_class": {"cells": 2}}], "key 'column' is missing"),
        (["hvg", "log1p"], "'log1p' works on all cells, but stands after 'hvg'"),
        (["scale", {"hvg": {"fit": "all"}}], "'hvg' asks for fit: all"),
        (["scale", "scale"], "more than once"),
    ],
)
def test_recipes_that_cannot_work(items: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steps(*items)


def test_steps_in_the_wrong_state() -> None:
    with pytest.raises(DataError, match="'normalize' works on counts, but X is lognorm"):
        run(counts_data(), "log1p", "normalize")
    with pytest.raises(DataError, match="log-normalised values are needed"):
        choose_genes(counts_data(), steps({"hvg": {"n": 5, "flavor": "seurat"}}))


def test_split_recipe() -> None:
    fixed, fitted = split_recipe(steps("normalize", "log1p", "hvg", "filter_genes", "scale"))
    assert [s.name for s in fixed] == ["normalize", "log1p"]
    assert [s.name for s in fitted] == ["hvg", "filter_genes", "scale"]
    assert split_recipe(steps("normalize", {"hvg": {"fit": "all"}}))[1] == ()


def test_genes_in_many_cells_or_strong_in_some() -> None:
    X = np.zeros((100, 5))
    X[:5, 0] = 1  # common
    X[:2, 1] = 1  # rare and weak
    X[:2, 2] = 2  # rare and strong
    X[0, 3] = 9  # too rare
    X[:, 4] = 1
    options = {"min_fraction": 0.01, "enough": 0.04, "mean": 1.12}
    adata = run(counts_data(X), {"expressed_genes": options})
    assert list(adata.var_names) == ["g0", "g2", "g4"]
    # After log1p it is still the counts that are looked at.
    adata = run(counts_data(X), "log1p", {"expressed_genes": options})
    assert list(adata.var_names) == ["g0", "g2", "g4"]
