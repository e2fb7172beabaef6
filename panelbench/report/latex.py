"""A grid as a LaTeX table (booktabs)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from panelbench.report.grid import Cell, Grid

# What pdflatex cannot take from UTF-8 text by itself.
_SIGNS = {
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "²": r"\textsuperscript{2}",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
}


# Points of an article's text at 10 pt: across the page, and across a page that is turned.
PAGE, TURNED = 345.0, 550.0
LONG, LONG_TURNED = 42, 18
"""Rows of a table that a page holds."""
SMALLEST = 0.7
"""A table is not made smaller than this share of its size: it is turned or broken instead."""
SAFE = 0.9
"""A table that takes this share of the page by the estimate fits; others are measured by LaTeX."""

# Points of a letter and of the gap between columns, at the size of a table's text.
_LETTER, _GAP = 4.7, 12.0
_FITTING = r"\ifdim\width>\linewidth\linewidth\else\width\fi"


def latex(grid: Grid) -> str:
    r"""Write a grid as ``table`` environments that fit the page.

    What is wider than the page is made smaller; where the letters would become too small it stands
    upright on a page of its own (``sidewaystable``); what is too large for that is broken into
    parts, the columns of texts repeated. The first line says what the preamble needs: ``booktabs``
    always, ``graphicx`` to make smaller, ``rotating`` to turn. It compiles with pdflatex, xelatex
    and lualatex.
    """
    turned = PAGE / SMALLEST < points(grid) <= TURNED / SMALLEST and len(grid.rows) <= LONG_TURNED
    parts = [grid] if turned else [part for block in _blocks(grid) for part in _pages(block)]
    body = [_table(part, number, turned) for number, part in enumerate(parts)]
    packages = [
        "booktabs",
        *(name for name, sign in _NEEDS.items() if any(sign in b for b in body)),
    ]
    return f"% Needs \\usepackage{{{','.join(packages)}}}\n" + "\n".join(body)


def packages(text: str) -> set[str]:
    """What the preamble needs for a table that `latex` wrote."""
    first = text.partition("\n")[0]
    return set(first.partition("{")[2].removesuffix("}").split(","))


_NEEDS = {"graphicx": r"\resizebox", "rotating": "{sidewaystable}"}


def _table(grid: Grid, number: int, turned: bool) -> str:
    """One environment: the whole table, or its part `number`."""
    body = [r"\toprule", *_header(grid), r"\midrule", *_rows(grid), r"\bottomrule"]
    columns = "l" * grid.stubs + "r" * (len(grid.header) - grid.stubs)
    tabular = [rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]
    if points(grid) > SAFE * PAGE:
        tabular = [rf"\resizebox{{{_FITTING}}}{{!}}{{%", *tabular, "}"]
    title, caption, *notes = escape([grid.title, grid.caption, *grid.notes])
    label = re.sub(r"[^A-Za-z0-9.:-]+", "-", grid.name)
    environment = "sidewaystable" if turned else "table"
    heading = [
        rf"\caption{{{title}{'. ' + caption if caption else ''}}}",
        rf"\label{{tab:{label}}}",
    ]
    if number:
        heading = [r"\addtocounter{table}{-1}", rf"\caption[]{{{title} (continued)}}"]
    lines = [
        rf"\begin{{{environment}}}{'' if turned else '[htbp]'}",
        r"\centering",
        *heading,
        r"\par\smallskip",
        r"\small",
        *tabular,
    ]
    if notes:
        used = {number for row in grid.rows for cell in row for number in cell.notes}
        numbered = [
            rf"\textsuperscript{{{number}}}~{note}"
            for number, note in enumerate(notes, start=1)
            if number in used
        ]
        text = r"\\".join(numbered)
        lines += [r"\par\smallskip", r"{\footnotesize\raggedright", text + r"\par}"]
    return "\n".join([*lines, rf"\end{{{environment}}}", ""])


def points(grid: Grid) -> float:
    """Width of a table in points, as far as the letters of its longest row tell."""
    return sum(_widths(grid))


def _widths(grid: Grid) -> list[float]:
    """Points of each column; one that stands for a group takes what the group's name needs."""
    body = [[len(cell.text) + len(cell.notes) for cell in row] for row in grid.rows]
    names = [len(column[-1]) for column in grid.header]
    widths = [_LETTER * max(lengths) + _GAP for lengths in zip(names, *body, strict=True)]
    for level in range(grid.levels - 1):
        column = 0
        for text, span in grid.spans(level):
            missing = _LETTER * len(text) + _GAP - sum(widths[column : column + span])
            widths[column + span - 1] += max(0.0, missing)
            column += span
    return widths


