"""The prepared file of a data set, as every later stage sees it.

It holds ``X`` (CSR or dense float32), ``layers["counts"]`` where the data have counts,
``layers["lognorm"]`` where ``X`` is scaled or binary, one ``obs`` column per task, by its name
(``obsm`` for targets with several outputs), ``obs["group"]``, ``obsm["inputs"]``,
``obsm["spatial"]`` where the split has tiles, ``uns["x"]`` (what ``X`` is) and
``uns["panelbench"]``, JSON with the recipe and the facts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.blocks import is_large, open_stored
from panelbench.errors import DataError, NotApplicable, damaged
from panelbench.method import Matrix, Needs

if TYPE_CHECKING:
    from anndata import AnnData

STAMP = "panelbench"
INPUTS, SPATIAL = "inputs", "spatial"


def load(path: Path) -> AnnData:
    """Read a prepared file; of a large one, the matrices stay there (see `data.blocks`).

    Raises
    ------
    DataError
        When it is missing, damaged or not a prepared file.
    """
    import anndata

    again = "run preprocess again"
    with damaged(lambda error: f"{path}: prepared data cannot be read ({error}); {again}"):
        adata = _large(path)
        if adata is None:
            adata = anndata.read_h5ad(path)
    if STAMP not in adata.uns:
        raise DataError(f"{path}: not a prepared file; run preprocess (or use --data)")
    return adata


def _large(path: Path) -> AnnData | None:
    """A prepared file whose matrices stay on disk; None of a small one."""
    import h5py
    from anndata.io import read_elem

    file = h5py.File(path, "r")
    if not is_large(file["X"]):
        file.close()
        return None
    parts = {name: read_elem(file[name]) for name in ("obs", "var", "obsm", "uns")}
    return open_stored({"X": file["X"], **dict(file["layers"].items())}, **parts)


def gene_names(path: Path) -> list[str]:
    """Genes of a prepared file, without reading its matrix."""
    import h5py

    with h5py.File(path) as stored:
        index = stored["var"].attrs["_index"]
        return [name.decode() for name in stored["var"][index][()]]


def facts(adata: AnnData) -> dict[str, Any]:
    """Facts that `prepare` stored in a prepared file."""
    found: dict[str, Any] = json.loads(adata.uns[STAMP])["facts"]
    return found


def representation(adata: AnnData, needs: Needs) -> Matrix:
    """Matrix of cells (prepared, or from `Fold.take`) that a method asks for.

    Returns
    -------
    cells x genes, CSR or array, float32. ``binary`` is 1 where a gene is seen at all.

    Raises
    ------
    NotApplicable
        When the data do not have it.
    """
    x = adata.uns["x"]
    if needs == "prepared" or needs == x:
        return adata.X
    if needs in adata.layers:
        return adata.layers[needs]
    if needs == "binary":
        source = adata.layers.get("counts", adata.layers.get("lognorm", adata.X))
        if source is not adata.X or x in {"counts", "lognorm"}:
            return (source > 0).astype(np.float32)
    what = {"counts": "raw counts", "lognorm": "log-normalised values"}.get(needs, needs)
    raise NotApplicable(f"needs {what}, which the data set does not have (its X is {x})")
