"""The catalogue: where it is found, what it accepts, one's own file, synthetic data by name."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from panelbench.data.catalogue import (
    find_catalogue,
    find_dataset,
    load_catalogue,
    own_data,
    synthetic_data,
    valid_name,
)
from panelbench.errors import ConfigError, DataError, UnknownName

ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PANELBENCH_DATASETS", raising=False)
    packaged = find_catalogue()
    assert packaged.parent.name == "panelbench" and packaged.is_file()
    (tmp_path / "datasets.yaml").write_text("{}")
    assert find_catalogue().resolve() == tmp_path / "datasets.yaml"
    monkeypatch.setenv("PANELBENCH_DATASETS", str(write(tmp_path, "{}")))
    assert find_catalogue() == tmp_path / "mine.yaml"
    other = tmp_path / "other.yaml"
    with pytest.raises(ConfigError, match="--datasets: no such file"):
        find_catalogue(other)
    other.write_text("{}")
    assert find_catalogue(other) == other
    monkeypatch.setenv("PANELBENCH_DATASETS", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match=r"\$PANELBENCH_DATASETS: no such file"):
        find_catalogue()


def test_shipped_catalogue() -> None:
    catalogue = load_catalogue(ROOT / "datasets.yaml")
    assert {"pbmc68k-reduced", "citeseq", "pbmc3k", "mca_gut"} <= set(catalogue)
    for spec in catalogue.values():
        assert spec.tasks and spec.title
        assert spec.reader == "synthetic" or all(file.sha256 or file.url for file in spec.files)
        assert spec.reader == "synthetic" or spec.citation
    assert [task.name for task in catalogue["pbmc68k-reduced"].tasks] == ["bulk_labels", "phase"]
    assert catalogue["pbmc3k"].recipe == catalogue["mca_gut"].recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d: {reader: h5ad, recepie: []}", r"mine.yaml, data set 'd'.*did you mean recipe"),
        ("d: {reader: h5da}", "unknown reader 'h5da'.*did you mean h5ad"),
        ("d: {reader: h5ad, reader_options: {layr: raw}}", "did you mean layer"),
        ("d: {reader: h5ad, recipe: [log2p]}", "data set 'd'.*did you mean log1p"),
        ("d: {reader: h5ad, tasks: [{name: a}, {name: a}]}", "task 'a' is declared twice"),
        ("d: {reader: h5ad, files: [{name: f, sha256: abc}]}", "sha256"),
        ("d: {reader: h5ad, group: a, split: {scheme: groups, group: b}}", "different columns"),
        ("d: {reader: h5ad, group: a, tasks: [{name: group}]}", "cannot be called 'group'"),
        ("d: {reader: synthetic, reader_options: {cells: 5}}", "data set 'd'.*cells"),
        ("d: {id: e, reader: h5ad}", "remove 'id'"),
        ("d: 3", "expected a mapping"),
        ("[1, 2]", "expected data sets by id"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_catalogue(write(tmp_path, text))


def test_find_dataset_offers_near_names() -> None:
    catalogue = load_catalogue(ROOT / "datasets.yaml")
    assert find_dataset("citeseq", catalogue).id == "citeseq"
    with pytest.raises(UnknownName, match="unknown data set 'pbmc-3k': did you mean pbmc3k"):
        find_dataset("pbmc-3k", catalogue)


def test_synthetic_by_name() -> None:
    spec = find_dataset("synthetic:cells=300,genes=80,types=2:4,xor=1,dropout=0.25,seed=7", {})
    assert spec.reader_options == {
        "cells": 300,
        "genes": 80,
        "types": [2, 4],
        "xor": 1,
        "dropout": 0.25,
        "seed": 7,
    }
    assert [task.name for task in spec.tasks] == ["type_a", "type_b", "xor"]
    # The id is a valid name, and a name of the same data set.
    assert synthetic_data(spec.id) == spec
    assert synthetic_data("synthetic:seed=7,genes=80").id == "synthetic:genes-80+seed-7"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic:cels=30", "unknown key 'cels'.*did you mean cells"),
        ("synthetic:colour=3", "there is .*cells.*xor"),
        ("synthetic:cells", "options are cells, genes"),
        ("synthetic:cells=30,cells=40", "each once"),
        ("synthetic:cells=many", "cells"),
    ],
)
def test_synthetic_mistakes(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthetic_data(name)


def test_own_data(tmp_path: Path) -> None:
    path = tmp_path / "my cells (v2).h5ad"
    path.write_bytes(b"not opened here")
    spec = own_data(path, ["cell type"], regression=["age"], min_cells=5, hvg=100, group="donor")
    assert spec.id == "my_cells_v2" and spec.reader == "h5ad"
    assert [(t.name, t.source, t.kind) for t in spec.tasks] == [
        ("cell_type", "cell type", "classification"),
        ("age", "age", "regression"),
    ]
    assert [step.name for step in spec.recipe] == ["to_lognorm", "hvg"]
    assert spec.group == "donor" and spec.split.group is None
    by_donor = own_data(path, ["x"], group="donor", scheme="groups", validation=0.1)
    assert by_donor.split.group == "donor" and by_donor.split.validation == 0.1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cells.rds", r"Type there: x <- readRDS\('cells.rds'\).*zellkonverter::writeH5AD"),
        ("cells.rda", r"print\(load\('cells.rda'\)\)"),
        ("cells.RData", "R objects"),
        ("cells.h5seurat", r"SeuratDisk::Convert\('cells.h5seurat'"),
        ("cells.xlsx", "a spreadsheet"),
        ("cells.xyz", "expected an .h5ad file .*, this is something else"),
        ("cells.h5ad.gz", "it is compressed; unpack it"),
        ("filtered/matrix.mtx.gz", "the folder has no features.tsv or genes.tsv"),
        ("folder/x", "the folder has no matrix.mtx"),
    ],
)
def test_other_files_are_refused_for_what_they_are(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(DataError, match=message):
        own_data(path if path.parent == tmp_path else path.parent, ["x"])


def test_own_data_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found AnnData; an AnnData object is saved with"):
        own_data(anndata.AnnData(np.ones((2, 2))), ["x"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such file"):
        own_data(tmp_path / "gone.h5ad", ["x"])
    with pytest.raises(ConfigError, match="exclude each other"):
        (tmp_path / "both.h5ad").touch()
        own_data(tmp_path / "both.h5ad", ["x"], log1p=True, lognorm=True)
    path = tmp_path / "d.h5ad"
    path.touch()
    with pytest.raises(ConfigError, match="needs 'group'"):
        own_data(path, ["x"], scheme="groups")
    with pytest.raises(ConfigError, match="test"):
        own_data(path, ["x"], test=1.5)
    with pytest.raises(ConfigError, match="declared twice"):
        own_data(path, ["a b", "a_b"])


@pytest.mark.parametrize(
    ("text", "name"), [("a b", "a_b"), ("_x", "x"), ("ü", "data"), ("GSE1-2.v3", "GSE1-2.v3")]
)
def test_valid_name(text: str, name: str) -> None:
    assert valid_name(text) == name


def test_data_sets_made_from_the_same_files_share_their_folder() -> None:
    found: dict[str, set[str]] = {}
    for spec in load_catalogue(ROOT / "datasets.yaml").values():
        for file in spec.files:
            found.setdefault(file.url or file.name, set()).add(spec.folder or spec.id)
    assert all(len(folders) == 1 for folders in found.values()), found


def test_where_files_come_from_is_said() -> None:
    from panelbench.data.catalogue import where_from

    shipped = load_catalogue(Path(__file__).parent.parent / "datasets.yaml")
    assert where_from(shipped["pbmc68k-reduced"]) == "comes with scanpy"
    assert where_from(shipped["synthetic-small"]) == "made by the suite"
    assert where_from(shipped["pbmc3k"]).startswith("to be supplied: pbmc3k.h5ad in --mirror")
    assert where_from(shipped["visp"]).startswith("download, ")
