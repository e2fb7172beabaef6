"""AnnData files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from panelbench.data.blocks import is_large, open_stored, stored
from panelbench.data.readers._own import Held, apart, finish
from panelbench.data.readers._shared import Files, only, open_h5ad
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    files: Files,
    *,
    layer: str | None = None,
    x: Held = "auto",
    gene_names: str | None = None,
    labels: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read an ``.h5ad`` file; of a large one, the matrix stays there (see `blocks`).

    Parameters
    ----------
    layer, x, gene_names
        See `panelbench.data.readers._own.finish`.
    labels
        Name of the file, among those given, with labels of the cells; its first column names them.
    make_unique
        Append -1, -2, ... to repeated gene names (done by `panelbench.data.read.read`).
    """
    files, table = apart(files, labels)
    path = only(files)
    source = _large(path)
    if source is None:
        source = open_h5ad(path)
    return finish(source, path.name, layer=layer, x=x, gene_names=gene_names, labels=table)


def _large(path: Path) -> AnnData | None:
    """A file with a matrix that stays on disk, or None."""
    import h5py
    from anndata.io import read_elem

    if not (path.is_file() and h5py.is_hdf5(path)):
        return None
    # It stays open as long as its matrices are in use.
    file = h5py.File(path, "r")
    matrices = {name: file[name] for name in ("X", "raw/X") if name in file}
    if isinstance(file.get("layers"), h5py.Group):
        matrices |= dict(file["layers"].items())
    if not any(is_large(group) for group in matrices.values()):
        file.close()
        return None
    try:
        parts = {name: read_elem(file[name]) for name in ("obs", "var", "obsm") if name in file}
        if "raw/X" in matrices:
            parts["raw"] = {"X": stored(matrices.pop("raw/X")), "var": read_elem(file["raw/var"])}
        return open_stored(matrices, **parts)
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a damaged file
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
