"""One page that holds everything: no file beside it, no request to anywhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from panelbench.report.classes import ClassDetails
from panelbench.report.genes import MethodPanels
from panelbench.report.grid import Grid, to_csv
from panelbench.report.sources import sources
from panelbench.report.summary import Summary
from panelbench.stages.constraints import Constraints
from panelbench.suite.papers import PaperSpec
from panelbench.text import printable

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    svg: bytes

    @property
    def source(self) -> str:
        """Data URL; as an image its styles and ids cannot meddle with the page's."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True)
class Page:
    """What the page shows, section by section; empty sections are left out."""

    summary: Summary
    tables: Sequence[Grid]
    figures: Sequence[Picture]
    ranks: Grid | None
    ranks_figures: Sequence[Picture]
    published: Grid | None
    stability: Grid
    overlaps: Sequence[tuple[Grid, Picture]]
    genes: Sequence[MethodPanels]
    genes_file: str
    classes: Sequence[ClassDetails]
    cost: Grid
    cost_figure: Picture | None
    curves: Sequence[Picture]
    failures: Grid
    methods: Grid
    provenance: Mapping[str, Sequence[tuple[str, str]]]


LARGEST_CSV = 200_000
"""Characters of a table's CSV that a page carries for its link, at most."""


def csv_url(grid: Grid) -> str:
    """A table as a CSV file that a page offers without one beside it.

    What its cells show, where all that lies behind them is too much; "" where that is, too.
    """
    shown = [{str(number): cell.text for number, cell in enumerate(row)} for row in grid.rows]
    head = {str(n): " ".join(filter(None, names)) for n, names in enumerate(grid.header)}
    for lines in (grid.records, shown):
        # A line is a name and a number at least: what is too long is not written first.
        if not lines or len(lines) * len(lines[0]) * 2 > LARGEST_CSV:
            continue
        text = to_csv(lines)
        if lines is shown:
            text = to_csv([head]).partition("\n")[2] + text.partition("\n")[2]
        if len(text) <= LARGEST_CSV:
            return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode(
                "ascii"
            )
    return ""


def tiles(summary: Summary) -> list[tuple[str, str]]:
    """The suite in numbers: (number, what it counts)."""
    lines = summary.results.scores
    total = len(lines)
    done = sum(line.status == "ok" for line in lines)
    missing = sum(line.status == "missing" for line in lines)
    failed = total - done - missing
    found = [
        (len(summary.results.rows), "method", "methods"),
        (len(summary.datasets), "data set", "data sets"),
        (len(summary.ks), "panel size", "panel sizes"),
        (len(summary.results.suite.seeds), "seed", "seeds"),
    ]
    counted = [(f"{n:,}", one if n == 1 else many) for n, one, many in found]
    counted.append((f"{done:,} of {total:,}", "evaluations done"))
    if failed:
        counted.append((f"{failed:,}", "without a result"))
    if missing:
        counted.append((f"{missing:,}", "not run yet"))
    return counted


def constraint_lines(constraints: Constraints | None) -> list[str]:
    """What every panel keeps to, for people."""
    if constraints is None:
        return []
    lines = []
    for name, words in (("include", "always on it"), ("exclude", "never on it")):
        genes = getattr(constraints, name)
        if genes:
            more = f" and {len(genes) - 12} more" if len(genes) > 12 else ""
            lines.append(f"{words}: {printable(', '.join(genes[:12]))}{more}")
    for name, words in (
        ("mean", "mean count per cell"),
        ("class_mean", "mean count per cell of the class where it is highest"),
        ("detection", "share of cells with the gene"),
        ("class_detection", "share of cells with the gene in the class where it is highest"),
    ):
        low, high = getattr(constraints, name)
        bounds = [f"{sign} {end:g}" for sign, end in (("at least", low), ("at most", high))
                  if end is not None]  # fmt: skip
        if bounds:
            lines.append(f"{words}: {' and '.join(bounds)}")
    if constraints.budget is not None:
        lines.append(f"cost together: at most {constraints.budget:g}")
    if constraints.markers:
        lines.append(
            f"markers of each class: at least {constraints.markers} (AUROC above "
            f"{constraints.marker_auroc:g}, seen in more than {constraints.marker_detection:.0%} "
            "of its cells)"
        )
    return lines


def dataset_facts(summary: Summary) -> list[dict[str, Any]]:
    """Facts of each data set, for the list at the end of the page."""
    lines = []
    for name in summary.datasets:
        facts = summary.results.datasets.get(name, {})
        notes = facts.get("notes") or ()
        size = [f"{facts[noun]:,} {noun}" for noun in ("cells", "genes") if noun in facts]
        tasks = [f"{task} ({len(classes)} classes)" if classes else task
                 for task, classes in facts.get("tasks", {}).items()]  # fmt: skip
        lines.append(
            {
                "id": name,
                "title": facts.get("title", ""),
                "size": " × ".join(size),
                "tasks": ", ".join(tasks),
                "citation": facts.get("citation", ""),
                "licence": facts.get("licence", ""),
                "notes": [notes] if isinstance(notes, str) else list(notes),
            }
        )
    return lines


def render(page: Page) -> str:
    """Fill the template; every text is escaped."""
    return fill(
        "report.html.j2",
        page=page,
        suite=page.summary.results.suite,
        tiles=tiles(page.summary),
        datasets=dataset_facts(page.summary),
        sources=sources(page.summary.results),
        constraints=constraint_lines(page.summary.results.suite.constraints),
    )


def render_paper(
    paper: PaperSpec, shown: Sequence[Any], suites: Sequence[Any], folder: Path
) -> str:
    """Fill the template of a paper; every text is escaped."""
    links = [
        (item.suite, item.problem, _link(item.folder, folder) if item.folder else "")
        for item in suites
    ]
    return fill("paper.html.j2", paper=paper, shown=shown, suites=links)


def _link(target: Path, folder: Path) -> str:
    """Relative address of the page of another report."""
    return quote(os.path.relpath(target / "report.html", folder).replace(os.sep, "/"))


def fill(name: str, **shown: Any) -> str:
    """Fill a template; every text is escaped."""
    return _template(name).render(**shown)


def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("panelbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csv_url"] = csv_url
    return environment.get_template(name)
