"""AnnData files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from panelbench.data.readers._own import Held, apart, finish, open_large
from panelbench.data.readers._shared import Files, only, open_h5ad

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

    if not (path.is_file() and h5py.is_hdf5(path)):
        return None
    # It stays open as long as its matrices are in use.
    try:
        file = h5py.File(path, "r")
    except OSError:  # what is wrong with it, says who reads all of it
        return None
    found = open_large(file, path)
    if found is None:
        file.close()
    return found
