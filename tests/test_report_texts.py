"""No text breaks a report, whatever a method, a label or an error message holds."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from panelbench.report import build, terminal_table
from panelbench.report.grid import guarded, to_csv
from panelbench.text import printable, printable_parts
from tests.reports import ROWS, compile_latex, fake_results, no_score

HOSTILE = {
    "mathtext": "$\\unknowncommand$ and $x^{2$",
    "colours": "\x1b[31mred\x1b[0m \x1b]0;title\x07 end",
    "control": "a\x00b\x07c\x08\x9bd",
    "direction": "safe\u202egnp.exe\u200b",
    "surrogate": "half \ud83d pair",
    "markup": "[bold]x[/bold] [/data/model.bin, /opt] [yoto[epochs=40]]",
    "formula": '=HYPERLINK("http://x","y")',
    "html": "<img src=x onerror=alert(1)>",
    "latex": "\\input{/etc/passwd} % $ & # _ ^ ~ {}",
}


@pytest.fixture(scope="module", params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A text, and the report of a suite that has it wherever others can put one."""
    text = HOSTILE[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    rows = (replace(ROWS[0], label=text), *ROWS[1:])

    def change(line: dict[str, Any]) -> dict[str, Any]:
        line = no_score("failed", text, variant="persist", seed=1)(line)
        classes = [text, *line["classes"][1:]] if line["classes"] else []
        return line | {"classes": classes, "notes": [text]}

    figures = [{"name": k, "kind": k, "title": text} for k in ("metric-by-k", "confusion")]
    tables = [{"name": "t", "title": text, "n_models": True}]
    suite = {"title": text, "description": text, "tables": tables, "figures": figures}
    results = fake_results(suite, change, rows=rows)
    told = {"warnings": [text], "host": text}
    results = replace(results, selections=[replace(x, **told) for x in results.selections])
    build(results, folder)
    return text, folder, results


def test_every_text_gives_a_whole_report(hostile: Any) -> None:
    _, folder, _ = hostile
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"report.html", "t.tex", "failures.csv", "confusion.svg"} <= {p.name for p in files}
    for path in files:
        if path.suffix != ".png":
            text = path.read_text(encoding="utf-8")
            assert printable(text) == text, path
        if path.suffix == ".svg":
            ElementTree.parse(path)


def test_what_is_shown_is_the_text_itself(hostile: Any) -> None:
    text, folder, results = hostile
    (reason,) = {x["reason"] for x in csv.DictReader((folder / "failures.csv").open())}
    assert reason == guarded(printable(text))
    stream = io.StringIO()
    Console(file=stream, width=400).print(terminal_table(results))
    assert printable(text) in stream.getvalue()


def test_a_name_with_dollar_signs_is_drawn_letter_by_letter() -> None:
    from panelbench.report.figures import Looks, save, style
    from panelbench.report.metric_figures import draw, metric_by_k
    from panelbench.report.summary import Summary
    from panelbench.suite.specs import FigureSpec

    label = "$\\unknowncommand$"
    summary = Summary(fake_results(rows=(replace(ROWS[0], label=label), *ROWS[1:])))
    with style():
        content = metric_by_k(summary, FigureSpec(name="f"), Looks(summary))
        assert content is not None
        figure = draw(content)
        assert label in [text.get_text() for text in figure.legends[0].texts]
        assert save(figure)["svg"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_takes_every_text(tmp_path: Path, hostile: Any) -> None:
    _, folder, _ = hostile
    names = [folder / "tables" / "t.tex", folder / "methods.tex"]
    compile_latex(tmp_path, names)


def test_a_spreadsheet_computes_nothing() -> None:
    texts = ["=1+1", "+cell", "-cell", "@x", "\tx", "-0.5", "+1e3", "plain", "–"]
    lines = [{"text": text, "number": -1.5} for text in texts]
    found = list(csv.DictReader(io.StringIO(to_csv(lines))))
    assert [line["text"] for line in found] == [
        "'=1+1", "'+cell", "'-cell", "'@x", "'\tx", "-0.5", "+1e3", "plain", "–",
    ]  # fmt: skip
    assert {line["number"] for line in found} == {"-1.500000"}


def test_printable_keeps_what_can_be_seen() -> None:
    assert printable("β-cell, café 日本\nnext\tcolumn") == "β-cell, café 日本\nnext\tcolumn"
    assert printable("\x1b[1;31mred\x1b[0m\r\n") == "red\n"
    assert printable("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
    assert printable("a\u2028b") == "a\nb" and printable("\udc80") == "?"
    assert printable_parts({"a\x07": ["\x1b[0mb", ("c\x00", 1)]}) == {"a": ["b", ("c", 1)]}
