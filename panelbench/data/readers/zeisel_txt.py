"""Mouse cortex and hippocampus of Zeisel et al. 2015: one text file of labels and counts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from panelbench.data.readers._shared import Files, only, with_counts
from panelbench.data.readers._tables import sparse_table
from panelbench.errors import DataError, hint

if TYPE_CHECKING:
    from anndata import AnnData

_HEADER = 10


def read(files: Files, *, name: str = "cell_id", make_unique: bool = False) -> AnnData:
    """Read the file ``expression_mRNA_17-Aug-2014.txt``.

    Its first ten rows hold one property of the cells each: an empty field, the name of the
    property, then a value per cell. After an empty row, each row is a gene: its name, a cluster
    number and a count per cell. All properties become columns of ``obs``.

    Parameters
    ----------
    name
        Property that names the cells.
    make_unique
        Append -1, -2, ... to repeated gene names.
    """
    import pandas as pd

    path = only(files)
    try:
        with path.open(encoding="utf-8") as stream:
            rows = [line.rstrip("\n").split("\t") for line in itertools.islice(stream, _HEADER)]
            widths = {len(row) for row in rows}
            if len(rows) < _HEADER or len(widths) != 1 or any(row[0].strip() for row in rows):
                raise DataError(
                    f"{path}: its first {_HEADER} rows should be properties of the cells, tab-"
                    "separated, with an empty first field; is it the authors' file?"
                )
            obs = pd.DataFrame({row[1].strip(): row[2:] for row in rows})
            if name not in obs:
                raise DataError(f"{path}: no property {name!r}; {hint(name, obs.columns)}")
            # The empty row consists of tabs.
            genes, counts = sparse_table(
                stream, path.name, separator="\t", before=2, columns=len(obs)
            )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    return with_counts(counts.T.tocsr(), obs.set_index(name), genes, path.name)
