"""Readers on miniature files of each format, and one error for each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from panelbench.data import checks
from panelbench.data.catalogue import load_catalogue
from panelbench.data.fetch import fetch
from panelbench.data.read import known_readers, read, reader_module
from panelbench.data.scale import describe
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.errors import ConfigError, DataError, UnknownName
from panelbench.records.code import import_closure
from tests.tools import real_data

ROOT = Path(__file__).parent.parent
rng = np.random.default_rng(0)
COUNTS = rng.poisson(2.0, size=(20, 6)).astype(np.float32) + np.eye(20, 6, dtype=np.float32)


def toy(X: Any = COUNTS, **columns: Any) -> anndata.AnnData:
    X = np.asarray(X, dtype=np.float32) if not sparse.issparse(X) else X
    n, d = X.shape
    obs = {"kind": ["a", "b"] * (n // 2), "age": np.arange(n) / 7, **columns}
    return anndata.AnnData(
        X=X,
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(d)]),
    )


def spec(*recipe: str, label: str = "kind", **options: Any) -> DatasetSpec:
    return DatasetSpec(
        id="toy",
        reader="h5ad",
        reader_options=options,
        recipe=recipe,  # type: ignore[arg-type]
        tasks=(TaskSpec(name="task", column=label),),
    )


def read_toy(folder: Path, adata: anndata.AnnData, *recipe: str, **options: Any) -> Any:
    path = folder / "toy.h5ad"
    adata.write_h5ad(path)
    return read(spec(*recipe, **options), {"toy.h5ad": path})


@pytest.mark.parametrize(
    "convert",
    [np.asarray, sparse.csr_matrix, sparse.csc_matrix, lambda x: sparse.csr_matrix(x, dtype=int)],
    ids=["dense", "csr", "csc", "int"],
)
def test_h5ad_counts(tmp_path: Path, convert: Any) -> None:
    adata = toy()
    adata.X = convert(COUNTS)
    found = read_toy(tmp_path, adata)
    assert found.uns["x"] == "counts" and found.X.dtype == np.float32
    assert isinstance(found.X, np.ndarray | sparse.csr_matrix)
    X = found.X if isinstance(found.X, np.ndarray) else found.X.toarray()
    np.testing.assert_array_equal(X, COUNTS)
    assert "counts" in found.layers


def test_h5ad_detects_what_x_is(tmp_path: Path) -> None:
    log = read_toy(tmp_path, toy(np.log1p(COUNTS)))
    assert log.uns["x"] == "lognorm" and "counts" not in log.layers
    assert read_toy(tmp_path, toy((COUNTS > 1) + np.eye(20, 6) > 0)).uns["x"] == "binary"
    both = toy(np.log1p(COUNTS))
    both.layers["counts"] = COUNTS
    found = read_toy(tmp_path, both)
    assert found.uns["x"] == "counts" and "layers" in found.uns["notes"][0]
    np.testing.assert_array_equal(found.X, COUNTS)
    both.layers["counts"] = np.sqrt(COUNTS)
    with pytest.raises(DataError, match=r"counts should hold raw counts.*--layer X"):
        read_toy(tmp_path, both)
    assert read_toy(tmp_path, both, layer="X").uns["x"] == "lognorm"


LINEAR = {
    "CP10K": 1e4 * COUNTS / COUNTS.sum(axis=1, keepdims=True),
    "shares": COUNTS / COUNTS.sum(axis=1, keepdims=True),
    "RPKM": 37.7 * COUNTS / np.linspace(0.5, 9, 6),
    "small and uneven": 3.3 * COUNTS / np.linspace(0.5, 9, 6),
    "fractional counts": np.where(np.arange(120).reshape(20, 6) % 3 == 0, COUNTS * 0.7, COUNTS),
}
LOGS = {
    "log1p of CP10K": np.log1p(LINEAR["CP10K"]),
    "log1p of counts": np.log1p(COUNTS),
    "log2 of counts": np.log2(1 + COUNTS),
    "log2 of CPM": np.log2(1 + 100 * LINEAR["CP10K"]),
    "log1p of RPKM": np.log1p(LINEAR["RPKM"]),
}


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("name", [*LINEAR, *LOGS])
def test_what_values_are(name: str, as_sparse: bool) -> None:
    X = np.asarray((LINEAR | LOGS)[name], dtype=np.float32)
    kind, evidence = describe(sparse.csr_matrix(X) if as_sparse else X)
    assert kind == ("linear" if name in LINEAR else "lognorm"), evidence


def test_logarithms_of_real_data_are_known(mirrors: list[Path]) -> None:
    for name in ("pbmc3k", "mca_gut", "her2st", "pancreas", "interneurons"):
        counts = sparse.csr_matrix(anndata.read_h5ad(mirrors[1] / f"{name}.h5ad").X).astype(float)
        normalised = counts.multiply(1e4 / counts.sum(axis=1)).tocsr()
        some = np.argsort(-np.asarray(normalised.mean(axis=0)).ravel())[:300]
        for X, kind in (
            (counts, "counts"),
            (normalised, "linear"),
            (normalised[:, some], "linear"),
            (normalised.log1p(), "lognorm"),
            (normalised[:, some].log1p(), "lognorm"),
            (counts.log1p(), "lognorm"),
        ):
            assert describe(X)[0] == kind, (name, describe(X))


def test_values_that_are_no_logarithms_stop_with_the_options_that_fit(tmp_path: Path) -> None:
    adata = toy(LINEAR["RPKM"])
    with pytest.raises(DataError, match=r"too large for logarithms.*--log1p.*no other matrix"):
        read_toy(tmp_path, adata)
    adata.layers["raw counts"] = COUNTS
    with pytest.raises(DataError, match=r"--log1p.*\(--layer\): raw counts"):
        read_toy(tmp_path, adata)
    with pytest.raises(DataError, match=r"RPKM holds .*too large"):
        read_toy(tmp_path, with_layer(adata, "RPKM", LINEAR["RPKM"]), layer="RPKM")
    with pytest.raises(DataError, match=r"should hold log-normalised values, but .*--log1p"):
        read_toy(tmp_path, adata, x="lognorm")
    assert read_toy(tmp_path, adata, x="linear").uns["x"] == "normalized"
    assert read_toy(tmp_path, toy(), x="linear").uns["x"] == "counts"
    shares = toy(LINEAR["shares"])
    with pytest.raises(DataError, match=r"add up to 1 in every cell.*if they are.*--lognorm"):
        read_toy(tmp_path, shares)
    assert read_toy(tmp_path, shares, x="lognorm").uns["x"] == "lognorm"
    with pytest.raises(ConfigError, match="x: 'logs' is none of auto, counts, linear, lognorm"):
        read_toy(tmp_path, shares, x="logs")


def with_layer(adata: anndata.AnnData, name: str, X: Any) -> anndata.AnnData:
    adata.layers[name] = X
    return adata


def test_genes_may_be_named_by_a_column(tmp_path: Path) -> None:
    adata = toy()
    adata.var["feature_name"] = pd.Categorical(["CD3", "CD4", "CD8", "MS4A1", "LYZ", "CD3"])
    assert not read_toy(tmp_path, adata).uns["notes"]
    adata.var_names = [f"ENSG{i:011d}" for i in range(6)]
    (note,) = read_toy(tmp_path, adata).uns["notes"]
    assert "Ensembl" in note and "--gene-names feature_name" in note
    with pytest.raises(DataError, match=r"1 gene names occur more than once \(CD3\)"):
        read_toy(tmp_path, adata, gene_names="feature_name")
    found = read_toy(tmp_path, adata, gene_names="feature_name", make_unique=True)
    assert list(found.var_names) == ["CD3", "CD4", "CD8", "MS4A1", "LYZ", "CD3-1"]
    with pytest.raises(DataError, match=r"no column 'feature' .* in var; did you mean"):
        read_toy(tmp_path, adata, gene_names="feature")


def test_counts_in_raw_are_named(tmp_path: Path) -> None:
    adata = toy()
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X)
    found = read_toy(tmp_path, adata)
    assert found.uns["x"] == "lognorm" and "--layer raw" in found.uns["notes"][0]
    assert read_toy(tmp_path, adata, layer="raw").uns["x"] == "counts"
    adata.raw = adata.copy()
    assert not read_toy(tmp_path, adata).uns["notes"]


def test_other_kinds_of_hdf5_are_refused_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    for names, message in (
        (("matrix/barcodes", "matrix/data"), r"10x Genomics.*name it \.h5 .*--labels"),
        (("GRCh38/barcodes", "GRCh38/genes"), "10x Genomics"),
        (("matrix", "row_attrs/Gene"), "a loom file: name it .loom"),
        (("assays/RNA", "cell.names"), "Seurat"),
    ):
        with h5py.File(path, "w") as file:
            for name in names:
                file[name] = np.arange(3)
        with pytest.raises(DataError, match=message):
            read(spec(), {"m.h5": path})


def test_h5ad_raw_and_layers(tmp_path: Path) -> None:
    adata = toy()
    adata.layers["other"] = COUNTS * 2
    adata.raw = adata.copy()
    small = adata[:, :3].copy()
    small.X = small.X - 5
    assert read_toy(tmp_path, small, layer="raw").shape == (20, 6)
    np.testing.assert_array_equal(read_toy(tmp_path, small, layer="other").X, 2 * COUNTS[:, :3])
    with pytest.raises(DataError, match=r"negative.*gene 'g\d'.*--layer\): other, raw"):
        read_toy(tmp_path, small)
    with pytest.raises(DataError, match="no layer 'othr'; did you mean other"):
        read_toy(tmp_path, small, layer="othr")


def test_names_that_repeat_or_are_empty(tmp_path: Path) -> None:
    adata = toy()
    adata.var_names = ["a", "b", "a", "c", "b", "a"]
    with pytest.raises(DataError, match=r"2 gene names occur more than once \(a, b\).*make_unique"):
        read_toy(tmp_path, adata)
    assert list(read_toy(tmp_path, adata, make_unique=True).var_names) == [
        "a", "b", "a-1", "c", "b-1", "a-2",
    ]  # fmt: skip
    adata.var_names = ["a", "b", "", "c", "d", "e"]
    with pytest.raises(DataError, match=r"genes without a name .1 in all, first: column 2"):
        read_toy(tmp_path, adata)


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (
            np.nan,
            {},
            r"toy.h5ad: X holds NaN or infinite values .1 in all, first: cell 'c3', gene 'g4'",
        ),
        (np.inf, {"x": "lognorm"}, r"NaN or infinite values .1 in all, first: cell 'c3'"),
        (-1.0, {}, r"X holds negative values .1 in all, first: cell 'c3', gene 'g4'"),
        (1.5, {"x": "counts"}, r"not whole numbers .1 in all, first: cell 'c3', gene 'g4', 1\.5"),
    ],
)
def test_values_that_do_not_fit(
    tmp_path: Path, value: float, options: dict[str, Any], message: str, as_sparse: bool
) -> None:
    X = COUNTS.copy()
    X[3, 4] = value
    with pytest.raises(DataError, match=message):
        read_toy(tmp_path, toy(sparse.csr_matrix(X) if as_sparse else X), **options)


def test_cells_without_counts(tmp_path: Path) -> None:
    X = COUNTS.copy()
    X[5] = 0
    with pytest.raises(DataError, match=r"1 of 20 cells have no counts.*'c5'.*min_genes: 1"):
        read_toy(tmp_path, toy(X))
    assert read_toy(tmp_path, toy(X), "filter_cells").n_obs == 20


def test_missing_label_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label column 'Kind_' in obs; did you mean kind"):
        read_toy(tmp_path, toy(), label="Kind_")
    with pytest.raises(DataError, match="there is kind, age"):
        read_toy(tmp_path, toy(), label="zzz")


def test_transposed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transposed, 6 cells x 20 genes.*'kind' is in var"):
        read_toy(tmp_path, toy().T.copy())
    adata = toy()
    adata.obs_names = ["Actb", "Gapdh", "Malat1", *(f"x{i}" for i in range(17))]
    with pytest.raises(DataError, match=r"transposed.*ACTB, GAPDH, MALAT1"):
        read_toy(tmp_path, adata)
    adata.obs_names = [f"ENSMUSG{i:011d}" for i in range(20)]
    with pytest.raises(DataError, match=r"transposed.*rows are named like genes"):
        read_toy(tmp_path, adata)
    adata = toy()
    adata.var_names = [f"ACGTACGTACGTAC{base}T-1" for base in "ACGT"] + ["x", "y"]
    with pytest.raises(DataError, match=r"transposed.*cell barcodes"):
        read_toy(tmp_path, adata)


def test_damaged_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.h5ad"
    toy().write_h5ad(whole)
    data = whole.read_bytes()
    broken = tmp_path / "broken.h5ad"
    for content, message in (
        (data[: len(data) // 2], "broken.h5ad: cannot be read, it is truncated"),
        (b"hello", "not an .h5ad file"),
        (b"", "not an .h5ad file"),
    ):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read(spec(), {"broken.h5ad": broken})
    with pytest.raises(DataError, match="no such file"):
        read(spec(), {"gone.h5ad": tmp_path / "gone.h5ad"})
    with h5py.File(broken, "w") as file:
        file["something"] = 1
    with pytest.raises(DataError, match=r"broken\.h5ad"):
        read(spec(), {"broken.h5ad": broken})


def labels(values: Any, **task: Any) -> pd.Categorical:
    adata = toy(np.ones((len(values), 2)), kind=values, age=0.0)
    return checks.class_labels(adata, TaskSpec(name="kind", **task), "toy")


def test_labels_become_strings_in_a_stable_order() -> None:
    ordered = pd.Categorical(["z", "a", "z", None], categories=["z", "b", "a"])
    assert list(labels(ordered).categories) == ["z", "a"]
    assert list(labels(["10", "9", "10", "b"]).categories) == ["10", "9", "b"]
    assert list(labels([10, 9, 2, 2]).categories) == ["2", "9", "10"]
    floats = labels([1.0, np.nan, 2.0, 2.0])
    assert list(floats.categories) == ["1", "2"] and floats.codes.tolist() == [0, -1, 1, 1]
    assert labels(["a", "", "b", " "]).codes.tolist() == [0, -1, 1, -1]
    assert labels([True, False, True, True]).codes.tolist() == [1, 0, 1, 1]


def test_rare_classes_are_missing() -> None:
    found = labels(["a", "a", "b", "b", "c", "c", "c", "d"], min_cells=2)
    assert list(found.categories) == ["a", "b", "c"] and found.codes[-1] == -1


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a"] * 6, {}, "has one class .'a'.; a task needs two"),
        (["a", "a", "b"], {"min_cells": 2}, r"one class with at least 2 cells \(min_cells\)"),
        ([None] * 4, {}, "has no class"),
        ([0.5, 1.5, 2.5], {}, "real numbers, not classes.*--target"),
        ([f"cell{i}" for i in range(60)], {}, "60 classes for 60 cells.*names of cells"),
    ],
)
def test_labels_that_are_none(values: Any, task: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels(values, **task)


def test_regression_targets() -> None:
    adata = toy(flat=1.0)
    adata.obsm["proteins"] = np.arange(60.0).reshape(20, 3)
    adata.obs.loc["c2", "age"] = np.inf

    def target(name: str) -> np.ndarray:
        return checks.regression_target(adata, TaskSpec(name=name, kind="regression"), "toy")

    assert target("age").shape == (20,) and np.isnan(target("age")[2])
    assert target("proteins").shape == (20, 3)
    for name, message in (
        ("protein", "did you mean proteins"),
        ("kind", "does not hold numbers"),
        ("flat", "is constant"),
    ):
        with pytest.raises(DataError, match=message):
            target(name)


def mat_files(folder: Path, **changes: Any) -> dict[str, Path]:
    variables = {
        "G": COUNTS.T.astype(np.uint16),
        "labels": np.array([[1.0], [2.0]] * 10),
        "citeseq_names": np.array([["B"], ["T"]] * 10, dtype=object),
        **changes,
    }
    found = {}
    for name, value in variables.items():
        if value is not None:
            found[name] = folder / f"{name}.mat"
            scipy.io.savemat(found[name], {name: value})
    return found


def mat_spec() -> DatasetSpec:
    return DatasetSpec(id="toy", reader="mat", tasks=(TaskSpec(name="cell_type"),))


def test_mat(tmp_path: Path) -> None:
    found = read(mat_spec(), mat_files(tmp_path))
    np.testing.assert_array_equal(found.X.toarray(), COUNTS)
    assert list(found.var_names[:2]) == ["gene_000", "gene_001"]
    assert found.obs["cell_type"].tolist() == ["B", "T"] * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"G": None, "g": COUNTS}, "no variable 'G'; did you mean g"),
        ({"G": COUNTS}, r"G is 20 x 6 \(genes x cells expected\), but there are 20 names"),
        ({"G": COUNTS.T + 0.5}, "G should hold raw counts"),
        ({"labels": np.arange(20)}, "disagree"),
    ],
)
def test_mat_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(mat_spec(), mat_files(tmp_path, **changes))


def test_damaged_mat(tmp_path: Path) -> None:
    files = mat_files(tmp_path)
    files["G"].write_bytes(files["G"].read_bytes()[:150])
    with pytest.raises(DataError, match=r"G\.mat: not a readable \.mat file"):
        read(mat_spec(), files)


def test_too_little_memory_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("scipy.io.loadmat", full)
    with pytest.raises(MemoryError):
        read(mat_spec(), mat_files(tmp_path))
    from panelbench.data.readers import geo_10x_tar

    monkeypatch.setattr("scanpy.read_10x_h5", full)
    with pytest.raises(MemoryError):
        geo_10x_tar._joined(tmp_path / "a.h5", pd.DataFrame(), "a.h5", ())


def test_bundled_counts_are_recovered_exactly(tmp_path: Path) -> None:
    genes = rng.poisson(rng.gamma(1.0, 5.0, size=(40, 1)), size=(40, 12)) + np.eye(40, 12)
    total = genes.sum(axis=1) + rng.integers(500, 9000, size=40)
    log = toy(np.log1p(genes / total[:, None] * 1e4).astype(np.float32), n_counts=total)
    log.X = sparse.csr_matrix(log.X)
    log.raw = log.copy()
    log.X = log.X.toarray() - 1
    log.write_h5ad(tmp_path / "b.h5ad")
    wanted = DatasetSpec(id="toy", reader="bundled", tasks=(TaskSpec(name="kind"),))
    found = read(wanted, {"b.h5ad": tmp_path / "b.h5ad"})
    np.testing.assert_array_equal(found.layers["counts"].toarray(), genes)
    assert found.uns["x"] == "lognorm"
    log.obs["n_counts"] = total * 1.01 + 0.5
    log.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match="counts cannot be recovered"):
        read(wanted, {"b.h5ad": tmp_path / "b.h5ad"})


def test_unknown_reader_and_option(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown reader 'h5'"):
        read(DatasetSpec(id="toy", reader="h5"), {})
    with pytest.raises(UnknownName, match=r"option of reader 'h5ad' 'lyer'.*did you mean layer"):
        read(spec(lyer="x"), {})


def test_a_reader_is_found_by_name_and_depends_on_no_other() -> None:
    assert {"h5ad", "mat", "bundled", "synthetic"} <= set(known_readers())
    modules = {name: f"{name.replace('-', '_')}.py" for name in known_readers()}
    for name, module in modules.items():
        names = [path.name for path in import_closure(reader_module(name)).values()]
        assert module in names
        # data/synthetic.py, which makes the data, has the name of its reader.
        assert not {*names} & ({*modules.values()} - {module}), name
    assert "readers" not in {
        path.parent.name for path in import_closure("panelbench.data.read").values()
    }


# --- real data ---------------------------------------------------------------------------------


@pytest.fixture
def mirrors() -> list[Path]:
    data = real_data("data")
    return [data / "mirror", data]


@pytest.mark.parametrize(
    ("name", "cells", "genes", "column", "classes"),
    [
        ("citeseq", 8617, 500, "cell_type", 13),
        ("pbmc3k", 2638, 13714, "celltype", 8),
        ("mca_gut", 1871, 14688, "cell_type_fine", 50),
    ],
)
def test_real_files(
    mirrors: list[Path],
    tmp_path: Path,
    name: str,
    cells: int,
    genes: int,
    column: str,
    classes: int,
) -> None:
    wanted = load_catalogue(ROOT / "datasets.yaml")[name]
    found = read(wanted, fetch(wanted, tmp_path, mirrors))
    assert found.shape == (cells, genes) and found.uns["x"] == "counts"
    assert found.obs[column].nunique() == classes
    missing = {g for group in wanted.markers.values() for g in group} - set(found.var_names)
    assert not missing


def test_bundled_file_of_scanpy(tmp_path: Path) -> None:
    wanted = load_catalogue(ROOT / "datasets.yaml")["pbmc68k-reduced"]
    found = read(wanted, fetch(wanted, tmp_path))
    assert found.shape == (700, 765) and found.obs["bulk_labels"].nunique() == 10
    counts = found.layers["counts"]
    assert checks.are_counts(counts) and counts.nnz == found.X.nnz
    back = np.log1p(counts.toarray() / found.obs["n_counts"].to_numpy()[:, None] * 1e4)
    assert np.abs(back - found.X.toarray()).max() < 0.01
