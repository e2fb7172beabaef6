"""One's own data in the forms that it has: the same cells from each of them, and advice."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import yaml
from scipy import sparse

from panelbench.data import blocks
from panelbench.data.catalogue import load_catalogue, own_data
from panelbench.data.fetch import fetch, source_checksum
from panelbench.data.read import read
from panelbench.errors import ConfigError, DataError
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare

rng = np.random.default_rng(0)
N, D = 14, 6
COUNTS = rng.poisson(1.0, size=(N, D)).astype(np.float32) + np.eye(N, D, k=-3, dtype=np.float32)
COUNTS[:, 0] += 1
CELLS = [f"{''.join(rng.choice(list('ACGT'), 14))}-1" for _ in range(N)]
GENES = ["CD3D", "LYZ", "ACTB", "B2M", "GAPDH", "NKG7"]
IDS = [f"ENSG{i:011d}" for i in range(D)]
KINDS = ["a", "b"] * (N // 2)


def labels(folder: Path, name: str = "labels.csv", cells: list[str] = CELLS) -> Path:
    """A table of labels, in another order than the cells."""
    path = folder / name
    table = pd.DataFrame({"kind": KINDS[: len(cells)], "donor": 1}, index=cells)[::-1]
    table.to_csv(path, sep="\t" if name.endswith("tsv") else ",")
    return path


def found(path: Path, label_file: Path | None = None, **options: Any) -> anndata.AnnData:
    """What is read of a file of one's own."""
    spec = own_data(path, ["kind"], label_file=label_file, **options)
    return read(spec, fetch(spec, path.parent / "downloads"))


def adata() -> anndata.AnnData:
    obs = pd.DataFrame({"kind": KINDS}, index=CELLS)
    var = pd.DataFrame({"ids": IDS}, index=GENES)
    return anndata.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=var)


def tenx_h5(folder: Path, old: bool = False) -> Path:
    path = folder / "cells.h5"
    csr = sparse.csr_matrix(COUNTS.astype(np.int32))
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if old else "matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(csr, name)
        group["shape"], group["barcodes"] = np.array([D, N]), np.array(CELLS, "S")
        if old:
            group["genes"], group["gene_names"] = np.array(IDS, "S"), np.array(GENES, "S")
        else:
            group["features/id"] = np.array(IDS, "S")
            group["features/name"] = np.array(GENES, "S")
            group["features/feature_type"] = np.array(["Gene Expression"] * D, "S")
    return path


def tenx_old(folder: Path) -> Path:
    return tenx_h5(folder, old=True)


def mtx(folder: Path, compressed: bool = True) -> Path:
    inside = folder / "filtered"
    inside.mkdir()
    end, opened = (".gz", gzip.open) if compressed else ("", open)
    names = pd.DataFrame({"id": IDS, "name": GENES, "kind": "Gene Expression"})
    genes = names if compressed else names[["id", "name"]]
    prefix = "GSM1_" if compressed else ""
    with opened(inside / f"{prefix}matrix.mtx{end}", "wb") as file:
        scipy.io.mmwrite(file, sparse.coo_matrix(COUNTS.T.astype(int)))
    name = f"{prefix}{'features' if compressed else 'genes'}.tsv{end}"
    genes.to_csv(inside / name, sep="\t", header=False, index=False)
    table = pd.Series(CELLS)
    table.to_csv(inside / f"{prefix}barcodes.tsv{end}", sep="\t", header=False, index=False)
    return inside


def mtx_plain(folder: Path) -> Path:
    return mtx(folder, compressed=False) / "matrix.mtx"


def loom(folder: Path) -> Path:
    path = folder / "cells.loom"
    with h5py.File(path, "w") as file:
        file["matrix"] = COUNTS.T
        file["layers/doubled"] = 2 * COUNTS.T
        file["row_attrs/Gene"], file["row_attrs/Accession"] = np.array(GENES, "S"), IDS
        file["col_attrs/CellID"], file["col_attrs/kind"] = np.array(CELLS, "S"), KINDS
        file["col_attrs/places"] = np.zeros((N, 2))
    return path


def zarr(folder: Path) -> Path:
    path = folder / "cells.zarr"
    adata().write_zarr(path)
    return path


def h5ad(folder: Path) -> Path:
    path = folder / "cells.h5ad"
    adata().write_h5ad(path)
    return path


def csv_with_labels(folder: Path) -> Path:
    path = folder / "cells.csv.gz"
    table = pd.DataFrame(COUNTS.astype(int), index=CELLS, columns=GENES)
    table.insert(2, "kind", KINDS)
    table.to_csv(path)
    return path


def genes_in_rows(folder: Path) -> Path:
    path = folder / "cells.tsv"
    table = pd.DataFrame(COUNTS.T.astype(int), index=GENES, columns=CELLS)
    # As R's write.table does it: nothing stands above the names of the rows.
    table.to_csv(path, sep="\t", index_label=False)
    return path


LABELLED = [loom, zarr, h5ad, csv_with_labels]
BARE = [tenx_h5, tenx_old, mtx, mtx_plain, genes_in_rows]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [*LABELLED, *BARE], ids=lambda write: write.__name__)
def test_the_same_cells_from_every_form(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    cells = found(path, None if write in LABELLED else labels(tmp_path))
    X = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
    np.testing.assert_array_equal(X, COUNTS)
    assert cells.X.dtype == np.float32 and cells.uns["x"] == "counts"
    assert list(cells.var_names) == GENES and list(cells.obs_names) == CELLS
    assert cells.obs["kind"].tolist() == KINDS


def test_genes_by_another_name(tmp_path: Path) -> None:
    table = labels(tmp_path)
    assert list(found(tenx_h5(tmp_path), table, gene_names="gene_ids").var_names) == IDS
    assert list(found(loom(tmp_path), gene_names="Accession").var_names) == IDS
    with pytest.raises(DataError, match=r"no column 'Acession' .* did you mean Accession"):
        found(loom(tmp_path), gene_names="Acession")


def test_features_that_are_no_genes_are_left_out(tmp_path: Path) -> None:
    path = tenx_h5(tmp_path)
    with h5py.File(path, "a") as file:
        del file["matrix/features/feature_type"]
        kinds = ["Gene Expression"] * 4 + ["Antibody Capture"] * 2
        file["matrix/features/feature_type"] = np.array(kinds, "S")
    cells = found(path, labels(tmp_path))
    assert list(cells.var_names) == GENES[:4]
    assert cells.uns["notes"] == ["2 features are no genes and are left out: Antibody Capture"]


def test_layers_of_a_loom_file(tmp_path: Path) -> None:
    path = loom(tmp_path)
    np.testing.assert_array_equal(found(path, layer="doubled").X.toarray(), 2 * COUNTS)
    with pytest.raises(DataError, match="no layer 'double'; did you mean doubled"):
        found(path, layer="double")
    with h5py.File(path, "a") as file:
        file["layers/counts"] = COUNTS.T
        del file["matrix"]
        file["matrix"] = 0.5 * COUNTS.T
    assert found(path).uns["x"] == "counts"
    with h5py.File(path, "a") as file:
        del file["row_attrs/Gene"]
    with pytest.raises(
        DataError, match=r"no attribute with the names of the genes \(Gene or .*Acc"
    ):
        found(path)


def test_normalised_values_are_known_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "rpkm.csv"
    table = pd.DataFrame(37.7 * COUNTS / np.linspace(0.5, 3, D), index=CELLS, columns=GENES)
    table.assign(kind=KINDS).to_csv(path)
    with pytest.raises(DataError, match=r"rpkm\.csv: X holds .* too large for logarithms.*--log1p"):
        found(path)
    assert found(path, log1p=True).uns["x"] == "normalized"


def test_tables_of_labels(tmp_path: Path) -> None:
    path = tenx_h5(tmp_path)
    with pytest.raises(DataError, match=r"no label column 'kind': .* says nothing .*--labels FILE"):
        found(path)
    some = found(path, labels(tmp_path, "some.tsv", CELLS[:10]))
    assert some.obs["kind"].tolist() == KINDS[:10] + [some.obs["kind"].iloc[-1]] * 4
    assert some.obs["kind"].isna().sum() == 4
    assert "4 of 14 cells are not in some.tsv: no labels" in some.uns["notes"]
    with pytest.raises(
        DataError, match=r"none of the cells of cells\.h5 is listed .there is 'c13'"
    ):
        found(path, labels(tmp_path, "other.csv", [f"c{i}" for i in range(N)]))
    twice = labels(tmp_path, "twice.csv", [*CELLS[:-1], CELLS[0]])
    with pytest.raises(DataError, match="occurs more than once"):
        found(path, twice)
    (tmp_path / "one.txt").write_text("\n".join(CELLS))
    with pytest.raises(DataError, match="this one has one column"):
        found(path, tmp_path / "one.txt")
    with pytest.raises(DataError, match=r"--labels .*gone\.csv: no such file"):
        found(path, tmp_path / "gone.csv")
    same = tmp_path / "deeper"
    same.mkdir()
    with pytest.raises(ConfigError, match="another name than that of --data"):
        found(path, labels(same, "cells.h5"))


def test_labels_may_stand_beside_an_h5ad_and_replace_a_column(tmp_path: Path) -> None:
    other = pd.DataFrame({"kind": [7.0, 8.0] * (N // 2)}, index=CELLS)
    other.to_csv(tmp_path / "clusters.csv", sep=";")
    cells = found(h5ad(tmp_path), tmp_path / "clusters.csv")
    assert cells.obs["kind"].tolist() == [7.0, 8.0] * (N // 2)


@pytest.mark.filterwarnings("ignore")
def test_a_large_zarr_store_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zarr(tmp_path)
    monkeypatch.setattr(blocks, "LARGE", 0)
    cells = found(path)
    assert blocks.is_stored(cells.X) and cells.obs["kind"].tolist() == KINDS
    np.testing.assert_array_equal(cells.X[:].toarray(), COUNTS)
    prepare(own_data(path, ["kind"]), tmp_path / "p.h5ad", tmp_path)
    prepared = load(tmp_path / "p.h5ad")
    np.testing.assert_array_equal(prepared.layers["counts"][:].toarray(), COUNTS)


@pytest.mark.parametrize("large", [False, True])
def test_places_of_different_widths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    path = h5ad(tmp_path)
    with h5py.File(path, "a") as file:
        ends = file["X/indptr"][()].astype(np.int64)
        del file["X/indptr"]
        file["X/indptr"] = ends
    if large:
        monkeypatch.setattr(blocks, "LARGE", 0)
    X = found(path).X
    np.testing.assert_array_equal(X[:].toarray(), COUNTS)


def test_damaged_files_are_said_to_be(tmp_path: Path) -> None:
    inside = mtx(tmp_path)
    (inside / "GSM1_barcodes.tsv.gz").unlink()
    pd.Series(CELLS[1:]).to_csv(inside / "barcodes.tsv", header=False, index=False)
    with pytest.raises(DataError, match=r"6 x 14 values, but .* 6 genes and .* 13 cells"):
        found(inside, labels(tmp_path))
    (inside / "GSM1_matrix.mtx.gz").write_bytes(b"no")
    with pytest.raises(DataError, match="not a Matrix Market file"):
        found(inside, labels(tmp_path))
    table = tmp_path / "t.csv"
    table.write_text(f"cell,g1,g2,kind\n{CELLS[0]},1,2,a\n{CELLS[1]},1,x,b\n")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as a table of numbers .*'x'"):
        found(table)
    table.write_text(f"name\ttext\t{CELLS[0]}\t{CELLS[1]}\nACTB\tactin\t1\t2\nB2M\tmicro\t1\t2\n")
    with pytest.raises(DataError, match="genes are in rows, but column 'text' holds text"):
        found(table, labels(tmp_path))
    for name in ("cells.loom", "cells.h5", "cells.zarr"):
        path = tmp_path / name
        path.mkdir() if name.endswith("zarr") else path.write_bytes(b"no")
        with pytest.raises(DataError, match="cannot be read"):
            found(path, labels(tmp_path))


def test_the_content_of_every_file_counts(tmp_path: Path) -> None:
    path, table = zarr(tmp_path), labels(tmp_path)
    spec = own_data(path, ["kind"], label_file=table)
    first = source_checksum(spec, tmp_path / "downloads")
    assert first == source_checksum(spec, tmp_path / "other")
    table.write_text(table.read_text().replace(",a,", ",c,"))
    second = source_checksum(spec, tmp_path / "downloads")
    chunk = next(
        p for p in sorted((path / "X").rglob("*")) if p.is_file() and p.stat().st_size > 20
    )
    chunk.write_bytes(chunk.read_bytes() + b"0")
    assert len({first, second, source_checksum(spec, tmp_path / "downloads")}) == 3


def test_the_labels_say_where_the_cells_are(tmp_path: Path) -> None:
    cells = [f"cell{i}" for i in range(N)]
    path = tmp_path / "plain.csv"
    pd.DataFrame(COUNTS.T.astype(int), index=GENES, columns=cells).to_csv(path)
    assert found(path, labels(tmp_path, cells=cells)).shape == (N, D)
    pd.DataFrame(COUNTS.astype(int), index=cells, columns=IDS).to_csv(path)
    assert found(path, labels(tmp_path, cells=cells)).shape == (N, D)
    # Names alone would not tell.
    pd.DataFrame(COUNTS.T.astype(int), index=[f"x{i}" for i in range(D)], columns=cells).to_csv(
        path
    )
    assert found(path, labels(tmp_path, cells=cells)).shape == (N, D)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [tenx_h5, mtx, loom, zarr], ids=lambda write: write.__name__)
def test_data_sets_of_a_catalogue(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path, table = write(tmp_path), labels(tmp_path)
    folder = path if write is mtx else tmp_path
    names = [p.name for p in sorted(path.iterdir())] if write is mtx else [path.name]
    reader = {"tenx_h5": "tenx-h5", "mtx": "tenx-mtx"}.get(write.__name__, write.__name__)
    entry = {
        "reader": reader,
        "reader_options": {"labels": table.name},
        "files": [{"name": name} for name in (*names, table.name)],
        "tasks": [{"name": "kind"}],
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"mine": entry}))
    spec = load_catalogue(tmp_path / "data.yaml")["mine"]
    mirrors = [folder, tmp_path]
    assert len(source_checksum(spec, tmp_path / "downloads", mirrors)) == 32
    cells = read(spec, fetch(spec, tmp_path / "downloads", mirrors))
    assert cells.obs["kind"].tolist() == KINDS and cells.shape == (N, D)
