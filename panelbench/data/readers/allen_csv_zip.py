"""The Allen Institute's archive of exon counts (Tasic et al. 2018), with labels from a table."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from panelbench.data.archive import Archive, open_archive
from panelbench.data.readers._shared import Files, by_suffix, read_table, with_counts
from panelbench.data.readers._tables import sparse_table
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

_ENCODING = "iso-8859-1"


def read(files: Files, *, key: str = "seq_name", max_unpacked: int | None = None,
         make_unique: bool = False) -> AnnData:  # fmt: skip
    """Read counts of the cells that have labels.

    The archive has a matrix of exon counts, genes x cells (genes by Entrez id), a table of genes
    and one of cells. A ``.csv`` beside it has labels by `key`; cells that it does not list, and
    intron counts, are left out. A ``.toml`` may list known ``markers``.

    Parameters
    ----------
    key
        Column of both tables that names a cell.
    max_unpacked
        Largest size of what is in the archive, in bytes.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    archived, labelled = by_suffix(files, ".zip", ".csv")
    labels = read_table(labelled, labelled.name, [key], dtype=str)
    if labels[key].duplicated().any():
        twice = labels[key][labels[key].duplicated()].iloc[0]
        raise DataError(f"{labelled.name}: {key} {twice!r} occurs more than once")
    with open_archive(archived, max_unpacked) as archive:
        genes = _table(archive, "genes-rows.csv", "gene_symbol", "gene_entrez_id")
        samples = _table(archive, "samples-columns.csv", "sample_name", key)
        absent = labels[~labels[key].isin(samples[key])]
        if len(absent):
            raise DataError(
                f"{labelled.name}: {len(absent)} of {len(labels)} cells are not in {archived.name} "
                f"(first: {absent[key].iloc[0]!r}); do the two files belong together?"
            )
        kept = np.flatnonzero(samples[key].isin(labels[key]))
        with _member(archive, "exon-matrix.csv") as stream:
            where = f"{archived.name}, exon-matrix.csv"
            header = [name.strip().strip('"') for name in stream.readline().split(",")[1:]]
            if header != samples["sample_name"].tolist():
                raise DataError(f"{where}: its columns are not the rows of samples-columns.csv")
            ids, counts = sparse_table(stream, where, columns=len(header), keep=kept)
    symbols = dict(zip(genes["gene_entrez_id"], genes["gene_symbol"], strict=True))
    unknown = [gene for gene in ids if gene not in symbols]
    if unknown:
        raise DataError(f"{where}: gene {unknown[0]!r} is not in genes-rows.csv")
    obs = (
        samples.iloc[kept]
        .merge(labels, on=key, how="left")
        .set_index(key)[[name for name in labels if name != key]]
    )
    notes = [f"{len(samples) - len(kept)} of {len(samples)} cells have no label and are left out"]
    adata = with_counts(counts.T.tocsr(), obs, [symbols[i] for i in ids], archived.name, notes)
    for path in (path for name, path in files.items() if name.endswith(".toml")):
        adata.uns["markers"] = {path.stem: tomllib.loads(path.read_text("utf-8"))["markers"]}
    return adata


def _member(archive: Archive, ending: str) -> IO[str]:
    """Open the member of the archive whose name ends so, as text."""
    names = [name for name in archive.members if name.endswith(ending)]
    if len(names) != 1:
        shown = ", ".join(Path(name).name for name in archive.members)
        raise DataError(f"{archive.path}: expected one file ...{ending}, it holds {shown}")
    return io.TextIOWrapper(archive.open(names[0]), encoding=_ENCODING)


def _table(archive: Archive, ending: str, *needed: str):  # type: ignore[no-untyped-def]
    with _member(archive, ending) as stream:
        return read_table(stream, f"{archive.path.name}, {ending}", needed, dtype=str)
