"""What several readers need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import ConfigError, DataError
from panelbench.method import Matrix

if TYPE_CHECKING:
    from anndata import AnnData

Files = Mapping[str, Path]


def only(files: Files) -> Path:
    """Return the only file of a data set that has one."""
    if len(files) != 1:
        raise ConfigError(f"this reader takes one file, found {len(files)}: {', '.join(files)}")
    return next(iter(files.values()))


def open_h5ad(path: Path) -> AnnData:
    """Read an ``.h5ad`` file.

    Raises
    ------
    DataError
        Saying whether it is missing, truncated, or no such file at all.
    """
    import anndata

    try:
        return anndata.read_h5ad(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a damaged file
        import h5py

        kind = "damaged, or written by something else than anndata"
        if not h5py.is_hdf5(path):
            kind = "not an .h5ad file"
        elif "truncated" in str(error):
            kind = "truncated: the copy or download was cut off"
        elif foreign := _foreign(path):
            raise DataError(f"{path}: {foreign}") from error
        raise DataError(
            f"{path}: cannot be read, it is {kind} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message':.200}); "
            "get the file again"
        ) from error


def _foreign(path: Path) -> str | None:
    """What an HDF5 file of another kind is, and how to make an ``.h5ad`` of it."""
    import h5py

    labels = "add the labels as columns of obs and save it with write_h5ad"
    with h5py.File(path) as file:
        keys = set(file)
        if {"matrix", "row_attrs"} <= keys:
            return f"a loom file; read it with anndata.io.read_loom, {labels}"
        if any("barcodes" in group for group in file.values() if isinstance(group, h5py.Group)):
            return (
                "10x Genomics' feature-barcode matrix: it has no labels of cells. Read it with "
                f"scanpy.read_10x_h5, {labels}"
            )
        if {"assays", "cell.names"} <= keys:
            return "a Seurat object (h5Seurat); convert it to .h5ad with SeuratDisk's Convert"
    return None


def tidy(matrix: Any) -> Matrix:
    """CSR or C-contiguous array, float32."""
    from scipy import sparse

    if not sparse.issparse(matrix):
        return np.ascontiguousarray(matrix, dtype=np.float32)
    csr = sparse.csr_matrix(matrix, dtype=np.float32)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr
