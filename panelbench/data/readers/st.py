"""Sections of Spatial Transcriptomics: counts by spot, spots under tissue, regions, images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.readers._colours import colours
from panelbench.data.readers._shared import Files, read_table, with_counts
from panelbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_COUNTS = re.compile(r"^([A-Za-z0-9]+)\.tsv\.gz$")


def read(files: Files, *, windows: Sequence[int] = (), make_unique: bool = False) -> AnnData:
    """Read sections as Andersson et al. 2021 share them (her2st).

    Of each section S: ``S.tsv.gz``, counts, spots (``10x13``) x genes; ``S_selection.tsv``, the
    spots under tissue with their pixels; perhaps ``S-cluster-annotation.tsv.gz``, a cluster by
    pixels; perhaps ``S.jpg``. A gene that a section does not list is not seen in it.

    Columns of ``obs``: ``section``, ``patient`` (its letter), ``region`` (letter and cluster: the
    clusters are those of a patient). ``obsm["spatial"]`` holds pixels, and with `windows`
    ``obsm["image_features"]``, the colours of squares around the spot.

    Parameters
    ----------
    windows
        Sides of the squares, in pixels.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    import pandas as pd
    from scipy import sparse

    found = {match[1]: path for name, path in files.items() if (match := _COUNTS.match(name))}
    if not found:
        raise ConfigError(f"this reader takes counts as S.tsv.gz, found {', '.join(files)}")
    tables, spots, features = [], [], []
    for section, path in found.items():
        counts = read_table(path, path.name, sep="\t", index_col=0)
        places = _places(files, section)
        missing = places.index[~places.index.isin(counts.index)]
        if len(missing):
            raise DataError(f"{path.name}: spot {missing[0]} of {section}_selection.tsv is missing")
        tables.append(counts.loc[places.index])
        spots.append(places.set_index(f"{section}_" + places.index))
        if windows:
            image = _file(files, f"{section}.jpg")
            features.append(_features(image, places[["pixel_x", "pixel_y"]].to_numpy(), windows))
    genes = sorted(set().union(*(table.columns for table in tables)))
    blocks = [
        sparse.csr_matrix(table.reindex(columns=genes, fill_value=0), dtype=np.float32)
        for table in tables
    ]
    obs = pd.concat(spots)
    labels = obs[["section", "patient", "region"]]
    adata = with_counts(sparse.vstack(blocks, format="csr"), labels, genes, ", ".join(found))
    adata.obsm["spatial"] = obs[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float32)
    if windows:
        adata.obsm["image_features"] = np.concatenate(features)
    return adata


def _file(files: Files, name: str) -> Path:
    if name not in files:
        raise ConfigError(f"this reader takes {name} too, found {', '.join(files)}")
    return files[name]


def _places(files: Files, section: str) -> pd.DataFrame:
    """Spots under tissue, by name, with what is known of them."""
    path = _file(files, f"{section}_selection.tsv")
    columns = ["x", "y", "pixel_x", "pixel_y", "selected"]
    spots = read_table(path, path.name, columns, sep="\t")
    spots = spots[spots["selected"] == 1]
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    spots = spots[["pixel_x", "pixel_y"]].assign(section=section, patient=section[0], region=None)
    labelled = files.get(f"{section}-cluster-annotation.tsv.gz")
    if labelled is not None:
        table = read_table(labelled, labelled.name, ["pixel_x", "pixel_y", "label"], sep="\t")
        clusters = dict(zip(_pixels(table), table["label"], strict=True))
        regions = [clusters.get(pixel) for pixel in _pixels(spots)]
        if not any(region is not None for region in regions):
            raise DataError(f"{labelled.name}: none of its pixels is a spot of {path.name}")
        spots["region"] = [
            None if region is None else f"{section[0]}{region:.0f}" for region in regions
        ]
    return spots


def _pixels(table: pd.DataFrame) -> list[tuple[float, float]]:
    rounded = table[["pixel_x", "pixel_y"]].round(1)
    return list(zip(rounded["pixel_x"], rounded["pixel_y"], strict=True))


def _features(path: Path, pixels: np.ndarray, windows: Sequence[int]) -> np.ndarray:
    """Colours around each spot, float32 of shape (spots, 9 * windows), channels in 0 to 1."""
    from matplotlib.image import imread

    try:
        image = np.asarray(imread(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError) as error:  # those of Pillow, by format
        raise DataError(f"{path}: not a readable image ({error}); get it again") from error
    found = []
    for x, y in np.rint(pixels).astype(int):
        if not (0 <= y < image.shape[0] and 0 <= x < image.shape[1]):
            raise DataError(f"{path}: a spot at pixel ({x}, {y}) lies outside of the image")
        row: list[float] = []
        for window in windows:
            top, left = max(y - window // 2, 0), max(x - window // 2, 0)
            row += colours(image[top : y + window // 2 + 1, left : x + window // 2 + 1])
        found.append(row)
    return np.asarray(found, dtype=np.float32)
