"""Preparation and folds: what is written, what is fitted, and that test cells never matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from panelbench.data.catalogue import load_catalogue, own_data, synthetic_data
from panelbench.data.specs import DatasetSpec, SourceFile, SplitSpec, TaskSpec
from panelbench.errors import ConfigError, DataError, NotApplicable
from panelbench.records.code import import_closure
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.prepared import STAMP, facts, load, representation
from panelbench.stages.preprocess import prepare
from tests.tools import real_data

ROOT = Path(__file__).parent.parent


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with counts, three kinds of labels, a donor, and several regression outputs."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=200)
    rates = rng.gamma(0.7, 3.0, size=(3, 50))
    X = rng.poisson(rates[kind]).astype(np.float32) + np.eye(200, 50, dtype=np.float32)
    obs = pd.DataFrame(
        {
            "cell type": pd.Categorical([f"k{i}" for i in kind]),
            "rare": np.where(np.arange(200) < 3, "few", np.where(kind == 0, "x", "y")),
            "age": rng.normal(size=200),
            "donor": [f"d{i % 4}" for i in range(200)],
        },
        index=[f"c{i}" for i in range(200)],
    )
    obs.loc["c9", "cell type"] = None
    adata = anndata.AnnData(X=sparse.csr_matrix(X), obs=obs)
    adata.var_names = [f"g{i}" for i in range(50)]
    adata.obsm["proteins"] = rng.normal(size=(200, 4))
    adata.obsm["image"] = rng.normal(size=(200, 5))
    path = tmp_path / "own.h5ad"
    adata.write_h5ad(path)
    return path


def ready(spec: DatasetSpec, folder: Path) -> tuple[dict[str, Any], anndata.AnnData]:
    target = folder / "prepared" / f"{spec.id}.h5ad"
    found = prepare(spec, target, folder / "downloads")
    return found, load(target)


def with_recipe(spec: DatasetSpec, *items: Any) -> DatasetSpec:
    recipe = DatasetSpec(id="x", reader="h5ad", recipe=items).recipe
    return spec.model_copy(update={"recipe": recipe})


def test_prepared_file(own: Path, tmp_path: Path) -> None:
    spec = own_data(
        own, ["cell type", "rare"], regression=["age", "proteins"], min_cells=5, group="donor",
        inputs="image",
    )  # fmt: skip
    found, adata = ready(spec, tmp_path)
    assert list(adata.obs) == ["cell_type", "rare", "age", "group"]
    assert set(adata.obsm) == {"proteins", "inputs"} and set(adata.uns) == {"x", "panelbench"}
    assert adata.obs["rare"].cat.categories.tolist() == ["x", "y"]
    assert found["tasks"]["rare"]["missing"] == 3 and found["tasks"]["cell_type"]["missing"] == 1
    assert sum(found["tasks"]["rare"]["counts"].values()) == 197
    assert found["tasks"]["proteins"] == {
        "kind": "regression", "classes": [], "missing": 0, "outputs": 4,
    }  # fmt: skip
    assert found["groups"] == {f"d{i}": 50 for i in range(4)}
    assert (found["cells"], found["genes"], found["x"], found["counts"]) == (
        200, 50, "lognorm", True,
    )  # fmt: skip
    assert json.loads(json.dumps(found)) == facts(adata) == found
    counts = anndata.read_h5ad(own).X.toarray()
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), counts)
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-5)


def test_own_lognormalised_file_is_noted(own: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(own)
    adata.X = adata.X.log1p()
    adata.write_h5ad(tmp_path / "log.h5ad")
    found, adata = ready(own_data(tmp_path / "log.h5ad", ["rare"], hvg=10), tmp_path)
    assert not found["counts"] and "taken as lognorm" in found["notes"][0]
    assert "hvg" in found["notes"][1]
    fold = fit_fold(adata, own_data(tmp_path / "log.h5ad", ["rare"], hvg=10), 0)
    assert fold.take(adata, fold.train).n_vars == 10
    with pytest.raises(NotApplicable, match="needs raw counts"):
        representation(adata, "counts")


def test_options_that_messages_advise_lead_on(own: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(own)
    adata.X = adata.X.toarray()
    adata.X[5] = 0
    adata.write_h5ad(tmp_path / "empty.h5ad")
    with pytest.raises(DataError, match="--min-genes 1"):
        ready(own_data(tmp_path / "empty.h5ad", ["rare"]), tmp_path)
    found, _ = ready(own_data(tmp_path / "empty.h5ad", ["rare"], min_genes=1), tmp_path)
    assert found["cells"] == 199
    adata = adata[np.arange(200) != 5].copy()
    adata.X *= 1e4 / adata.X.sum(axis=1, keepdims=True)
    adata.write_h5ad(tmp_path / "linear.h5ad")
    with pytest.raises(DataError, match="--log1p"):
        ready(own_data(tmp_path / "linear.h5ad", ["rare"]), tmp_path)
    found, logs = ready(own_data(tmp_path / "linear.h5ad", ["rare"], log1p=True), tmp_path)
    assert found["x"] == "lognorm" and not found["counts"]
    np.testing.assert_allclose(logs.X, np.log1p(adata.X), rtol=1e-6)


def test_errors_name_data_set_and_file(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.h5ad: no label column 'cel type'"):
        ready(own_data(own, ["cel type"]), tmp_path)
    with pytest.raises(DataError, match=r"own \(own\.h5ad\): recipe step 'max_mito': no gene"):
        ready(with_recipe(own_data(own, ["rare"]), "max_mito"), tmp_path)
    with pytest.raises(ConfigError, match="no logarithms: add log1p"):
        ready(with_recipe(own_data(own, ["rare"]), "normalize"), tmp_path)
    with pytest.raises(DataError, match=r"no group column 'doner'.*did you mean donor"):
        ready(own_data(own, ["rare"], group="doner"), tmp_path)
    with pytest.raises(DataError, match="no inputs 'img'"):
        ready(own_data(own, ["rare"], inputs="img"), tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_a_downloaded_file_that_cannot_be_read_is_named(own: Path, tmp_path: Path) -> None:
    spec = own_data(own, ["rare"])
    spec = spec.model_copy(update={"id": "web", "files": (SourceFile(name="web.h5ad"),)})
    kept = tmp_path / "downloads" / "web" / "web.h5ad"
    kept.parent.mkdir(parents=True)
    adata = anndata.read_h5ad(own)
    adata.X.data[0] = np.nan
    adata.write_h5ad(kept)
    message = r"NaN.*should the download be damaged, delete .*web\.h5ad, .*web\.h5ad\.sha256"
    with pytest.raises(DataError, match=message):
        ready(spec, tmp_path)


def test_a_killed_write_leaves_nothing_and_can_be_repeated(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, target = own_data(own, ["rare"]), tmp_path / "out" / "own.h5ad"
    write = anndata.AnnData.write_h5ad

    def half(self: anndata.AnnData, path: Path, **options: Any) -> None:
        write(self, path, **options)
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", half)
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, target, tmp_path / "dl")
    assert list(target.parent.iterdir()) == []
    monkeypatch.undo()
    prepare(spec, target, tmp_path / "dl")
    before = target.read_bytes()
    monkeypatch.setattr(anndata.AnnData, "write_h5ad", half)
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, target, tmp_path / "dl")
    assert target.read_bytes() == before  # an older file stays whole
    assert [path.name for path in target.parent.iterdir()] == ["own.h5ad"]


def test_load_refuses_other_files(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a prepared file"):
        load(own)
    with pytest.raises(DataError, match="run preprocess again"):
        load(tmp_path / "gone.h5ad")


RECIPES = {
    "hvg": ("normalize", "log1p", {"hvg": {"n": 12}}),
    "hvg and scale": ("normalize", "log1p", {"hvg": {"n": 12, "flavor": "seurat"}}, "scale"),
    "scale": ("normalize", "log1p", {"scale": {"clip": None}}),
    "filters": ("log1p", "scale", {"filter_genes": {"min_cells": 90}}, {"hvg": {"n": 5}}),
    "by class": (
        "normalize",
        "log1p",
        {"hvg": {"n": 40}},
        {"class_expression_filter": {"column": "rare", "max_fraction": 0.9}},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_test_cells_cannot_influence_what_is_fitted(own: Path, tmp_path: Path, name: str) -> None:
    spec = own_data(own, ["rare"], min_cells=5, validation=0.1)
    spec = with_recipe(spec, *RECIPES[name])
    _, adata = ready(spec, tmp_path)
    fold = fit_fold(adata, spec, seed=1)
    assert fold.genes is not None or fold.mean is not None
    spoiled = adata.copy()
    rows = np.zeros((adata.n_obs, 1), dtype=bool)
    rows[fold.test] = True
    for matrix in (spoiled.X, *spoiled.layers.values()):
        matrix.data[np.repeat(rows.ravel(), np.diff(matrix.indptr))] = np.nan
    again = fit_fold(spoiled, spec, seed=1).arrays()
    assert again.keys() == fold.arrays().keys()
    for key, value in fold.arrays().items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    # The training cells do matter: without some of them another thing is fitted.
    other = fit_fold(adata, spec, seed=2).arrays()
    assert any(not np.array_equal(other[key], value) for key, value in fold.arrays().items())


def test_take_scales_any_cells_with_what_training_cells_gave(own: Path, tmp_path: Path) -> None:
    spec = with_recipe(own_data(own, ["cell type"]), *RECIPES["hvg and scale"])
    _, adata = ready(spec, tmp_path)
    fold = fit_fold(adata, spec, seed=0)
    train, test = fold.take(adata, fold.train), fold.take(adata, fold.test)
    assert train.uns["x"] == "scaled" and adata.uns["x"] == "lognorm"
    assert train.X.dtype == np.float32 and train.X.flags.c_contiguous
    np.testing.assert_allclose(train.X.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(train.X.std(axis=0, ddof=1), 1, atol=1e-2)
    raw = adata.X[fold.test][:, fold.genes].toarray()
    expected = np.clip((raw - fold.mean) / fold.std, -10, 10)
    np.testing.assert_allclose(test.X, expected, atol=1e-4)
    np.testing.assert_array_equal(representation(test, "lognorm").toarray(), raw)
    assert representation(test, "counts").shape == test.shape
    np.testing.assert_array_equal(representation(test, "binary").toarray(), raw > 0)
    assert representation(test, "prepared") is test.X


def test_take_keeps_every_class(own: Path, tmp_path: Path) -> None:
    spec = own_data(own, ["cell type"], regression=["proteins"])
    _, adata = ready(spec, tmp_path)
    fold = fit_fold(adata, spec, 0)
    one = fold.take(adata, np.flatnonzero(adata.obs["cell_type"] == "k2")[::-1])
    assert one.obs["cell_type"].cat.categories.tolist() == ["k0", "k1", "k2"]
    assert one.obs_names[0] > one.obs_names[-1] or len(one) > 1
    assert one.obsm["proteins"].shape == (one.n_obs, 4)


def test_fold_survives_storage(own: Path, tmp_path: Path) -> None:
    for name, recipe in RECIPES.items():
        spec = with_recipe(own_data(own, ["rare"], min_cells=5), *recipe)
        _, adata = ready(spec, tmp_path)
        fold = fit_fold(adata, spec, 0)
        np.savez(tmp_path / "fold.npz", **fold.arrays())  # type: ignore[arg-type]
        with np.load(tmp_path / "fold.npz") as stored:
            again = Fold.from_arrays(stored)
        assert again.clip == fold.clip
        a, b = fold.take(adata, fold.test), again.take(adata, again.test)
        assert a.obs.equals(b.obs) and a.var_names.equals(b.var_names), name
        dense = [x if isinstance(x, np.ndarray) else x.toarray() for x in (a.X, b.X)]
        np.testing.assert_array_equal(*dense)


def test_grouped_split_of_a_prepared_file(own: Path, tmp_path: Path) -> None:
    spec = own_data(own, ["rare"], group="donor", scheme="leave-one-group-out")
    _, adata = ready(spec, tmp_path)
    fold = fit_fold(adata, spec, seed=2)
    assert set(adata.obs["group"].iloc[fold.test]) == {"d2"}
    assert "d2" not in set(adata.obs["group"].iloc[fold.train])


def test_regression_only_and_no_tasks(own: Path, tmp_path: Path) -> None:
    for spec in (own_data(own, [], regression=["age"]), own_data(own, [])):
        _, adata = ready(spec, tmp_path)
        assert len(fit_fold(adata, spec, 0).test) == 40


def test_dense_and_binary_and_scaled_files(own: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(own)
    adata.X = adata.X.toarray()
    adata.write_h5ad(own)
    binary = with_recipe(own_data(own, ["rare"]), "normalize", "log1p", "binarize")
    found, adata = ready(binary, tmp_path)
    assert found["x"] == "binary" and set(adata.layers) == {"counts", "lognorm"}
    assert isinstance(adata.X, np.ndarray) and set(np.unique(adata.X)) == {0, 1}
    scaled = with_recipe(binary, "normalize", "log1p", {"scale": {"fit": "all"}})
    found, adata = ready(scaled, tmp_path)
    assert found["x"] == "scaled" and set(adata.layers) == {"counts", "lognorm"}
    fold = fit_fold(adata, scaled, 0)
    assert fold.genes is None and fold.mean is None
    assert fold.take(adata, fold.test).uns["x"] == "scaled"


def test_synthetic_markers_are_facts(tmp_path: Path) -> None:
    spec = synthetic_data("synthetic:cells=200,genes=60,types=2:4,xor=1")
    found, adata = ready(spec, tmp_path)
    assert len(found["markers"]["a0"]) == 3 and len(found["markers"]["xor"]) == 2
    assert list(found["tasks"]) == ["type_a", "type_b", "xor"]
    assert adata.uns["x"] == "lognorm"


def test_bundled_data_end_to_end(tmp_path: Path) -> None:
    spec = load_catalogue(ROOT / "datasets.yaml")["pbmc68k-reduced"]
    found, adata = ready(spec, tmp_path)
    assert (found["cells"], found["genes"]) == (700, 765)
    assert {name: len(task["classes"]) for name, task in found["tasks"].items()} == {
        "bulk_labels": 10, "phase": 3,
    }  # fmt: skip
    fold = fit_fold(adata, spec, 0)
    shares = adata.obs["bulk_labels"].iloc[fold.test].value_counts()
    assert len(fold.test) == 140 and shares.min() >= 1
    assert "counts" in fold.take(adata, fold.train).layers


def test_real_data_with_rare_classes(tmp_path: Path) -> None:
    data = real_data("data/mca_gut.h5ad").parent
    spec = load_catalogue(ROOT / "datasets.yaml")["mca_gut"]
    target = tmp_path / "mca.h5ad"
    found = prepare(spec, target, tmp_path / "downloads", [data])
    assert found["tasks"]["cell_type_fine"]["missing"] > 0
    assert min(found["tasks"]["cell_type_fine"]["counts"].values()) >= 10
    adata = load(target)
    fold = fit_fold(adata, spec, 0)
    train = fold.take(adata, fold.train)
    assert train.n_vars == 2000 and set(train.layers) == {"counts"}


def test_importing_this_stage_loads_no_heavy_library() -> None:
    heavy = ("scanpy", "anndata", "sklearn", "scipy", "pandas", "torch", "pooch", "h5py")
    code = f"""
