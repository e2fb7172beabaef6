"""How commands print: tables of plain texts for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from panelbench.commands import JSON_FORMAT
from panelbench.text import printable


def print_json(**content: Any) -> None:
    """Print one JSON object, with the version of its form."""
    print(json.dumps({"format": JSON_FORMAT, **content}, indent=1, sort_keys=True, default=str))


def print_table(table: RenderableType) -> None:
    # In a pipe there is no width to fit into: long lines are better than cut ones.
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A table of plain texts: brackets in them are brackets, not rich's markup."""
    table = Table(
        title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False
    )
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    return table


MANY = 500
"""Rows beyond which a table is printed as plain columns: rich takes a millisecond for each."""


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts as a table, or in plain columns where there are many."""
    if len(rows) <= MANY:
        print_table(text_table(columns, rows))
        return
    lines = [columns, *map(_printable, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:<{width}}}" for width in widths).format
    for line in lines:
        print(form(*line).rstrip())


def _printable(row: Sequence[str]) -> Sequence[str]:
    # Nearly every row is, and one look at all of it is cheaper than one at each cell.
    return row if "".join(row).isprintable() else [printable(text) for text in row]


def first_line(text: str, limit: int | None = None) -> str:
    return text.splitlines()[0][:limit] if text else ""


def short_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
