"""Panels from files: genes that are there already, to be scored beside the methods' own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from panelbench.data.checks import are_ensembl_ids
from panelbench.errors import InputError, near_matches


def read_panel(path: Path, option: str = "--panel") -> list[str]:
    """Genes of a panel file, best first.

    A CSV with a column ``gene`` (and perhaps ``rank`` to sort by), or one gene per line.

    Raises
    ------
    InputError
        When the file is missing, empty or names a gene twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{option} {path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{option} {path}: not a text file in UTF-8") from None
    except IsADirectoryError:
        raise InputError(f"{option} {path}: a folder; give a CSV file") from None
    lines = [line for line in text.splitlines() if line.strip()]
    separator = "\t" if lines and "\t" in lines[0] else ","
    rows = list(csv.reader(lines, delimiter=separator))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "gene" in header:
        body = [row for row in rows[1:] if len(row) > header.index("gene")]
        if "rank" in header:
            try:
                body.sort(key=lambda row: float(row[header.index("rank")]))
            except ValueError:
                raise InputError(f"{option} {path}: column 'rank' holds no numbers") from None
        genes = [row[header.index("gene")].strip() for row in body]
    elif any(len(row) > 1 for row in rows):
        raise InputError(f"{option} {path}: no column 'gene' among {', '.join(header)}")
    else:
        genes = [row[0].strip() for row in rows]
    double = next((gene for gene in genes if genes.count(gene) > 1), None)
    if double is not None:
        raise InputError(f"{option} {path}: gene {double!r} is named twice")
    if not genes:
        raise InputError(f"{option} {path}: no genes in it")
    return genes


def check_panel(path: Path, genes: Sequence[str], known: Sequence[str], dataset: str) -> None:
    """Stop when a data set lacks genes of a panel.

    Parameters
    ----------
    path, genes
        The panel's file and its genes.
    known, dataset
        Genes and id of the data set.

    Raises
    ------
    InputError
        Naming the genes, and what might be meant.
    """
    names = set(known)
    unknown = [gene for gene in genes if gene not in names]
    if not unknown:
        return
    ids = are_ensembl_ids(known)
    if ids != are_ensembl_ids(genes):
        mine, theirs = ("gene symbols", "Ensembl ids") if ids else ("Ensembl ids", "gene symbols")
        hint = (
            f"; the panel has {mine} and the data have {theirs}: --gene-names COLUMN names the "
            "genes of --data by a column of its var"
        )
    else:
        near = near_matches(unknown[0], names)
        hint = f"; near {unknown[0]}: {', '.join(near)}" if near else ""
    shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    raise InputError(
        f"--panel {path}: {len(unknown)} of {len(genes)} genes are not in data set "
        f"{dataset}: {shown}{hint}"
    )