def _blocks(grid: Grid) -> list[Grid]:
    """Columns in blocks that fit; groups of the header are held together where they can be."""
    # A table of texts alone repeats the first of them.
    stubs = grid.stubs if grid.stubs < len(grid.header) else 1
    widths = _widths(grid)
    room = PAGE / SMALLEST - sum(widths[:stubs])
    for level in range(grid.levels):
        groups = _groups(grid, stubs, level)
        if all(sum(widths[i] for i in group) <= room for group in groups):
            break
    blocks: list[list[int]] = []
    for group in groups:
        width = sum(widths[i] for i in (*(blocks[-1] if blocks else ()), *group))
        if blocks and width <= room:
            blocks[-1] += group
        else:
            blocks.append(list(group))
    if len(blocks) < 2:
        return [grid]
    return [_columns(grid, [*range(stubs), *block]) for block in blocks]


def _groups(grid: Grid, stubs: int, level: int) -> list[list[int]]:
    groups, column = [], 0
    for _, span in grid.spans(level):
        if column >= stubs:
            groups.append(list(range(column, column + span)))
        column += span
    return groups


def _columns(grid: Grid, chosen: Sequence[int]) -> Grid:
    return replace(
        grid,
        stubs=min(grid.stubs, len(chosen)),
        header=tuple(grid.header[i] for i in chosen),
        rows=tuple(tuple(row[i] for i in chosen) for row in grid.rows),
    )


def _pages(grid: Grid) -> list[Grid]:
    """Rows in parts that a page holds."""
    starts = range(0, max(len(grid.rows), 1), LONG)
    return [replace(grid, rows=grid.rows[start : start + LONG]) for start in starts]


def _header(grid: Grid) -> list[str]:
    lines = []
    for level in range(grid.levels):
        spans = grid.spans(level)
        texts = escape([text for text, _ in spans])
        cells, rules, column = [], [], 1
        for text, (_, width) in zip(texts, spans, strict=True):
            single = width == 1 and (level == grid.levels - 1 or column <= grid.stubs)
            cells.append(text if single else rf"\multicolumn{{{width}}}{{c}}{{{text}}}")
            if column > grid.stubs and text:
                rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
            column += width
        lines.append(" & ".join(cells) + r" \\")
        if level < grid.levels - 1:
            lines.append(" ".join(rules))
    return lines


def _rows(grid: Grid) -> list[str]:
    width = len(grid.header)
    texts = escape([cell.text for row in grid.rows for cell in row])
    lines = []
    for i, row in enumerate(grid.rows):
        cells = zip(row, texts[i * width : (i + 1) * width], strict=True)
        lines.append(" & ".join(_cell(cell, text) for cell, text in cells) + r" \\")
    return lines


def _cell(cell: Cell, text: str) -> str:
    if cell.mark == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.mark == "second":
        text = rf"\underline{{{text}}}"
    if cell.notes:
        text += rf"\textsuperscript{{{','.join(map(str, cell.notes))}}}"
    # A bracket at the start of a row would be read as an option of the \\ before it.
    return "{}" + text if text.startswith("[") else text


def escape(texts: Sequence[str]) -> list[str]:
    """Escape texts for LaTeX, line breaks turned into spaces."""
    import pandas as pd

    if not texts:
        return []
    # pandas escapes cells only while it writes a table: write one with a text per line.
    column = pd.DataFrame({"text": [" ".join(text.split()) for text in texts]})
    style = column.style.format(escape="latex").hide(axis="index").hide(axis="columns")
    lines = style.to_latex().splitlines()[1:-1]
    return [_ascii(line.removesuffix(r"\\").strip()) for line in lines]


def _ascii(text: str) -> str:
    return "".join(sign if sign.isascii() else _sign(sign) for sign in text)


def _sign(sign: str) -> str:
    if sign in _SIGNS:
        return _SIGNS[sign]
    if unicodedata.category(sign)[0] == "L" and ord(sign) < 0x180:
        return sign
    if sign in "–—“”‘’µ°":
        return sign
    words = unicodedata.name(sign, "").split()
    if words[:3] == ["GREEK", "SMALL", "LETTER"] and len(words) == 4 and sign != "ο":
        return rf"\ensuremath{{\{words[3].lower().replace('lamda', 'lambda')}}}"
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"
