"""An AnnData file of counts, with labels from a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panelbench.data.readers._shared import (
    Files,
    by_suffix,
    open_h5ad,
    read_table,
    tidy,
    with_counts,
)
from panelbench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    files: Files,
    *,
    label: str,
    gene_names: str | None = None,
    prefix: str | None = None,
    make_unique: bool = False,
) -> AnnData:
    """Read counts from ``X`` of an ``.h5ad`` and the labels of its cells from a ``.csv``.

    The first column of the table names the cells. Cells that it does not list have no label.

    Parameters
    ----------
    label
        Column of the table that is taken.
    gene_names
        Column of ``var`` with the names of the genes, if not its index; genes without are dropped.
    prefix
        Name of a further column: the label up to its first underscore.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    import pandas as pd

    counts, table = by_suffix(files, ".h5ad", ".csv")
    source, labels = open_h5ad(counts), read_table(table, table.name, [label], index_col=0)
    if not source.obs_names.isin(labels.index).any():
        raise DataError(
            f"{table.name}: none of the cells of {counts.name} is listed "
            f"(there is {labels.index[0]!r}, here {source.obs_names[0]!r})"
        )
    if labels.index.duplicated().any():
        twice = labels.index[labels.index.duplicated()][0]
        raise DataError(f"{table.name}: cell {twice!r} occurs more than once")
    obs = pd.DataFrame({label: labels[label].reindex(source.obs_names)}, index=source.obs_names)
    if prefix is not None:
        obs[prefix] = obs[label].str.partition("_")[0]
    notes, X, names = [], tidy(source.X), pd.Series(source.var_names)
    if gene_names is not None:
        if gene_names not in source.var:
            raise DataError(f"{counts.name}: no column {gene_names!r} with gene names in var")
        names = source.var[gene_names].reset_index(drop=True)
        named = names.notna() & (names.astype(str).str.strip() != "")
        if not named.all():
            notes.append(f"{int((~named).sum())} of {len(names)} genes have no name: dropped")
            X, names = X[:, named.to_numpy()], names[named]
    return with_counts(X, obs, names.astype(str).to_numpy(), counts.name, notes)
