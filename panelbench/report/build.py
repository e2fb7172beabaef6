"""Write a report: every table, every figure and the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from panelbench.errors import ConfigError
from panelbench.records.files import write_atomically
from panelbench.report import (
    auxiliary_figure,
    bar_figures,
    by_class,
    cell_figures,
    confusion_figure,
    figures,
    genes,
    metric_figures,
    page_figures,
    tables,
    ways,
)
from panelbench.report.classes import class_details
from panelbench.report.drawing import Drawing, draw_all
from panelbench.report.grid import Grid, markdown, rich_table, to_csv
from panelbench.report.html import Page, Picture, render
from panelbench.report.latex import latex
from panelbench.report.manifest import Manifest, origin_of, sha256
from panelbench.report.paired import paired_grid
from panelbench.report.panels import overlap_grids, stability_grid
from panelbench.report.properties import (
    FAILURE_COLUMNS,
    cost_grid,
    failures_grid,
    properties_grid,
    provenance,
)
from panelbench.report.published import beside, joined, published_grid, read
from panelbench.report.ranks import Ranking, rankings, ranks_grid
from panelbench.report.results import Results
from panelbench.report.sources import bibtex, sources
from panelbench.report.summary import Summary
from panelbench.scoring.metrics import Metric
from panelbench.suite.specs import FigureSpec, TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group


def build(results: Results, out: Path, reference: Path | None = None) -> list[Path]:
    """Write the report of a suite, doing only what has changed.

    Parameters
    ----------
    results
        The records of the suite.
    out
        Folder of the report, made if need be; files of an earlier report are replaced, each in
        one step, and those that this one has not are removed. Files of others stay.
    reference
        Folder of published numbers (see `panelbench.report.published`); may be absent.

    Returns
    -------
    The files of the report: ``tables/<name>.{md,tex,csv}`` and ``figures/<name>.{svg,png}`` for
    each table of the suite and each figure that there are data for; ``methods``, ``ranks``,
    ``stability``, ``overlap-<data set>``, ``cost``, ``failures`` and ``published`` (``.md`` and
    ``.csv``; ``.tex`` for methods and ranks); ``ranks-<n>``, ``overlap-<data set>``, ``cost`` and
    ``training-<n>-...`` as figures; ``genes.csv``, every gene of every panel; ``references.bib``;
    ``report.html``. Only ``cost``, ``training``, ``failures`` and the page hold anything that
    differs between two executions of the same runs. ``manifest.json`` lists them all.

    Raises
    ------
    ConfigError
        When two tables or two figures have the same name.
    UnknownName
        When a table or figure names something that the suite does not have.
    DataError
        When a file of published numbers cannot be read.
    """
    known, origin = Manifest.read(out), origin_of(results, reference)
    if known.origin == origin and known.is_whole(out):
        return [out / name for name in known.files]
    summary = results.summary
    _unique("tables", [spec.name for spec in tables.specs(summary)])
    _unique("figures", [spec.name for spec in figures.specs(summary)])
    parts = _Parts.of(summary, reference)
    drawings = list(_drawings(summary, parts))
    files = {name: text.encode("utf-8") for name, text in _texts(summary, parts)}
    files |= draw_all(drawings, out, known)
    pictures = {item.name: Picture(item.title, files[f"{item.name}.svg"]) for item in drawings}
    files["report.html"] = render(_page(summary, parts, pictures)).encode("utf-8")
    for name, data in files.items():
        if not known.holds(out, name) or known.files[name] != sha256(data):
            write_atomically(out / name, data, durable=False)
    known.remove_others(out, files)
    made = {drawing.name: drawing.digest for drawing in drawings}
    written = {name: sha256(data) for name, data in files.items()}
    Manifest(origin, written, made, results.source).write(out)
    return [out / name for name in files]


def terminal_table(results: Results) -> Group:
    """First table of the suite for the terminal.

    It is as wide as its columns: print it on a console that is wide enough, or let rich wrap
    the labels of the rows.
    """
    summary = results.summary
    specs = sorted(tables.specs(summary), key=lambda spec: spec.kind != "metrics")
    return rich_table(table_grid(summary, specs[0], ()))


class _Parts(NamedTuple):
    """All tables of a report, and the comparisons of the methods."""

    main: Metric
    rankings: list[Ranking]
    metric_tables: list[Grid]
    methods: Grid
    ranks: Grid | None
    stability: Grid
    overlaps: list[Grid]
    genes: str
    cost: Grid
    published: Grid | None
    failures: Grid

    @classmethod
    def of(cls, summary: Summary, reference: Path | None) -> _Parts:
        """Fill the tables."""
        main = tables.main_metric(summary)
        compared = rankings(summary, main)
        numbers = beside(summary, read(reference))
        return cls(
            main=main,
            rankings=compared,
            metric_tables=[table_grid(summary, spec, numbers) for spec in tables.specs(summary)],
            methods=properties_grid(summary.results),
            ranks=ranks_grid(compared, main) if compared else None,
            stability=stability_grid(summary),
            overlaps=overlap_grids(summary),
            genes=genes.genes_csv(summary),
            cost=cost_grid(summary),
            published=published_grid(numbers) if numbers else None,
            failures=failures_grid(summary),
        )


def table_grid(summary: Summary, spec: TableSpec, numbers: Sequence[Mapping[str, Any]]) -> Grid:
    """Fill a table of a suite, with published numbers (`published.beside`) beside its cells."""
    if spec.kind == "properties":
        return properties_grid(summary.results, spec)
    if spec.kind != "metrics":
        return (ways.ways_grid if spec.kind == "ways" else ways.agreement_grid)(summary, spec)
    if spec.minus is not None:
        return paired_grid(summary, spec)
    fill = by_class.by_class_grid if spec.by_class else tables.metric_grid
    return joined(fill(summary, spec), summary, spec, numbers)


def _unique(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two {kind} of the suite are called {', '.join(twice)}: rename one")


def _texts(summary: Summary, parts: _Parts) -> Iterator[tuple[str, str]]:
    """Name and text of every file of a table."""
    for spec, grid in zip(tables.specs(summary), parts.metric_tables, strict=True):
        yield from table_forms(f"tables/{grid.name}", grid, spec)
    yield from _forms("methods", parts.methods)
    if parts.ranks is not None:
        yield from _forms("ranks", parts.ranks)
    for item in (parts.stability, *parts.overlaps, parts.cost, parts.published):
        if item is not None:
            yield from _forms(item.name, item, suffixes=(".md", ".csv"))
    yield "references.bib", bibtex(sources(summary.results))
    yield "genes.csv", parts.genes
    yield from _forms("failures", parts.failures, FAILURE_COLUMNS, suffixes=(".md", ".csv"))


def table_forms(name: str, grid: Grid, spec: TableSpec) -> Iterator[tuple[str, str]]:
    """Name and text of the files of a suite's table."""
    columns = by_class.RECORD_COLUMNS if spec.by_class else tables.RECORD_COLUMNS
    other = {"properties": None, "agreement": ways.AGREEMENT_COLUMNS}
    return _forms(name, grid, other.get(spec.kind, columns))


def _forms(
    name: str,
    grid: Grid,
    columns: Sequence[str] | None = None,
    suffixes: Sequence[str] = (".md", ".tex", ".csv"),
) -> Iterator[tuple[str, str]]:
    writers: dict[str, Callable[[], str]] = {
        ".md": lambda: markdown(grid),
        ".tex": lambda: latex(grid),
        ".csv": lambda: to_csv(grid.records, columns),
    }
    for suffix in suffixes:
        yield name + suffix, writers[suffix]()


class _Kind(NamedTuple):
    """A kind of figure: its content, what draws it, its title without one of its own, a note."""

    content: Callable[[Summary, FigureSpec, figures.Looks], Any]
    draw: Callable[[Any], Figure]
    title: str
    note: str


_SPREAD = "mean over seeds, one sample standard deviation to each side"
_KINDS = {
    "metric-by-k": _Kind(
        metric_figures.metric_by_k, metric_figures.draw, "{} by panel size", _SPREAD
    ),
    "metric-by-noise": _Kind(
        metric_figures.metric_by_noise,
        metric_figures.draw,
        "{} with noisy labels",
        f"test labels clean; {_SPREAD}",
    ),
    "metric-by-auxiliary": _Kind(
        lambda summary, spec, _: auxiliary_figure.metric_by_auxiliary(summary, spec),
        auxiliary_figure.draw,
        "{} by the number of genes trained on",
        _SPREAD,
    ),
    "metric-bars": _Kind(
        bar_figures.metric_bars, bar_figures.draw_bars, "Metrics side by side", _SPREAD
    ),
    "label-distribution": _Kind(
        bar_figures.label_distribution,
        bar_figures.draw_distribution,
        "Cells per class",
        "all cells of the prepared data set that have a label",
    ),
    "training": _Kind(
        page_figures.training_curve, page_figures.draw_training, "Training", "a line per run"
    ),
    "confusion": _Kind(
        lambda summary, spec, _: confusion_figure.confusion(summary, spec),
        confusion_figure.draw,
        "Confusion matrices",
        "test cells of all seeds; shares of the true class, decimals cut off",
    ),
    "umap": _Kind(
        lambda summary, spec, _: cell_figures.umap(summary, spec),
        cell_figures.draw_umap,
        "Test cells by the genes of a panel",
        "UMAP, one seed",
    ),
    "reconstruction": _Kind(
        lambda summary, spec, _: cell_figures.reconstruction(summary, spec),
        cell_figures.draw_reconstruction,
        "Variances and principal components of reconstructed cells",
        "test cells of one seed; true cells grey",
    ),
}


