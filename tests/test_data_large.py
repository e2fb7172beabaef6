"""Large files: read, prepared and split by blocks of cells, with the same result as in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from panelbench.data import blocks, large_genes
from panelbench.data.catalogue import own_data
from panelbench.data.gene_steps import Hvg, hvg
from panelbench.data.specs import DatasetSpec, SplitSpec
from panelbench.errors import DataError
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.prepared import facts, load
from panelbench.stages.preprocess import prepare
from panelbench.stages.targets import depth_of

N, D = 230, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with counts, logarithms, raw counts, labels and donors."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=N)
    rates = rng.gamma(0.4, 2.0, size=(3, D)) * rng.gamma(2.0, 1.0, size=D)
    X = sparse.csr_matrix(rng.poisson(rates[kind]).astype(np.float32))
    X.data[::7] += 3
    X.data[::61] += 200  # some are clipped
    obs = pd.DataFrame(
        {"kind": pd.Categorical([f"k{i}" for i in kind]), "donor": [f"d{i % 4}" for i in range(N)]},
        index=[f"c{i}" for i in range(N)],
    )
    folder = tmp_path_factory.mktemp("large")
    adata = anndata.AnnData(X=X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(D)]))
    adata.obsm["image"] = rng.normal(size=(N, 2))
    adata.write_h5ad(folder / "counts.h5ad")
    logs = adata.copy()
    logs.raw = adata.copy()
    logs.X = X.multiply(1e4 / X.sum(axis=1)).tocsr().log1p().astype(np.float32)
    logs.layers["other"] = X
    logs.write_h5ad(folder / "logs.h5ad")
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(blocks, "LARGE", 0)
    monkeypatch.setattr(blocks, "CELLS", 37)
    return


def recipe(spec: DatasetSpec, *items: Any) -> DatasetSpec:
    steps = DatasetSpec(id="x", reader="h5ad", recipe=items).recipe
    return spec.model_copy(update={"recipe": steps})


def both(
    spec: DatasetSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[anndata.AnnData, anndata.AnnData]:
    """The prepared data set in memory, and on disk."""
    prepare(spec, folder / "whole.h5ad", folder)
    whole = load(folder / "whole.h5ad")
    assert not blocks.is_stored(whole.X)
    monkeypatch.setattr(blocks, "LARGE", 0)
    monkeypatch.setattr(blocks, "CELLS", 37)
    prepare(spec, folder / "parts.h5ad", folder)
    return whole, load(folder / "parts.h5ad")


def assert_same(a: anndata.AnnData, b: anndata.AnnData) -> None:
    """All that two data sets hold is the same, bit by bit."""
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_index_equal(a.var_names, b.var_names)
    assert set(a.layers) == set(b.layers) and set(a.obsm) == set(b.obsm)
    assert {k: str(v) for k, v in a.uns.items()} == {k: str(v) for k, v in b.uns.items()}
    for x, y in ((a.X, b.X), *((a.layers[name], b.layers[name]) for name in a.layers)):
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(x, part), getattr(y, part))
    for name in a.obsm:
        np.testing.assert_array_equal(a.obsm[name], b.obsm[name])


RECIPES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "own": ("counts", (), {"hvg": 20, "min_genes": 25, "group": "donor", "inputs": "image"}),
    "logarithms": ("logs", (), {"hvg": 20}),
    "raw": ("logs", (), {"hvg": 20, "layer": "raw"}),
    "layer": ("logs", (), {"layer": "other", "label_file": "labels.csv"}),
    "steps": (
        "counts",
        (
            {"filter_cells": {"min_counts": 60}},
            {"drop_genes": {"prefixes": ["g1"]}},
            {"drop_cells": {"column": "donor", "values": ["d3"]}},
            {"max_mito": {"prefix": "g2", "percent": 80}},
            "normalize",
            "log1p",
            {"hvg": {"n": 12, "flavor": "seurat"}},
            "scale",
        ),
        {},
    ),
    "binary": ("counts", ("normalize", "log1p", "binarize"), {}),
    "whole": ("counts", ({"filter_genes": {"min_cells": 150}}, "normalize", "log1p"), {}),
    "median": ("counts", ({"normalize": {"target_sum": "median"}}, "log1p"), {}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_as_in_memory(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, steps, options = RECIPES[name]
    if "label_file" in options:
        table = pd.DataFrame({"kind": ["a", "b"] * 100}, index=[f"c{i}" for i in range(200)])
        table.to_csv(tmp_path / "labels.csv")
        options = {**options, "label_file": tmp_path / "labels.csv"}
    spec = own_data(folder / f"{file}.h5ad", ["kind"], validation=0.1, **options)
    spec = recipe(spec, *steps) if steps else spec
    whole, parts = both(spec, tmp_path, monkeypatch)
    assert blocks.is_stored(parts.X) and facts(whole) == facts(parts)
    everyone = np.arange(whole.n_obs)
    kept = Fold(everyone, everyone[:0], everyone[:0])
    assert_same(kept.take(whole, everyone), kept.take(parts, everyone))
    np.testing.assert_array_equal(depth_of(whole), depth_of(parts))
    a, b = fit_fold(whole, spec, 1), fit_fold(parts, spec, 1)
    for part in ("train", "validation", "test", "genes", "mean", "std"):
        np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    some = np.random.default_rng(1).permutation(a.test)
    cut = (a.take(whole, some), b.take(parts, some))
    if "scale" in name or any(step == "scale" for step in steps):
        np.testing.assert_array_equal(cut[0].X, cut[1].X)
    else:
        assert_same(*cut)


@pytest.mark.parametrize("flavor", ["seurat_v3", "seurat"])
@pytest.mark.parametrize("n", [1, 5, 20, 40])
def test_variable_genes_are_those_of_scanpy(
    folder: Path, tmp_path: Path, flavor: Any, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = both(own_data(folder / "counts.h5ad", ["kind"]), tmp_path, monkeypatch)
    rows = np.flatnonzero(np.arange(N) % 3 > 0)
    options = Hvg(n=n, flavor=flavor)
    found = large_genes.hvg_by_blocks(parts, rows, options)
    np.testing.assert_array_equal(found, hvg(whole[rows].copy(), options))


def test_counts_and_logarithms_share_the_places_of_their_values(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, parts = both(own_data(folder / "counts.h5ad", ["kind"]), tmp_path, monkeypatch)
    rows = np.arange(100)
    cells = Fold(rows, rows[:0], rows[:0], genes=np.arange(9)).take(parts, rows)
    assert np.shares_memory(cells.X.indices, cells.layers["counts"].indices)
    assert cells.shape == (100, 9)


@pytest.mark.usefixtures("small_blocks")
def test_what_is_wrong_is_said_of_the_right_cell(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "counts.h5ad"
    for value, message in (
        (np.nan, "X holds NaN or infinite values .1 in one part of the file, first: cell 'c150'"),
        (-1.0, "X holds negative values .1 in one part of the file, first: cell 'c150'"),
        (1e4 + 0.5, "X holds real numbers up to .* too large for logarithms"),
    ):
        path.write_bytes((folder / "counts.h5ad").read_bytes())
        with h5py.File(path, "a") as file:
            file["X/data"][int(file["X/indptr"][150])] = value
        with pytest.raises(DataError, match=message):
            prepare(own_data(path, ["kind"]), tmp_path / "p.h5ad", tmp_path)
    with h5py.File(path, "a") as file:
        first, last = file["X/indptr"][150:152]
        file["X/data"][int(first) : int(last)] = 0
    with pytest.raises(DataError, match=r"1 of 230 cells have no counts at all \(first: 'c150'\)"):
        prepare(own_data(path, ["kind"]), tmp_path / "p.h5ad", tmp_path)
    kept = own_data(path, ["kind"], min_genes=1)
    assert prepare(kept, tmp_path / "p.h5ad", tmp_path)["notes"] == [
        "filter_cells: 1 of 230 cells dropped"
    ]
    with pytest.raises(DataError, match="the recipe drops all 230 cells"):
        prepare(own_data(path, ["kind"], min_genes=61), tmp_path / "p.h5ad", tmp_path)
    with pytest.raises(DataError, match=r"no label column 'kin' in obs; did you mean kind"):
        prepare(own_data(path, ["kin"]), tmp_path / "p.h5ad", tmp_path)


@pytest.mark.usefixtures("small_blocks")
def test_steps_that_need_all_cells_are_refused_where_they_do_not_fit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_data(folder / "counts.h5ad", ["kind"])
    prepare(own, tmp_path / "p.h5ad", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10}))
    filtered = recipe(own, "filter_genes", "normalize", "log1p")
    with pytest.raises(DataError, match=r"'filter_genes' needs all cells at once.*GB of memory"):
        prepare(filtered, tmp_path / "q.h5ad", tmp_path)
    cell_ranger = recipe(own, "to_lognorm", {"hvg": {"n": 9, "flavor": "cell_ranger"}})
    with pytest.raises(DataError, match=r"split 0: .*'hvg' needs all training .*--max-cells N"):
        fit_fold(load(tmp_path / "p.h5ad"), cell_ranger, 0)
    blocks.LARGE = 5000
    sample = cell_ranger.model_copy(update={"max_cells": 9, "split": SplitSpec(stratify=False)})
    genes = fit_fold(load(tmp_path / "p.h5ad"), sample, 0).genes
    assert genes is not None and len(genes) == 9
