"""Synthetic data, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from panelbench.data import synthetic
from panelbench.data.readers._shared import Files

if TYPE_CHECKING:
    from anndata import AnnData


def read(files: Files, **options: Any) -> AnnData:
    """Make synthetic data; options as `panelbench.data.synthetic.SyntheticOptions`."""
    adata = synthetic.make(**options)
    adata.layers["counts"] = adata.X
    adata.uns.update(x="counts", notes=["synthetic data"])
    return adata
