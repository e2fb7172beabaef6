"""What a file or folder of one's own is, which reader takes it, and what to do where none does."""

from __future__ import annotations

from pathlib import Path

from panelbench.data.readers.tenx_mtx import CELLS, GENES, MATRIX
from panelbench.errors import ConfigError, DataError

_READERS = {
    ".h5ad": "h5ad",
    ".loom": "loom",
    ".zarr": "zarr",
    ".csv": "table",
    ".tsv": "table",
    ".txt": "table",
    ".tab": "table",
}
"""Suffix, less ``.gz``, -> reader. What ``.h5`` is, its content says."""

_KNOWN = (
    "an .h5ad file (AnnData), 10x Genomics' .h5 or folder of matrix.mtx, a .loom file, a .zarr "
    "store of AnnData or a table (.csv, .tsv, also .gz)"
)
_R_OBJECT = (
    "{path}: an R object, which only R can read. Type there: "
    "x <- readRDS({path.name!r}); "
    "if (inherits(x, 'Seurat')) x <- Seurat::as.SingleCellExperiment(x); "
    "zellkonverter::writeH5AD(x, '{path.stem}.h5ad'); and give {path.stem}.h5ad"
)
_R_OBJECTS = (
    "{path}: R objects, which only R can read. Type there: print(load({path.name!r})); x <- get() "
    "of the name that it prints; "
    "if (inherits(x, 'Seurat')) x <- Seurat::as.SingleCellExperiment(x); "
    "zellkonverter::writeH5AD(x, '{path.stem}.h5ad'); and give {path.stem}.h5ad"
)
_REFUSED = {
    ".rds": _R_OBJECT,
    ".rda": _R_OBJECTS,
    ".rdata": _R_OBJECTS,
    ".robj": _R_OBJECTS,
    ".h5seurat": "{path}: a Seurat object (h5Seurat). In R, SeuratDisk::Convert({path.name!r}, "
    "dest = 'h5ad') makes an .h5ad of it",
    ".xlsx": "{path}: a spreadsheet, which turns names of genes into dates; save it as .csv",
}


def recognise(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Reader of a file or folder of one's own, and the files that it takes.

    Raises
    ------
    DataError
        No such file, or one that cannot be read; with what to do.
    """
    if not isinstance(path, Path):
        raise ConfigError(
            f"data: expected the path of a file, found {type(path).__name__}; an AnnData "
            "object is saved with write_h5ad"
        )
    if path.is_dir():
        inside = {item.name for item in path.iterdir()}
        if path.suffix == ".zarr" or inside & {".zgroup", ".zattrs", "zarr.json"}:
            return "zarr", (path,)
        return "tenx-mtx", _triple(path, path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".mtx":
        return "tenx-mtx", _triple(path.parent, path)
    if suffix in _REFUSED:
        raise DataError(_REFUSED[suffix].format(path=path))
    if suffix == ".h5":
        return ("tenx-h5" if _has_barcodes(path) else "h5ad"), (path,)
    if suffix not in _READERS:
        raise DataError(f"{path}: expected {_KNOWN}, this is something else")
    if path.suffix.lower() == ".gz" and _READERS[suffix] != "table":
        raise DataError(f"{path}: it is compressed; unpack it with gunzip first")
    return _READERS[suffix], (path,)


def _triple(folder: Path, given: Path) -> tuple[Path, ...]:
    """The three files of a folder of 10x Genomics."""
    inside = sorted(item for item in folder.iterdir() if item.is_file())
    found = []
    for ends in (MATRIX, GENES, CELLS):
        fits = [p for p in inside if p.name.lower().removesuffix(".gz").endswith(ends)]
        if len(fits) != 1:
            names = " or ".join(ends)
            many = (
                f"several of {names}: {', '.join(p.name for p in fits)}" if fits else f"no {names}"
            )
            raise DataError(
                f"{given}: expected {_KNOWN}; the folder has {many} (.gz or not), and one is needed"
            )
        found += fits
    return tuple(found)


def _has_barcodes(path: Path) -> bool:
    """Whether an HDF5 file is a feature-barcode matrix of 10x Genomics."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        return any("barcodes" in group for group in groups)