import sys
import panelbench.stages.preprocess, panelbench.data.catalogue
sys.exit(", ".join(name for name in {heavy!r} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_split_error_names_the_option(own: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(own)
    adata.obs["rare"] = ["once"] + ["x", "y"] * 99 + ["x"]
    adata.write_h5ad(own)
    spec = own_data(own, ["rare"])
    _, prepared = ready(spec, tmp_path)
    with pytest.raises(DataError, match=r"'once' has 1 cell.*--min-cells-per-class"):
        fit_fold(prepared, spec, 0)
    relaxed = spec.model_copy(update={"split": SplitSpec(stratify=False)})
    assert len(fit_fold(prepared, relaxed, 0).test) == 40
    assert TaskSpec(name="rare").min_cells == 0 and STAMP in prepared.uns


@pytest.mark.parametrize(("module", "needed"), [("fold", "steps.py"), ("prepared", "prepared.py")])
def test_what_later_stages_import_reads_and_fetches_nothing(module: str, needed: str) -> None:
    """Their code is part of every later key: another reader must not make results stale."""
    names = {path.name for path in import_closure(f"panelbench.stages.{module}").values()}
    assert needed in names
    assert not names & {"fetch.py", "read.py", "preprocess.py", "catalogue.py"}


def test_how_files_are_brought_is_in_no_key() -> None:
    names = {path.name for path in import_closure("panelbench.stages.preprocess").values()}
    assert "read.py" in names
    assert not names & {"fetch.py", "download.py", "content.py", "archive.py"}
