"""A grid as a LaTeX table (booktabs)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

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


SAFE = 66
"""Letters in a row that fit onto any page; what is longer is measured by LaTeX."""

_FITTING = r"\ifdim\width>\textwidth\textwidth\else\width\fi"


def latex(grid: Grid) -> str:
    r"""Write a grid as a ``table`` environment.

    It needs ``\usepackage{booktabs}`` and, for long rows, ``graphicx``, with which a table that
    is wider than the page is made smaller; it compiles with pdflatex, xelatex and lualatex.
    """
    body = [r"\toprule", *_header(grid), r"\midrule", *_rows(grid), r"\bottomrule"]
    columns = "l" * grid.stubs + "r" * (len(grid.header) - grid.stubs)
    tabular = [rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]
    if _letters(grid) > SAFE:
        tabular = [rf"\resizebox{{{_FITTING}}}{{!}}{{%", *tabular, "}"]
    title, caption, *notes = escape([grid.title, grid.caption, *grid.notes])
    label = re.sub(r"[^A-Za-z0-9.:-]+", "-", grid.name)
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{title}{'. ' + caption if caption else ''}}}",
        rf"\label{{tab:{label}}}",
        r"\par\smallskip",
        r"\small",
        *tabular,
    ]
    if notes:
        numbered = [
            rf"\textsuperscript{{{number}}}~{note}" for number, note in enumerate(notes, start=1)
        ]
        lines += [r"\par\smallskip", r"{\footnotesize\raggedright", r"\\".join(numbered) + r"\par}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _letters(grid: Grid) -> int:
    """Letters in the longest row there can be, three for the gap between columns."""
    body = [[len(cell.text) for cell in row] for row in grid.rows]
    names = [len(column[-1]) for column in grid.header]
    return sum(max(lengths) + 3 for lengths in zip(names, *body, strict=True))


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
