"""A table before it is written: header levels, rows of cells, footnotes; and its text forms."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Group

Mark = Literal["", "best", "second"]
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """A cell: its text, whether it is the best or second of its column, its footnotes.

    `beside` is what a paper published in its place, which the page shows below it.
    """

    text: str
    mark: Mark = ""
    notes: tuple[int, ...] = ()
    beside: str = ""

    @property
    def superscript(self) -> str:
        """Footnote numbers as superscript characters."""
        return ",".join(map(str, self.notes)).translate(_SUPERSCRIPT)


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes
    ----------
    name, title
        Name of its files; its caption.
    header
        One tuple per column with the text of each level, all of the same length.
    rows
        Cells, as many per row as there are columns.
    stubs
        Leading columns that hold text: left-aligned.
    caption
        What the cells are, below the title.
    notes
        Footnotes, numbered from 1.
    records
        Lines of its CSV form, which holds more than the cells show.
    """

    name: str
    title: str
    header: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[Cell, ...], ...]
    stubs: int = 1
    caption: str = ""
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def plain(
        cls,
        name: str,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        stubs: int = 1,
        caption: str = "",
        records: Sequence[Mapping[str, Any]] | None = None,
    ) -> Grid:
        """Table of texts with one header level; its CSV holds the same unless given."""
        texts = [[_text(value) for value in row] for row in rows]
        lines = [dict(zip(columns, row, strict=True)) for row in texts]
        return cls(
            name=name,
            title=title,
            header=tuple((column,) for column in columns),
            rows=tuple(tuple(Cell(text) for text in row) for row in texts),
            stubs=stubs,
            caption=caption,
            records=tuple(lines if records is None else records),
        )

    @property
    def levels(self) -> int:
        """Number of header levels."""
        return len(self.header[0])

    @property
    def has_beside(self) -> bool:
        """Whether a paper published any of the cells."""
        return any(cell.beside for row in self.rows for cell in row)

    def spans(self, level: int) -> list[tuple[str, int]]:
        """Header texts of a level, equal neighbours merged: (text, number of columns).

        Neighbours merge only when the levels above are equal too; stubs never merge.
        """
        merged: list[tuple[str, int]] = []
        for i, column in enumerate(self.header):
            same = i > self.stubs and column[: level + 1] == self.header[i - 1][: level + 1]
            if same and level < self.levels - 1:
                merged[-1] = (merged[-1][0], merged[-1][1] + 1)
            else:
                merged.append((column[level], 1))
        return merged


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}"
    return str(value)


def markdown(grid: Grid) -> str:
    """Write a grid as GitHub Markdown: bold for the best, underlined for the second."""
    head = [" · ".join(text for text in column if text) for column in grid.header]
    body = [[_markdown_cell(cell) for cell in row] for row in grid.rows]
    table = [[_markdown_text(text) for text in head], *body]
    widths = [max(3, *(len(row[i]) for row in table)) for i in range(len(head))]
    rule = [
        "-" * width if i < grid.stubs else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    lines = []
    for row in (table[0], rule, *table[1:]):
        padded = [
            text.ljust(width) if i < grid.stubs else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(padded) + " |")
    parts = [f"**{_markdown_text(grid.title)}**", "\n".join(lines)]
    if grid.caption:
        parts.append(_markdown_text(grid.caption))
    for number, note in enumerate(grid.notes, start=1):
        parts.append(f"{str(number).translate(_SUPERSCRIPT)} {_markdown_text(note)}")
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    flat = " ".join(text.split())
    # An underscore inside a word is plain text, as in cell_type.
    return re.sub(r"[\\|*`<\[\]]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match[0], flat)


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_text(cell.text)
    # GitHub strips <u>; <ins> is drawn underlined everywhere.
    styled = {"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[cell.mark]
    return styled + cell.superscript


def to_csv(lines: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Write lines as CSV; numbers with six decimals, an empty field where there is none.

    A text that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    names = list(columns or (lines[0] if lines else ()))
    return csv_text(names, ([_csv_value(line.get(name, "")) for name in names] for line in lines))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV of columns and rows whose values are fit to be written as they are."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6f}"
    return guarded(value) if isinstance(value, str) else value


def guarded(text: str) -> str:
    """Text that a spreadsheet shows and does not compute; numbers stay as they are."""
    if not text.startswith(("=", "+", "-", "@", "\t")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def rich_table(grid: Grid) -> Group:
    """Turn a grid into a table for the terminal, with its title above and its notes below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for i, column in enumerate(grid.header):
        text = Text("\n".join(level for level in column if level))
        table.add_column(text, justify="left" if i < grid.stubs else "right", no_wrap=i > 0)
    styles = {"best": "bold", "second": "underline", "": ""}
    for row in grid.rows:
        table.add_row(
            *(Text.assemble((cell.text, styles[cell.mark]), cell.superscript) for cell in row)
        )
    # rich would squeeze a caption into the width of its table.
    below = Text("\n".join(_below(grid)), style="italic")
    return Group(Text(grid.title, style="bold"), table, Padding(below, (0, 0, 1, 2), expand=False))


def _below(grid: Grid) -> list[str]:
    notes = [f"{str(n).translate(_SUPERSCRIPT)} {note}" for n, note in enumerate(grid.notes, 1)]
    return [text for text in (grid.caption, *notes) if text]
