"""AnnData as a Zarr store, a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panelbench.data.readers._own import Held, apart, finish, open_large
from panelbench.data.readers._shared import Files, only
from panelbench.errors import damaged

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
    """Read a Zarr store that AnnData has written; of a large one, the matrix stays there.

    Options as of `panelbench.data.readers.h5ad`.
    """
    import anndata
    import zarr

    files, table = apart(files, labels)
    path = only(files)
    kind = "cannot be read as a Zarr store of AnnData"
    with damaged(lambda error: f"{path}: {kind} ({type(error).__name__}: {error})"):
        source = open_large(zarr.open_group(path, mode="r"), path) or anndata.read_zarr(path)
    return finish(source, path.name, layer=layer, x=x, gene_names=gene_names, labels=table)
