"""A GEO series of 10x Genomics matrices in one tar, with a table of annotations."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.archive import open_archive
from panelbench.data.readers._shared import Files, by_suffix, read_table, with_counts
from panelbench.errors import DataError, damaged

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_BARCODE = re.compile(r"^[ACGTN]+")


def read(
    files: Files,
    *,
    ending: str = "_filtered_feature_bc_matrix.h5",
    sample: str = "orig.ident",
    names: Mapping[str, tuple[str, ...]] | None = None,
    max_unpacked: int | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read the matrices of all samples and join them with the annotation.

    A row of the annotation is a cell: a barcode with a suffix, and its sample. Cells without
    annotation are left out. Genes are those that every sample has.

    Parameters
    ----------
    ending
        How the names of matrices in the tar end; other members are ignored.
    sample
        Column of the annotation with the sample of a cell.
    names
        Sample in the tar (what stands between the accession and `ending`) -> its names in the
        annotation; a sample that is not listed has the same name there.
    max_unpacked
        Largest size of what is in the archive, in bytes.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    import pandas as pd
    from scipy import sparse

    tar, table = by_suffix(files, ".tar", ".csv.gz")
    annotation = read_table(table, table.name, [sample], index_col=0)
    annotation["barcode"] = [_sequence(name) for name in annotation.index]
    parts: list[tuple[AnnData, pd.DataFrame]] = []
    with open_archive(tar, max_unpacked) as archive, tempfile.TemporaryDirectory() as folder:
        members = sorted(name for name in archive.members if name.endswith(ending))
        if not members:
            raise DataError(f"{tar.name}: no member ends with {ending}")
        for member in members:
            name = Path(member).name.removesuffix(ending).partition("_")[2]
            known = (names or {}).get(name, (name,))
            rows = annotation[annotation[sample].astype(str).isin(known)]
            path = Path(folder) / "matrix.h5"
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
            parts.append(_joined(path, rows, f"{tar.name}, {Path(member).name}", known))
    genes = set.intersection(*(set(part.var_names) for part, _ in parts))
    first = parts[0][0].var
    order = first.index[first.index.isin(genes)]
    obs = pd.concat([rows for _, rows in parts])
    X = sparse.vstack([part[:, order].X for part, _ in parts], format="csr", dtype=np.float32)
    unused = len(annotation) - len(obs)
    cells = sum(int(part.uns["cells"]) for part, _ in parts)
    notes = [f"{cells - len(obs)} of {cells} cells have no annotation and are left out"]
    if unused:
        notes.append(f"{unused} of {len(annotation)} annotated cells are in no matrix")
    return with_counts(X, obs.drop(columns="barcode"), first["symbol"][order], tar.name, notes)


def _sequence(name: object) -> str:
    """Barcode without what was added to it: ``ACGT-1_3`` -> ``ACGT``."""
    found = _BARCODE.match(str(name))
    return found.group() if found else ""


def _joined(path: Path, rows: pd.DataFrame, where: str, known: Any) -> tuple[AnnData, pd.DataFrame]:
    """Annotated cells of one sample: genes by id with their symbol, and the annotation."""
    import scanpy as sc

    with damaged(lambda error: f"{where}: not a readable 10x matrix ({error})"):
        cells = sc.read_10x_h5(path)
    cells.var["symbol"] = cells.var_names
    cells.var_names = cells.var["gene_ids"].astype(str).to_numpy()
    barcodes = [_sequence(name) for name in cells.obs_names]
    position = {barcode: index for index, barcode in enumerate(barcodes)}
    if rows["barcode"].duplicated().any():
        twice = rows["barcode"][rows["barcode"].duplicated()].iloc[0]
        raise DataError(f"{where}: barcode {twice} is annotated twice in sample {', '.join(known)}")
    rows = rows[rows["barcode"].isin(position)]
    if rows.empty:
        raise DataError(
            f"{where}: no cell is annotated as sample {' or '.join(known)}; do the annotation and "
            "the archive belong together?"
        )
    found = cells[[position[barcode] for barcode in rows["barcode"]]].copy()
    found.uns["cells"] = cells.n_obs
    return found, rows
