"""Time and peak memory of preparing the largest data sets, on synthetic files of their real sizes.

``python tests/perf/data.py`` writes the files into a temporary folder (about 1 GB), prepares each
data set by its entry of the catalogue in a process of its own, and prints a table; names of data
sets, ``visp`` and ``covid-pbmc``, choose. Times are of the processor.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from panelbench.data.catalogue import load_catalogue

ROOT = Path(__file__).parent.parent.parent
CATALOGUE = load_catalogue(ROOT / "datasets.yaml")
STEM = "mouse_VISp_2018-06-14_"


def visp(folder: Path, genes: int = 45_768, cells: int = 15_413, labelled: int = 13_349) -> None:
    """Counts with a fifth of the entries above zero, and labels of three levels."""
    rng = np.random.default_rng(0)
    # A thousand genes drawn, and written again and again: drawing all takes minutes.
    rates = np.minimum(rng.gamma(0.12, 60.0, size=1000), 3000) + 0.0005
    text = [str(i) for i in range(20_000)]
    drawn = []
    for rate in rates:
        row = rng.negative_binomial(0.4, 0.4 / (0.4 + rate), size=cells)
        drawn.append(",".join([text[v] for v in np.minimum(row, 19_999)]))
    path = folder / CATALOGUE["visp"].files[0].name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(STEM + "exon-matrix.csv", "w", force_zip64=True) as out:
            out.write(("," + ",".join(f'"F{i}"' for i in range(cells)) + "\n").encode())
            for gene in range(genes):
                out.write(f"{gene},{drawn[gene % len(drawn)]}\n".encode())
        rows = "".join(f"Gene{i},{i}\n" for i in range(genes))
        archive.writestr(STEM + "genes-rows.csv", "gene_symbol,gene_entrez_id\n" + rows)
        rows = "".join(f"F{i},LS-{i}\n" for i in range(cells))
        archive.writestr(STEM + "samples-columns.csv", "sample_name,seq_name\n" + rows)
    rows = "".join(f"LS-{i},a{i % 98},b{i % 50},c{i % 25}\n" for i in range(labelled))
    header = "seq_name,cell_types_98,cell_types_50,cell_types_25\n"
    (folder / CATALOGUE["visp"].files[1].name).write_text(header + rows)
    (folder / CATALOGUE["visp"].files[2].name).write_text('markers = ["Gene1"]\n')


def covid(folder: Path, genes: int = 33_538, cells: int = 7_111) -> None:
    """Nine samples, 64,000 cells, about 2,000 genes in each."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.06, 4.0, size=genes)
    rates[:13] = 0.05
    names = [*(f"MT-{i}" for i in range(13)), *(f"G{i}" for i in range(13, genes))]
    samples = (
        "1_CM1_CM2", "2_CM3_CM4", "3_CM5", "4_CS7_CS8", "5_CS9_CS10", "6_CS11_CS12",
        "7_CR13_CR14", "8_CR15_CR16", "9_CR17_CR18",
    )  # fmt: skip
    known = CATALOGUE["covid-pbmc"].reader_options["names"]
    # One sample drawn, and its cells in another order for each: drawing takes minutes.
    one = sparse.vstack(
        [
            sparse.csr_matrix(rng.poisson(rates, size=(n, genes)), dtype=np.int32)
            for n in np.diff([*range(0, cells, 400), cells])
        ],
        format="csr",
    )
    lines = ['"","orig.ident","celltype5","group","patient"']
    with tarfile.open(folder / "GSE154567_RAW.tar", "w") as tar:
        for number, sample in enumerate(samples, 1):
            matrix = one[rng.permutation(cells)]
            codes = np.array(list("ACGT"))[(np.arange(cells)[:, None] // 4 ** np.arange(16)) % 4]
            barcodes = ["".join(code) + "-1" for code in codes]
            path = folder / f"GSM467466{sample}_filtered_feature_bc_matrix.h5"
            with h5py.File(path, "w") as file:
                group = file.create_group("matrix")
                group["barcodes"] = np.array(barcodes, dtype="S")
                group["shape"] = np.array([genes, cells])
                for name in ("data", "indices", "indptr"):
                    group.create_dataset(name, data=getattr(matrix, name), compression="lzf")
                features = group.create_group("features")
                features["id"] = np.array([f"ENSG{i:011d}" for i in range(genes)], dtype="S")
                features["name"] = np.array(names, dtype="S")
                for name in ("feature_type", "genome"):
                    features[name] = np.array(["Gene Expression"] * genes, dtype="S")
            tar.add(path, path.name)
            path.unlink()
            ident = known.get(sample[2:], (sample[2:],))[0]
            lines += [
                f'"{barcode}_{number}","{ident}","T{i % 9}","g{number % 3}","p{number}"'
                for i, barcode in enumerate(barcodes)
            ]
    table = gzip.compress("\n".join(lines).encode(), compresslevel=1)
    (folder / "GSE154567_annotation.csv.gz").write_bytes(table)


def measure(name: str, folder: Path, work: Path) -> None:
    """Prepare a data set and fit a split, in this process; print a row of the table."""
    from panelbench.stages.fold import fit_fold
    from panelbench.stages.prepared import load
    from panelbench.stages.preprocess import prepare

    spec, target = CATALOGUE[name], work / "prepared.h5ad"
    files = tuple(file.model_copy(update={"sha256": None, "size": None}) for file in spec.files)
    start = time.process_time()
    spec = spec.model_copy(update={"files": files})
    facts = prepare(spec, target, work / "downloads", [folder])
    prepared, peak = time.process_time() - start, peak_gb()
    start = time.process_time()
    fold = fit_fold(load(target), spec, 0)
    genes = facts["genes"] if fold.genes is None else len(fold.genes)
    print(
        f"| {name} | {facts['cells']:,} x {facts['genes']:,} | {prepared:.0f} | {peak:.1f} "
        f"| {target.stat().st_size / 1e9:.1f} | {genes:,} | {time.process_time() - start:.0f} "
        f"| {peak_gb():.1f} |",
        flush=True,
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["visp", "covid-pbmc"])
    parser.add_argument("--folder", type=Path, help="keep the files here, and use those there are")
    options = parser.parse_args()
    print("| data set | prepared | s | peak GB | file GB | genes of a split | s | peak GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    makers = {"visp": visp, "covid-pbmc": covid}
    for name in options.names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)) / name
            files = [folder / file.name for file in CATALOGUE[name].files]
            if not all(path.is_file() for path in files):
                folder.mkdir(parents=True, exist_ok=True)
                makers[name](folder)
            for path in files:
                size = path.stat().st_size
                print(f"{path.name}: {size / 1e6:,.1f} MB", file=sys.stderr, flush=True)
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(name, folder, Path(temporary))
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
