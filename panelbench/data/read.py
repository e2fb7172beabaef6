"""From the files of a data set to an AnnData, cells x genes, with its values checked.

The reader of each format is a module in `panelbench.data.readers`, found by its name.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from panelbench.data import checks
from panelbench.data.blocks import is_stored
from panelbench.data.specs import DatasetSpec
from panelbench.errors import DataError, UnknownName

if TYPE_CHECKING:
    from anndata import AnnData

_READERS = "panelbench.data.readers"


def read(spec: DatasetSpec, files: Mapping[str, Path]) -> AnnData:
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
    if not is_stored(adata.X):  # those were looked at by their reader
        checks.matrix_values(adata.X, adata, where)
    if not any(step.name == "filter_cells" for step in spec.recipe):
        checks.empty_cells(adata, where)
    return adata


def known_readers() -> list[str]:
    """Names of all readers, sorted."""
    modules = (Path(__file__).parent / "readers").glob("[!_]*.py")
    return sorted(path.stem.replace("_", "-") for path in modules)


def reader_module(name: str) -> str:
    """Dotted name of the module of a reader: what prepared data depend on besides this one."""
    return f"{_READERS}.{name.replace('-', '_')}"


def check_reader(spec: DatasetSpec) -> Callable[..., AnnData]:
    """Return the reader of a data set; its name and options must exist.

    Raises
    ------
    ConfigError
    """
    if spec.reader not in known_readers():
        raise UnknownName("reader", spec.reader, known_readers(), f"data set {spec.id!r}")
    reader: Callable[..., AnnData] = importlib.import_module(reader_module(spec.reader)).read
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