def _drawings(summary: Summary, parts: _Parts) -> Iterator[Drawing]:
    """Figures of the suite, then those of the page; those without data are left out."""
    looks = figures.Looks(summary)
    for spec in figures.specs(summary):
        kind = _KINDS[spec.kind]
        content = kind.content(summary, spec, looks)
        if content is not None:
            title = spec.title or kind.title.format(summary.metrics[spec.metric].label)
            yield Drawing(f"figures/{spec.name}", f"{title}: {kind.note}", content, kind.draw)
    label = parts.main.label
    for number, ranking in enumerate(parts.rankings, start=1):
        ranks = figures.RanksContent.of(ranking.compared)
        if ranks is not None:
            title = f"Mean ranks by {label} of panels scored by {ranking.evaluator.label}; a bar "
            title += "joins methods that cannot be told apart (Wilcoxon, Holm-corrected, 5% level)"
            yield Drawing(f"ranks-{number}", title, ranks, figures.critical_difference)
    cost = page_figures.cost_against_quality(summary, parts.cost.records, parts.main, looks)
    if cost is not None:
        title = f"{label} against the time of one selection, mean over seeds and tasks"
        yield Drawing("cost", title, cost, page_figures.draw_cost)
    for grid in parts.overlaps:
        yield Drawing(grid.name, grid.title, page_figures.overlap(grid), page_figures.draw_overlap)
    for number, curves in enumerate(page_figures.curves(summary.results.selections), start=1):
        stem = re.sub(r"[^A-Za-z0-9]+", "-", curves.title).strip("-")
        name = f"training-{number}-{stem}"
        yield Drawing(name, curves.title, curves, page_figures.draw_curves)


def _page(summary: Summary, parts: _Parts, pictures: dict[str, Picture]) -> Page:
    def below(start: str) -> list[Picture]:
        return [picture for name, picture in pictures.items() if name.startswith(start)]

    return Page(
        summary=summary,
        tables=parts.metric_tables,
        figures=below("figures/"),
        ranks=parts.ranks,
        ranks_figures=below("ranks-"),
        published=parts.published,
        stability=parts.stability,
        overlaps=[(grid, pictures[grid.name]) for grid in parts.overlaps],
        genes=genes.method_panels(summary),
        genes_file=genes.address_of(parts.genes, "genes.csv"),
        classes=class_details(summary),
        cost=parts.cost,
        cost_figure=pictures.get("cost"),
        curves=below("training-"),
        failures=parts.failures,
        methods=parts.methods,
        provenance=provenance(summary),
    )
