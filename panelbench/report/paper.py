"""The tables and figures of a paper, gathered from the reports of its suites."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panelbench.errors import UnknownName
from panelbench.records.files import write_atomically
from panelbench.report import figures, tables
from panelbench.report.build import table_forms, table_grid
from panelbench.report.grid import Grid, to_csv
from panelbench.report.html import Picture, render_paper
from panelbench.report.latex import packages
from panelbench.report.manifest import Manifest
from panelbench.report.published import beside, read
from panelbench.report.results import Results
from panelbench.report.summary import Summary
from panelbench.suite.papers import PaperItem, PaperSpec
from panelbench.suite.specs import TableSpec


@dataclass(frozen=True)
class Reported:
    """What is known of a suite of a paper.

    Attributes
    ----------
    suite
        Its name in the paper.
    results, folder
        Its records and the folder of its report; None where nothing can be reported.
    problem
        Why, in words.
    """

    suite: str
    results: Results | None = None
    folder: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class Shown:
    """An item of a paper: its table or its picture, or why there is none."""

    item: PaperItem
    grid: Grid | None = None
    spec: TableSpec | None = None
    picture: Picture | None = None
    image: bytes = b""
    problem: str = ""


def build_paper(
    paper: PaperSpec, suites: Sequence[Reported], out: Path, reference: Path | None = None
) -> list[Path]:
    """Write all tables and figures of a paper into one folder.

    Parameters
    ----------
    paper
        The paper.
    suites
        Its suites, whose own reports have been written.
    out
        Folder, made if need be; files of an earlier report that this one has not are removed.
    reference
        Folder of published numbers.

    Returns
    -------
    The files: ``table-2.{md,tex,csv}`` and ``figure-2.{svg,png}`` for each item by its label,
    ``tables.md`` (all tables), ``tables.tex`` (a document that compiles), ``published.csv`` (all
    numbers beside the published ones) and ``report.html``.

    Raises
    ------
    UnknownName
        When the paper names a table or a figure that its suite does not have.
    """
    summaries = {s.suite: s.results.summary for s in suites if s.results is not None}
    published = read(reference)
    numbers = {name: beside(summary, published) for name, summary in summaries.items()}
    by_name = {suite.suite: suite for suite in suites}
    shown = [
        _shown(item, by_name[item.suite], summaries, numbers)
        for item in paper.items or _all(summaries)
    ]
    files = {name: text.encode("utf-8") for name, text in _texts(paper, shown, numbers)}
    for part in shown:
        if part.picture is not None:
            files[f"{part.item.name}.svg"] = part.picture.svg
            files[f"{part.item.name}.png"] = part.image
    files["report.html"] = render_paper(paper, shown, suites, out).encode("utf-8")
    known = Manifest.read(out)
    for name, data in files.items():
        write_atomically(out / name, data, durable=False)
    known.remove_others(out, files)
    Manifest("", {name: _sha256(data) for name, data in files.items()}).write(out)
    return [out / name for name in files]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _all(summaries: Mapping[str, Summary]) -> list[PaperItem]:
    """Every table and figure of the suites, under its own name."""
    return [
        PaperItem(label=f"{name} {spec.name}", suite=name, **{kind: spec.name})
        for name, summary in summaries.items()
        for kind, specs in (("table", tables.specs(summary)), ("figure", figures.specs(summary)))
        for spec in specs
    ]


def _shown(
    item: PaperItem,
    suite: Reported,
    summaries: Mapping[str, Summary],
    numbers: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Shown:
    summary = summaries.get(item.suite)
    if summary is None or suite.folder is None:
        return Shown(item, problem=suite.problem or "the suite has not run yet")
    if item.table is not None:
        specs = {spec.name: spec for spec in tables.specs(summary)}
        if item.table not in specs:
            raise UnknownName("table", item.table, specs, item.label)
        spec = specs[item.table]
        return Shown(item, table_grid(summary, spec, numbers[item.suite]), spec)
    assert item.figure is not None
    known = {spec.name: spec.title for spec in figures.specs(summary)}
    if item.figure not in known:
        raise UnknownName("figure", item.figure, known, item.label)
    path = suite.folder / "figures" / item.figure
    if not path.with_name(f"{item.figure}.svg").is_file():
        return Shown(item, problem="there are no results to draw yet")
    svg, png = (path.with_name(f"{item.figure}.{suffix}").read_bytes() for suffix in ("svg", "png"))
    return Shown(item, picture=Picture(known[item.figure] or item.label, svg), image=png)


def _texts(
    paper: PaperSpec,
    shown: Sequence[Shown],
    numbers: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str]]:
    """Name and text of every file but the page."""
    markdown, inputs, needed = [], [], {"booktabs"}
    for part in shown:
        if part.grid is None or part.spec is None:
            if part.problem:
                markdown.append(f"## {part.item.label}\n\nMissing: {part.problem}\n")
            continue
        for name, text in table_forms(part.item.name, part.grid, part.spec):
            yield name, text
            if name.endswith(".md"):
                markdown.append(f"## {part.item.label}\n\n{text}")
            if name.endswith(".tex"):
                needed |= packages(text)
                inputs.append(rf"\input{{{name}}}")
    yield "tables.md", "\n".join([f"# {paper.title or paper.name}\n", *markdown])
    head = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[T1]{fontenc}",
        rf"\usepackage{{{','.join(sorted(needed))}}}",
        r"\begin{document}",
    ]
    yield "tables.tex", "\n".join([*head, *inputs, r"\end{document}", ""])
    lines = [{"suite": name, **line} for name, found in numbers.items() for line in found]
    yield "published.csv", to_csv(lines)
