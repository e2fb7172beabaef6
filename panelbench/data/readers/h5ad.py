"""AnnData files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panelbench.data.readers._own import Held, apart, finish
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
    """Read an ``.h5ad`` file.

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
    return finish(open_h5ad(path), path.name, layer=layer, x=x, gene_names=gene_names, labels=table)
