"""What several readers need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import checks
from panelbench.errors import ConfigError, DataError, damaged, hint
from panelbench.method import Matrix

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData

Files = Mapping[str, Path]


def only(files: Files) -> Path:
    """Return the only file of a data set that has one."""
    if len(files) != 1:
        raise ConfigError(f"this reader takes one file, found {len(files)}: {', '.join(files)}")
    return next(iter(files.values()))


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    DataError
        When it is missing, or none.
    """
    import h5py

    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); get the file again") from error


def texts(stored: h5py.Dataset) -> list[str]:
    """Texts of an HDF5 file."""
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in stored[()]]


def features(X: Any, var: pd.DataFrame, kinds: list[str] | None) -> tuple[Any, Any, list[str]]:
    """The genes among the features of 10x Genomics, with a note of what is left out."""
    if kinds is None:
        return X, var, []
    genes = np.array([kind == "Gene Expression" for kind in kinds])
    if genes.all() or not genes.any():
        return X, var, []
    others = sorted({kind for kind in kinds if kind != "Gene Expression"})
    note = f"{int((~genes).sum())} features are no genes and are left out: {', '.join(others)}"
    return X[:, np.flatnonzero(genes)], var[genes], [note]


def open_h5ad(path: Path) -> AnnData:
    """Read an ``.h5ad`` file.

    Raises
    ------
    DataError
        Saying whether it is missing, truncated, or no such file at all.
    """
    import anndata

    with damaged(lambda error: _unreadable(path, error)):
        return anndata.read_h5ad(path)


def _foreign(path: Path) -> str | None:
    """What an HDF5 file of another kind is, and how to make an ``.h5ad`` of it."""
    import h5py

    with h5py.File(path) as file:
        keys = set(file)
        if {"matrix", "row_attrs"} <= keys:
            return "a loom file: name it .loom (reader loom)"
        if any("barcodes" in group for group in file.values() if isinstance(group, h5py.Group)):
            return (
                "10x Genomics' feature-barcode matrix: name it .h5 (reader tenx-h5) and give a "
                "table with labels of its cells (--labels)"
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
    if csr.indices.dtype != csr.indptr.dtype:
        # Some files have places of different widths, which scipy does not take.
        csr = sparse.csr_matrix((csr.data, csr.indices, csr.indptr), shape=csr.shape)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def with_counts(X: Matrix, obs: Any, genes: Any, where: str, notes: Iterable[str] = ()) -> AnnData:
    """Make what a reader of raw counts returns.

    Parameters
    ----------
    X
        Counts, cells x genes.
    obs
        Table of the cells; its index names them.
    genes
        Names of the genes.
    where
        Name of the file, for messages.
    notes
        For people.

    Raises
    ------
    DataError
        When a value is no count; naming cell and gene.
    """
    import anndata
    import pandas as pd

    adata = anndata.AnnData(X=X, obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=str)))
    checks.counts(adata.X, adata, where)
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=list(notes))
    return adata


def by_suffix(files: Files, *suffixes: str) -> list[Path]:
    """Pick the one file that ends with each suffix.

    Raises
    ------
    ConfigError
        When there is none or several of one kind.
    """
    found = []
    for suffix in suffixes:
        ends = [path for name, path in files.items() if name.lower().endswith(suffix)]
        if len(ends) != 1:
            raise ConfigError(
                f"this reader takes one {suffix} file, found {len(ends)} among {', '.join(files)}"
            )
        found += ends
    return found


def read_table(source: Any, where: str, needed: Iterable[str] = (), **options: Any) -> pd.DataFrame:
    """Read a table of text with pandas.

    Parameters
    ----------
    source
        Path or open file.
    where
        Its name, for messages.
    needed
        Columns it must have.
    options
        For `pandas.read_csv`.

    Raises
    ------
    DataError
        Not a table, or a column is missing (with near matches).
    """
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_csv(source, **options)
    except (ValueError, OSError, EOFError) as error:  # those of pandas are ValueErrors
        raise DataError(f"{where}: cannot be read as a table ({error}); get it again") from error
    for name in needed:
        if name not in table:
            raise DataError(f"{where}: no column {name!r}; {hint(name, table.columns)}")
    return table


def _unreadable(path: Path, error: Exception) -> str:
    """Why an .h5ad file cannot be read."""
    import h5py

    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file"
    kind = "damaged, or written by something else than anndata"
    if not h5py.is_hdf5(path):
        kind = "not an .h5ad file"
    elif "truncated" in str(error):
        kind = "truncated: the copy or download was cut off"
    elif foreign := _foreign(path):
        return f"{path}: {foreign}"
    return (
        f"{path}: cannot be read, it is {kind} ({type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no message':.200}); "
        "get the file again"
    )
