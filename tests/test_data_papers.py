"""The papers' data sets: each read from a miniature in the very format of its source."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import anndata
import h5py
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from panelbench.data.catalogue import find_dataset, load_catalogue
from panelbench.data.read import read
from panelbench.data.recipes import resolve
from panelbench.data.specs import DatasetSpec, SourceFile
from panelbench.errors import ConfigError, DataError
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from tests.tools import Bench, real_data

ROOT = Path(__file__).parent.parent
CATALOGUE = load_catalogue(ROOT / "datasets.yaml")


def read_entry(name: str, folder: Path) -> anndata.AnnData:
    spec = CATALOGUE[name]
    return read(spec, {file.name: folder / file.name for file in spec.files})


def entry(name: str, **changes: Any) -> DatasetSpec:
    """An entry without checksums, so that a miniature can stand in for its files."""
    spec = CATALOGUE[name]
    files = tuple(SourceFile(name=file.name, url=file.url) for file in spec.files)
    return spec.model_copy(update={"files": files, **changes})


# --- VISp ----------------------------------------------------------------------------------------

VISP = "mouse_VISp_gene_expression_matrices_2018-06-14.zip"
STEM = "mouse_VISp_2018-06-14_"


def visp_archive(
    folder: Path,
    cells: list[str],
    genes: int = 12,
    matrix: np.ndarray | None = None,
    **members: Any,
) -> np.ndarray:
    """Write an archive like the Allen Institute's; return its counts, genes x cells."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, size=(genes, len(cells))) if matrix is None else matrix
    names = [f"F1S4_{i:06d}" for i in range(len(cells))]
    text = io.StringIO()
    pd.DataFrame(counts, index=[7000 - i for i in range(genes)], columns=names).to_csv(text)
    written: dict[str, Any] = {
        "exon-matrix.csv": quoted_header(text.getvalue()),
        "intron-matrix.csv": "wrong,matrix\n",
        "genes-rows.csv": "gene_symbol,gene_id,chromosome,gene_entrez_id,gene_name\n"
        + "".join(f'Gene{i},{i},1,{7000 - i},"name, {i}"\n' for i in range(genes)),
        "samples-columns.csv": "sample_name,sample_id,seq_name,class,comment\n"
        + "".join(
            f"{n},{i},{c},GABAergic,10 \xb5l\n"
            for i, (n, c) in enumerate(zip(names, cells, strict=True))
        ),
    }
    with zipfile.ZipFile(folder / VISP, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(STEM + "readme.txt", "about")
        for name, content in (written | members).items():
            if content is not None:
                archive.writestr(STEM + name, content.encode("iso-8859-1"))
    return counts


def quoted_header(text: str) -> str:
    """The source quotes the names of its columns."""
    header, _, rest = text.partition("\n")
    return ",".join(f'"{name}"' for name in header.split(",")) + "\n" + rest


def visp_labels(folder: Path, names: list[str]) -> None:
    lines = [f"{name},t{i % 4},n{i % 2},all{i % 2}\n" for i, name in enumerate(names)]
    header = "seq_name,cell_types_98,cell_types_50,cell_types_25\n"
    (folder / "VISp_PERSIST_metadata.csv").write_text(header + "".join(lines))
    (folder / "VISp_markers.toml").write_text('markers = ["Gene1", "Gene99",]\n')


def test_visp(tmp_path: Path) -> None:
    cells = [f"LS-{i}" for i in range(9)]
    counts = visp_archive(tmp_path, cells)
    visp_labels(tmp_path, cells[:4] + cells[6:])
    found = read_entry("visp", tmp_path)
    kept = [0, 1, 2, 3, 6, 7, 8]
    np.testing.assert_array_equal(found.X.toarray(), counts[:, kept].T)
    assert list(found.obs_names) == [cells[i] for i in kept]
    assert list(found.var_names) == [f"Gene{i}" for i in range(12)]
    assert found.obs["cell_types_98"].tolist() == ["t0", "t1", "t2", "t3", "t0", "t1", "t2"]
    assert list(found.obs) == ["cell_types_98", "cell_types_50", "cell_types_25"]
    assert found.uns["x"] == "counts" and "2 of 9 cells" in found.uns["notes"][0]
    assert found.uns["markers"] == {"VISp_markers": ["Gene1", "Gene99"]}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"exon-matrix.csv": None}, r"expected one file \.\.\.exon-matrix\.csv, it holds mouse"),
        ({"genes-rows.csv": "symbol,gene_entrez_id\nA,1\n"}, "no column 'gene_symbol'"),
        ({"exon-matrix.csv": '"","a"\n1,2\n'}, "its columns are not the rows of samples-columns"),
        ({"genes-rows.csv": "gene_symbol,gene_entrez_id\nA,1\n"}, "'7000' is not in genes-rows"),
    ],
)
def test_visp_mistakes(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    cells = [f"LS-{i}" for i in range(6)]
    visp_archive(tmp_path, cells, **members)
    visp_labels(tmp_path, cells)
    with pytest.raises(DataError, match=message):
        read_entry("visp", tmp_path)


def test_visp_rows_that_do_not_fit(tmp_path: Path) -> None:
    cells = [f"LS-{i}" for i in range(6)]
    visp_labels(tmp_path, cells)
    header = ",".join(["", *(f"F1S4_{i:06d}" for i in range(6))])
    whole = quoted_header(f"{header}\n7000,1,2,3,4,5,6\n6999,1,2,3,4,5,6\n")
    for old, new, message in (
        ("6999,1,2,3,4,5,6", "6999,1,2,3", r"row 2 \('6999'\) does not hold 6 numbers"),
        ("6999,1,2", "6999,1,two", r"row 2 \('6999'\) does not"),
        ("6999,1,2", "6999,1,", r"row 2 \('6999'\) does not"),
        ("6999,1,2", "6999,1,2.5", r"not whole numbers.*cell 'LS-1', gene 'Gene1'"),
        ("6999,1,2,3,4,5,6", "6999,1,2,3,4,5,6.5", r"not whole numbers.*cell 'LS-5'"),
        ("6999,1,2,3,4,5,6", "6999,1,2,3,4,5,6,7", r"row 2 \('6999'\) does not"),
        ("6999,1,2,3,4,5,6", "6999,1,2,3,4,5,6x", r"row 2 \('6999'\) does not"),
        ("6999,1,2", "6999,1,-2", "negative"),
    ):
        visp_archive(tmp_path, cells, **{"exon-matrix.csv": whole.replace(old, new)})
        with pytest.raises(DataError, match=message):
            read_entry("visp", tmp_path)
    visp_archive(tmp_path, cells)
    visp_labels(tmp_path, [*cells, "LS-99"])
    with pytest.raises(DataError, match=r"1 of 7 cells are not in .*first: 'LS-99'"):
        read_entry("visp", tmp_path)
    visp_labels(tmp_path, [*cells, "LS-1"])
    with pytest.raises(DataError, match="'LS-1' occurs more than once"):
        read_entry("visp", tmp_path)
    with pytest.raises(ConfigError, match=r"one \.zip file, found 0"):
        read(CATALOGUE["visp"], {"a.csv": tmp_path / "a.csv"})


def test_visp_with_its_real_labels(tmp_path: Path) -> None:
    """13,349 cells of 15,413; 98, 50 and 25 classes, of which 90, 46 and 23 have ten cells."""
    mirror = real_data("data/mirror/VISp_PERSIST_metadata.csv").parent
    labels = pd.read_csv(mirror / "VISp_PERSIST_metadata.csv")
    names = [*labels["seq_name"], *(f"glia-{i}" for i in range(15413 - len(labels)))]
    order = np.random.default_rng(0).permutation(len(names))
    visp_archive(tmp_path, [names[i] for i in order])
    spec = CATALOGUE["visp"]
    found = read(spec, {VISP: tmp_path / VISP} | {f.name: mirror / f.name for f in spec.files[1:]})
    assert found.n_obs == 13349
    columns = ["cell_types_98", "cell_types_50", "cell_types_25"]
    assert [found.obs[column].nunique() for column in columns] == [98, 50, 25]
    expected = labels.set_index("seq_name").loc[found.obs_names]
    assert (found.obs[columns] == expected[columns]).all(axis=None)
    facts = prepare(spec, tmp_path / "visp.h5ad", tmp_path / "downloads", [tmp_path, mirror])
    assert [len(facts["tasks"][column]["classes"]) for column in columns] == [90, 46, 23]
    assert facts["x"] == "binary" and facts["cells"] == 13349
    assert set(np.unique(load(tmp_path / "visp.h5ad").X.data)) == {1.0}


def test_ssv4_drops_classes_under_four_cells(tmp_path: Path) -> None:
    mirror = real_data("data/mirror/VISp_PERSIST_metadata.csv").parent
    names = pd.read_csv(mirror / "VISp_PERSIST_metadata.csv")["seq_name"].tolist()
    counts = np.random.default_rng(0).poisson(0.7, size=(12, len(names)))
    counts[0] += 1  # no cell is empty, and one gene is seen in all
    visp_archive(tmp_path, names, matrix=counts)
    spec = CATALOGUE["ssv4"]
    facts = prepare(spec, tmp_path / "ssv4.h5ad", tmp_path / "downloads", [tmp_path, mirror])
    assert facts["genes"] == 11
    assert facts["cells"] == 13342 and len(facts["tasks"]["cell_types_98"]["classes"]) == 92
    assert (tmp_path / "downloads" / "visp").is_dir()


# --- COVID ---------------------------------------------------------------------------------------

SAMPLES = (
    "GSM4674661_CM1_CM2", "GSM4674662_CM3_CM4", "GSM4674663_CM5", "GSM4674664_CS7_CS8",
    "GSM4674665_CS9_CS10", "GSM4674666_CS11_CS12", "GSM4674667_CR13_CR14",
    "GSM4674668_CR15_CR16", "GSM4674669_CR17_CR18",
)  # fmt: skip
IDENTS = (
    "CM1_2", "CM3_4", "CM5", "SeuratProject", "CS9_10", "CS11_12", "CR13_14", "CR15_16", "CR17_18",
)  # fmt: skip
GENES = [*(f"G{i}" for i in range(9)), "MT-CO1"]


def tenx_h5(path: Path, counts: np.ndarray, barcodes: list[str], genes: list[str]) -> None:
    """A feature-barcode matrix as Cell Ranger 3 writes it: barcodes x features, CSR."""
    matrix = sparse.csr_matrix(counts, dtype=np.int32)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["shape"] = np.array([len(genes), len(barcodes)])
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(len(genes))], dtype="S")
        features["name"] = np.array(genes, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(genes), dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(genes), dtype="S")


def covid_files(folder: Path, cells: int = 12, idents: tuple[str, ...] = IDENTS) -> np.ndarray:
    """The tar and the annotation; the last two cells of each sample are not annotated.

    All samples have the same barcodes: only sample and barcode together name a cell.
    """
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, size=(9, cells, len(GENES)))
    counts[..., -1] = 1
    barcodes = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(cells)]
    rows = ['"","orig.ident","celltype5","group","patient"']
    with tarfile.open(folder / "GSE154567_RAW.tar", "w") as tar:
        for number, (sample, ident) in enumerate(zip(SAMPLES, idents, strict=True)):
            path = folder / f"{sample}_filtered_feature_bc_matrix.h5"
            tenx_h5(path, counts[number], barcodes, GENES)
            tar.add(path, path.name)
            path.unlink()
            info = tarfile.TarInfo(f"{sample}.rds")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"junk"))
            for i in reversed(range(cells - 2)):
                rows.append(
                    f'"{barcodes[i]}_{number + 1}","{ident}","{"T" if i % 2 else "B"}",'
                    f'"{sample[11:13]}","p{number}"'
                )
    (folder / "GSE154567_annotation.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return counts


def test_covid(tmp_path: Path) -> None:
    counts = covid_files(tmp_path)
    found = read_entry("covid-pbmc", tmp_path)
    assert found.shape == (90, 10) and list(found.var_names) == GENES
    np.testing.assert_array_equal(found.X.toarray().reshape(9, 10, 10), counts[:, :10][:, ::-1])
    assert found.obs["patient"].tolist() == [f"p{i}" for i in range(9) for _ in range(10)]
    assert found.obs["celltype5"].tolist() == ["T", "B"] * 45
    assert found.obs_names.is_unique and "18 of 108 cells" in found.uns["notes"][0]


def test_covid_recipe(tmp_path: Path) -> None:
    covid_files(tmp_path, cells=30)
    steps = [step.model_dump() for step in CATALOGUE["covid-pbmc"].recipe]
    steps[0]["options"] = {"min_genes": 5}
    steps[6]["options"]["n"] = 5
    spec = entry("covid-pbmc", recipe=DatasetSpec(id="x", reader="h5ad", recipe=steps).recipe)
    facts = prepare(spec, tmp_path / "covid.h5ad", tmp_path / "downloads", [tmp_path])
    assert list(facts["tasks"]) == ["celltype5", "group", "patient"]
    assert facts["tasks"]["celltype5"]["counts"] == {"B": 126, "T": 126}
    assert facts["x"] == "lognorm" and any("hvg" in note for note in facts["notes"])


def test_covid_mistakes(tmp_path: Path) -> None:
    covid_files(tmp_path, idents=(*IDENTS[:3], "CS7_8", *IDENTS[4:]))
    assert read_entry("covid-pbmc", tmp_path).n_obs == 90
    covid_files(tmp_path, idents=(*IDENTS[:8], "other"))
    with pytest.raises(DataError, match=r"CR17_CR18.*no cell is annotated as sample CR17_18"):
        read_entry("covid-pbmc", tmp_path)
    covid_files(tmp_path, idents=(*IDENTS[:8], "CR15_16"))
    with pytest.raises(DataError, match=r"barcode [ACGT]{16} is annotated twice in sample CR15_16"):
        read_entry("covid-pbmc", tmp_path)
    whole = (tmp_path / "GSE154567_RAW.tar").read_bytes()
    (tmp_path / "GSE154567_RAW.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match="damaged"):
        read_entry("covid-pbmc", tmp_path)
    with tarfile.open(tmp_path / "GSE154567_RAW.tar", "w") as tar:
        tar.add(tmp_path / "GSE154567_annotation.csv.gz", "x.csv.gz")
    with pytest.raises(DataError, match="no member ends with _filtered_feature_bc_matrix"):
        read_entry("covid-pbmc", tmp_path)
    (tmp_path / "GSE154567_annotation.csv.gz").write_bytes(b"\x1f\x8bjunk")
    with pytest.raises(DataError, match=r"annotation\.csv\.gz: cannot be read as a table"):
        read_entry("covid-pbmc", tmp_path)


# --- Paul, Zeisel, mouse brain -------------------------------------------------------------------


def paul_file(path: Path, **changes: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, size=(6, 38))
    content: dict[str, Any] = {
        "data.debatched": counts,
        "data.debatched_rownames": ["Gata1;Gm1", "Rps3", "Elane", "Gata1", "Mtor", "Cst3;X;Y"],
        "data.debatched_colnames": [f"W{i}" for i in range(38)],
        "cluster.id": np.arange(38)[:, None] % 19 + 1.0,
        "info.genes_strings": ["Cst3", "Gata1", "Rps3", "Mtor", "01-Mar"],
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return counts


def test_paul(tmp_path: Path) -> None:
    counts = paul_file(tmp_path / "paul15.h5")
    found = read_entry("paul15", tmp_path)
    assert list(found.var_names) == ["Gata1", "Rps3", "Mtor", "Cst3"] and found.n_obs == 38
    np.testing.assert_array_equal(found.X, counts[[0, 1, 4, 5]].T)
    assert found.obs["cell_type"].tolist()[:10] == [*["Ery"] * 6, "MEP", "Mk", "GMP", "GMP"]
    assert found.obs["cell_type"].nunique() == 10 and found.obs["cluster"].nunique() == 19
    facts = prepare(entry("paul15"), tmp_path / "p.h5ad", tmp_path / "downloads", [tmp_path])
    # Names that begin with Mt and Rps go, as in the paper.
    assert list(load(tmp_path / "p.h5ad").var_names) == ["Gata1", "Cst3"]
    assert len(facts["tasks"]["cell_type"]["classes"]) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster.id": None}, "not the file that scanpy distributes"),
        ({"data.debatched": np.ones((6, 30))}, "30 x 6 values for 38 cells"),
        ({"cluster.id": np.full(38, 20.0)}, "cluster 20 belongs to no cell type"),
        ({"data.debatched": np.log1p(np.arange(228).reshape(6, 38))}, "expected counts, found"),
    ],
)
def test_paul_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paul_file(tmp_path / "paul15.h5", **changes)
    with pytest.raises(DataError, match=message):
        read_entry("paul15", tmp_path)


ZEISEL = "expression_mRNA_17-Aug-2014.txt"


def zeisel_file(path: Path, cells: int = 8, genes: int = 7) -> np.ndarray:
    """Ten rows of properties, an empty row of tabs, then a row per gene."""
    counts = np.random.default_rng(0).poisson(2.0, size=(genes, cells))
    properties = {
        "tissue": ["sscortex"] * cells,
        "group #": [1 + i % 2 for i in range(cells)],
        "total mRNA mol": [1221 + i for i in range(cells)],
        "well": range(cells),
        "sex": [3] * cells,
        "age": [21] * cells,
        "diameter": [0] * cells,
        "cell_id": [f"17720{i:05d}_A01" for i in range(cells)],
        "level1class": ["interneurons", "pyramidal SS"] * (cells // 2),
        "level2class": ["Int10", "(none)", "Int6", "S1PyrL4"] * (cells // 4),
    }
    lines = ["\t".join(map(str, ["", name, *values])) for name, values in properties.items()]
    lines.append("\t" * (cells + 1))
    lines += ["\t".join(map(str, [f"Gene{i}", i % 9, *row])) for i, row in enumerate(counts)]
    path.write_text("\n".join(lines) + "\n")
    return counts


def test_zeisel(tmp_path: Path) -> None:
    counts = zeisel_file(tmp_path / ZEISEL)
    found = read_entry("zeisel", tmp_path)
    np.testing.assert_array_equal(found.X.toarray(), counts.T)
    assert found.obs_names[3] == "1772000003_A01" and list(found.var_names[:2]) == [
        "Gene0",
        "Gene1",
    ]
    assert found.obs["level1class"].tolist() == ["interneurons", "pyramidal SS"] * 4
    facts = prepare(
        entry("zeisel-subtypes"), tmp_path / "z.h5ad", tmp_path / "downloads", [tmp_path]
    )
    assert facts["cells"] == 6
    assert facts["tasks"]["cell_type"]["counts"] == {"Int10": 2, "Int6": 2, "S1PyrL4": 2}


def test_zeisel_mistakes(tmp_path: Path) -> None:
    path = tmp_path / ZEISEL
    zeisel_file(path)
    text = path.read_text()
    for old, new, message in (
        ("\ttissue", "x\ttissue", "first 10 rows should be properties"),
        ("\tcell_id", "\tcell id", "no property 'cell_id'; did you mean cell id"),
        ("Gene3\t3", "Gene3", r"row 4 \('Gene3'\) does not hold 8 numbers"),
        (re.findall("Gene6.*", text)[0], "Gene6\t1\t2", r"row 7 \('Gene6'\) does not"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            read_entry("zeisel", tmp_path)
    path.write_text("\n".join(text.split("\n")[:11]))
    with pytest.raises(DataError, match="no rows with numbers"):
        read_entry("zeisel", tmp_path)


def brain_files(folder: Path, cells: int = 60) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    kinds = ["Ext_L23", "Ext_L5", "Inh_1", "Unk", "Unk_1", None]
    counts = rng.poisson(1.0, size=(cells, 8)) + np.eye(cells, 8, dtype=int)
    adata = anndata.AnnData(X=sparse.csr_matrix(counts, dtype=np.float32))
    adata.obs_names = [f"5705STDY{i:07d}" for i in range(cells)]
    adata.var_names = [f"ENSMUSG{i:011d}" for i in range(8)]
    adata.var["SYMBOL"] = ["Xkr4", "Sox17", None, "Sox17", "Rp1", "Lypla1", "Tcea1", "Gad1"]
    adata.write_h5ad(folder / "all_cells_20200625.h5ad")
    table = pd.DataFrame(
        {"sample": "s", "annotation_1": [kinds[i % 6] for i in range(cells)]},
        index=adata.obs_names,
    )
    table = table.iloc[::-1].dropna()
    table.to_csv(folder / "snRNA_annotation_astro_subtypes_refined59_20200823.csv")
    return adata


def test_mouse_brain(tmp_path: Path) -> None:
    source = brain_files(tmp_path)
    found = read_entry("mouse-brain", tmp_path)
    assert list(found.var_names) == [
        "Xkr4", "Sox17", "Sox17-1", "Rp1", "Lypla1", "Tcea1", "Gad1",
    ]  # fmt: skip
    np.testing.assert_array_equal(found.X.toarray(), source.X.toarray()[:, [0, 1, 3, 4, 5, 6, 7]])
    assert found.obs["annotation_1"].iloc[:5].tolist() == [
        "Ext_L23",
        "Ext_L5",
        "Inh_1",
        "Unk",
        "Unk_1",
    ]
    assert found.obs["cell_type"].iloc[:5].tolist() == ["Ext", "Ext", "Inh", "Unk", "Unk"]
    assert found.obs["annotation_1"].isna().sum() == 10
    loose = resolve(
        tuple(
            step.model_copy(update={"options": {**step.options, "min_fraction": 0.0}})
            if step.name == "class_expression_filter"
            else step
            for step in CATALOGUE["mouse-brain"].recipe
        )
    )
    for name, classes, cells in (("mouse-brain", 2, 30), ("mouse-brain-subtypes", 5, 50)):
        recipe = loose if name == "mouse-brain" else CATALOGUE[name].recipe
        spec = entry(name, recipe=recipe)
        facts = prepare(spec, tmp_path / "b.h5ad", tmp_path / "downloads", [tmp_path])
        assert facts["cells"] == cells and len(facts["tasks"]["cell_type"]["classes"]) == classes


def test_mouse_brain_mistakes(tmp_path: Path) -> None:
    source = brain_files(tmp_path)
    table = tmp_path / "snRNA_annotation_astro_subtypes_refined59_20200823.csv"
    text = table.read_text()
    table.write_text(text.replace("5705STDY", "other"))
    with pytest.raises(DataError, match=r"none of the cells of all_cells_20200625\.h5ad is listed"):
        read_entry("mouse-brain", tmp_path)
    table.write_text(text.replace("annotation_1", "annotation"))
    with pytest.raises(DataError, match="no column 'annotation_1'; did you mean annotation"):
        read_entry("mouse-brain", tmp_path)
    table.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(DataError, match="occurs more than once"):
        read_entry("mouse-brain", tmp_path)
    table.write_text(text)
    del source.var["SYMBOL"]
    source.write_h5ad(tmp_path / "all_cells_20200625.h5ad")
    with pytest.raises(DataError, match="no column 'SYMBOL' with gene names"):
        read_entry("mouse-brain", tmp_path)


def test_a_dry_run_downloads_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("panelbench.data.fetch.download", lambda url, *args: asked.append(url))
    found = bench.call_here("run", "--dataset", "visp", "--method", "random", "--dry-run")
    assert found.code == 2 and not asked
    assert "2018-06-14.zip (291 MB) is not downloaded yet" in found.err
    assert "panelbench preprocess --dataset visp" in found.err


# --- spatial -------------------------------------------------------------------------------------


def st_files(
    folder: Path, sections: tuple[str, ...] = ("B4", "C2", "C3", "C4", "C5", "C6")
) -> None:
    """Counts, spots, clusters and an image of each section; spots lie on a grid."""
    rng = np.random.default_rng(0)
    for number, section in enumerate(("B4", "C2", "C3", "C4", "C5", "C6")):
        xy = [(x, y) for x in range(5, 11) for y in range(10, 16)]
        names = [f"{x}x{y}" for x, y in xy]
        genes = ["ACTB", "ERBB2", f"ONLY{number}", "GAPDH"]
        counts = rng.poisson(3.0, size=(len(xy), 4)) + 1
        table = pd.DataFrame(counts, index=names, columns=genes)
        table.to_csv(folder / f"{section}.tsv.gz", sep="\t")
        spots = pd.DataFrame(xy, columns=["x", "y"]).assign(new_x=0.1, new_y=0.2)
        spots["pixel_x"] = spots["x"] * 10 + 0.46
        spots["pixel_y"] = spots["y"] * 10 + 0.04
        spots["selected"] = (np.arange(len(xy)) > 0).astype(int)
        spots = spots.iloc[::-1]
        spots.to_csv(folder / f"{section}_selection.tsv", sep="\t", index=False)
        clusters = spots[["pixel_x", "pixel_y"]].iloc[2:].assign(label=spots["x"] % 2)
        clusters.to_csv(folder / f"{section}-cluster-annotation.tsv.gz", sep="\t")
        image = np.zeros((200, 160, 3), dtype=np.uint8)
        image[:, 80:, 0] = 200
        matplotlib.image.imsave(folder / f"{section}.jpg", image)


def test_her2st(tmp_path: Path) -> None:
    st_files(tmp_path)
    found = read_entry("her2st", tmp_path)
    assert found.shape == (6 * 35, 9)
    assert list(found.obs_names[:2]) == ["B4_10x15", "B4_10x14"]
    table = pd.read_csv(tmp_path / "C3.tsv.gz", sep="\t", index_col=0)
    cells = found[found.obs["section"] == "C3"].to_df()
    assert cells.loc["C3_7x12", "ERBB2"] == table.loc["7x12", "ERBB2"]
    assert (cells["ONLY0"] == 0).all() and (cells["ONLY2"] > 0).all()
    assert found.obs["patient"].value_counts().to_dict() == {"C": 175, "B": 35}
    assert set(found.obs["region"].dropna()) == {"B0", "B1", "C0", "C1"}
    assert found.obs["region"].isna().sum() == 12
    assert found.obs.loc["C3_7x12", "region"] == "C1"
    assert found.obsm["image_features"].shape == (210, 27)
    red = pd.Series(found.obsm["image_features"][:, 0], index=found.obs_names)
    assert red["B4_5x12"] < red["B4_9x12"]
    facts = prepare(entry("her2st"), tmp_path / "h.h5ad", tmp_path / "downloads", [tmp_path])
    assert facts["groups"]["C2"] == 35 and len(facts["tasks"]["region"]["classes"]) == 4
    assert load(tmp_path / "h.h5ad").obsm["inputs"].shape == (210, 27)


def test_her2st_mistakes(tmp_path: Path) -> None:
    st_files(tmp_path)
    (tmp_path / "C4.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(DataError, match=r"C4\.jpg: not a readable image"):
        read_entry("her2st", tmp_path)
    st_files(tmp_path)
    path = tmp_path / "C5_selection.tsv"
    text = path.read_text()
    for old, new, message in (
        ("pixel_x", "px", r"C5_selection\.tsv: no column 'pixel_x'"),
        ("10\t15", "10\t99", r"C5\.tsv\.gz: spot 10x99 of C5_selection\.tsv is missing"),
        ("0.46\t", "0.96\t", "none of its pixels is a spot"),
        ("100.46", "9100.46", "lies outside of the image"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            read_entry("her2st", tmp_path)
    with pytest.raises(ConfigError, match=r"takes counts as S\.tsv\.gz"):
        read(CATALOGUE["her2st"], {"a.csv": tmp_path / "a.csv"})


def hest_files(folder: Path, spots: int = 30) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    X = sparse.csr_matrix(rng.poisson(2.0, size=(spots, 250)) + 1, dtype=np.float32)
    adata = anndata.AnnData(X=X)
    adata.obs_names = [f"{i:03d}x{i * 7 % 100:03d}" for i in range(spots)]
    adata.var_names = [f"G{i}" for i in range(250)]
    adata.write_h5ad(folder / "TENX1.h5ad")
    with h5py.File(folder / "TENX1.h5", "w") as file:
        order = rng.permutation(spots)[: spots - 3]
        file["barcode"] = np.array([[adata.obs_names[i]] for i in order], dtype="S")
        file["coords"] = np.stack([order, 100 * order], axis=1)
        file["img"] = np.broadcast_to(
            order[:, None, None, None].astype(np.uint8), (spots - 3, 8, 8, 3)
        )
    return adata


def test_patches_are_averaged_by_squares() -> None:
    from panelbench.data.readers._colours import averaged

    patch = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    expected = [patch[y : y + 3, x : x + 3].mean(axis=(0, 1)) for y in (0, 3) for x in (0, 3)]
    np.testing.assert_array_equal(averaged(patch, 2), np.concatenate(expected))


def test_hest(tmp_path: Path) -> None:
    source = hest_files(tmp_path)
    spec = find_dataset("hest:TENX1", CATALOGUE)
    files = {file.name: tmp_path / file.name for file in spec.files}
    found = read(spec, files)
    assert found.n_obs == 27 and "3 of 30 spots have no patch" in found.uns["notes"][0]
    number = [source.obs_names.get_loc(name) for name in found.obs_names]
    np.testing.assert_array_equal(found.X.toarray(), source.X.toarray()[number])
    np.testing.assert_allclose(found.obsm["image_features"][:, 0] * 255, number, atol=1e-4)
    np.testing.assert_array_equal(found.obsm["spatial"][:, 1], 100 * np.array(number))
    facts = prepare(spec, tmp_path / "h.h5ad", tmp_path / "downloads", [tmp_path])
    assert facts["x"] == "lognorm" and facts["cells"] == 27
    small = read(find_dataset("hest:TENX1+patches-4", CATALOGUE), files)
    assert small.obsm["patches"].shape == (27, 4 * 4 * 3)
    assert small.obsm["patches"].dtype == np.uint8
    np.testing.assert_array_equal(small.obsm["patches"][:, 7], number)
    with pytest.raises(ConfigError, match="3 does not divide patches of shape"):
        read(find_dataset("hest:TENX1+patches-3", CATALOGUE), files)
    with pytest.raises(ConfigError, match="pixels as a number"):
        find_dataset("hest:TENX1+patches-few", CATALOGUE)
    with pytest.raises(DataError, match=r"TENX2\.h5ad has no download address.*--mirror"):
        prepare(find_dataset("hest:TENX2", CATALOGUE), tmp_path / "x", tmp_path / "downloads")
    with h5py.File(tmp_path / "TENX1.h5", "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((5, 2))
    with pytest.raises(DataError, match="27 barcodes, 5 coordinates"):
        read(spec, files)
    with h5py.File(tmp_path / "TENX1.h5", "a") as file:
        del file["coords"]
    with pytest.raises(DataError, match="no patches of HEST-1k"):
        read(spec, files)
