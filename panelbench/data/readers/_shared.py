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
        raise DataError(
            f"{path}: cannot be read, it is {kind} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message':.200}); "
            "get the file again"
        ) from error


def tidy(matrix: Any) -> Matrix:
    """CSR or C-contiguous array, float32."""
    from scipy import sparse

    if not sparse.issparse(matrix):
        return np.ascontiguousarray(matrix, dtype=np.float32)
    csr = sparse.csr_matrix(matrix, dtype=np.float32)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr
