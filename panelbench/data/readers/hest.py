"""A slide of HEST-1k: counts by spot, and patches of the image around the spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.readers._colours import averaged, colours
from panelbench.data.readers._shared import Files, by_suffix, open_h5ad, tidy, with_counts
from panelbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(files: Files, *, patches: int = 0, make_unique: bool = False) -> AnnData:
    """Read ``ID.h5ad`` (folder ``st`` of HEST-1k) and ``ID.h5`` (folder ``patches``).

    Spots without a patch are left out. ``obsm["image_features"]`` holds the colours of the patches,
    ``obsm["spatial"]`` their pixels.

    Parameters
    ----------
    patches
        Pixels along each side to which patches are averaged for ``obsm["patches"]`` (uint8, spots x
        pixels x 3, row by row); 0 keeps none.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    import h5py
    import pandas as pd

    counts, stored = by_suffix(files, ".h5ad", ".h5")
    source = open_h5ad(counts)
    try:
        with h5py.File(stored, "r") as file:
            barcodes = file["barcode"].asstr()[()].ravel()
            pixels = np.asarray(file["coords"][()], dtype=np.float32)
            images = file["img"]
            if images.ndim != 4 or not len(images) == len(barcodes) == len(pixels):
                raise DataError(
                    f"{stored}: {len(barcodes)} barcodes, {len(pixels)} coordinates and images of "
                    f"shape {images.shape} do not belong together"
                )
            if patches and (images.shape[1] % patches or images.shape[2] != images.shape[1]):
                raise ConfigError(
                    f"reader option patches: {patches} does not divide patches of shape "
                    f"{images.shape[1:]}"
                )
            # One patch at a time: all of a slide take a gigabyte.
            features, pictures = [], []
            for i in range(len(images)):
                patch = images[i]
                features.append(colours(patch))
                if patches:
                    pictures.append(averaged(patch, patches))
    except FileNotFoundError:
        raise DataError(f"{stored}: no such file") from None
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{stored}: no patches of HEST-1k ({error}); get it again") from error
    position = pd.Series(np.arange(len(barcodes)), index=barcodes)
    if position.index.duplicated().any():
        twice = position.index[position.index.duplicated()][0]
        raise DataError(f"{stored}: barcode {twice!r} occurs more than once")
    keep = np.flatnonzero(source.obs_names.isin(barcodes))
    if not keep.size:
        raise DataError(f"{stored}: none of its barcodes is a spot of {counts.name}")
    names = source.obs_names[keep]
    note = f"{source.n_obs - len(keep)} of {source.n_obs} spots have no patch and are left out"
    obs = pd.DataFrame(index=names)
    adata = with_counts(tidy(source.X)[keep], obs, source.var_names, counts.name, [note])
    adata.obsm["spatial"] = pixels[position[names]]
    adata.obsm["image_features"] = np.asarray(features, np.float32)[position[names]]
    if patches:
        adata.obsm["patches"] = np.stack(pictures)[position[names]]
    return adata
