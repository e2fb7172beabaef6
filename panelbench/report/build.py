"""Write a report: every table, every figure and the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from panelbench.errors import ConfigError
from panelbench.report import by_class, figures, page_figures, tables
from panelbench.report.cell_figures import reconstruction, umap
from panelbench.report.classes import class_details
from panelbench.report.confusion_figure import confusion
from panelbench.report.grid import Grid, markdown, rich_table, to_csv
from panelbench.report.html import Page, Picture, render
from panelbench.report.latex import latex
from panelbench.report.metric_figures import metric_by_k, metric_by_noise
from panelbench.report.panels import overlap_grids, stability_grid
from panelbench.report.properties import (
    FAILURE_COLUMNS,
    cost_grid,
    failures_grid,
    properties_grid,
    provenance,
)
from panelbench.report.published import beside, published_grid, read
from panelbench.report.ranks import comparison, ranks_grid
from panelbench.report.results import Results
from panelbench.report.summary import Summary
from panelbench.scoring.comparison import Comparison
from panelbench.scoring.metrics import Metric
from panelbench.suite.specs import FigureSpec, TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


def build(results: Results, out: Path, reference: Path | None = None) -> list[Path]:
    """Write the report of a suite.

    Parameters
    ----------
    results
        The records of the suite.
    out
        Folder of the report, made if need be; files of an earlier report are replaced, each in
        one step.
    reference
        Folder of published numbers (see `panelbench.report.published`); may be absent.

    Returns
    -------
    The files written: ``tables/<name>.{md,tex,csv}`` and ``figures/<name>.{svg,png}`` for each
    table of the suite and each figure that there are data for; ``methods``, ``ranks``,
    ``stability``, ``overlap-<data set>``, ``cost``, ``failures`` and ``published`` (``.md`` and
    ``.csv``; ``.tex`` for methods and ranks; ``.svg`` and ``.png`` for ranks); ``report.html``.
    Only ``cost``, ``failures`` and the page hold anything that differs between two executions of
    the same runs.

    Raises
    ------
    ConfigError
        When two tables or two figures have the same name.
    UnknownName
        When a table or figure names something that the suite does not have.
    DataError
        When a file of published numbers cannot be read.
    """
    summary = Summary(results)
    _unique("tables", [spec.name for spec in tables.specs(summary)])
    _unique("figures", [spec.name for spec in figures.specs(summary)])
    metric_tables = [_grid(summary, spec) for spec in tables.specs(summary)]
    main = tables.main_metric(summary)
    compared = comparison(summary, main)
    ranks = ranks_grid(compared, main) if compared else None
    lines = beside(summary, read(reference))
    published = published_grid(lines) if lines else None
    stability, overlaps = stability_grid(summary), overlap_grids(summary)
    cost, failed, methods = (
        cost_grid(summary),
        failures_grid(summary),
        properties_grid(summary.results),
    )

    files: dict[str, bytes] = {}
    for spec, grid in zip(tables.specs(summary), metric_tables, strict=True):
        columns = by_class.RECORD_COLUMNS if spec.by_class else tables.RECORD_COLUMNS
        files |= _texts(f"tables/{grid.name}", grid, columns)
    files |= _texts("methods", methods)
    if ranks is not None:
        files |= _texts("ranks", ranks)
    for grid in [stability, *overlaps, cost, *([published] if published else [])]:
        files |= _texts(grid.name, grid, suffixes=(".md", ".csv"))
    files |= _texts("failures", failed, FAILURE_COLUMNS, suffixes=(".md", ".csv"))

    with figures.style():
        drawn = _draw(summary)
        diagram = _diagram(main, compared)
        cost_figure = _cost_figure(summary, main, cost)
        curves = [
            Picture(title, figures.save(figure)["svg"])
            for title, figure in page_figures.curves(summary.results.selections)
        ]
    for name, (_, images) in {**drawn, **diagram}.items():
        files |= {f"{name}.{suffix}": data for suffix, data in images.items()}
    pictures = [Picture(title, images["svg"]) for title, images in drawn.values()]
    diagrams = [Picture(title, images["svg"]) for title, images in diagram.values()]
    page = Page(
        summary=summary,
        tables=metric_tables,
        figures=pictures,
        ranks=ranks,
        ranks_figure=diagrams[0] if diagrams else None,
        published=published,
        stability=stability,
        overlaps=overlaps,
        classes=class_details(summary),
        cost=cost,
        cost_figure=cost_figure,
        curves=curves,
        failures=failed,
        methods=methods,
        provenance=provenance(summary),
    )
    files["report.html"] = render(page).encode("utf-8")
    # A figure that has lost its data must not stay as an earlier report drew it.
    for figure in figures.specs(summary):
        for suffix in ("svg", "png"):
            if (name := f"figures/{figure.name}.{suffix}") not in files:
                (out / name).unlink(missing_ok=True)
    return [_write(out / name, data) for name, data in files.items()]


def terminal_table(results: Results) -> Table:
    """First table of the suite for the terminal.

    It is as wide as its columns: print it on a console that is wide enough, or let rich wrap
    the labels of the rows.
    """
    summary = Summary(results)
    spec, *_ = tables.specs(summary)
    return rich_table(_grid(summary, spec))


def _grid(summary: Summary, spec: TableSpec) -> Grid:
    return (
        by_class.by_class_grid(summary, spec)
        if spec.by_class
        else (tables.metric_grid(summary, spec))
    )


def _unique(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two {kind} of the suite are called {', '.join(twice)}: rename one")


def _texts(
    name: str,
    grid: Grid,
    columns: Sequence[str] | None = None,
    suffixes: Sequence[str] = (".md", ".tex", ".csv"),
) -> dict[str, bytes]:
    writers = {
        ".md": lambda: markdown(grid),
        ".tex": lambda: latex(grid),
        ".csv": lambda: to_csv(grid.records, columns),
    }
    return {name + suffix: writers[suffix]().encode("utf-8") for suffix in suffixes}


Drawn = dict[str, tuple[str, dict[str, bytes]]]
"""Title and bytes of figures by file name."""


def _draw(summary: Summary) -> Drawn:
    """Figures of the suite; those without data are left out."""
    looks = figures.Looks(summary)
    drawn = {}
    for spec in figures.specs(summary):
        draw, title, note = _KINDS[spec.kind]
        figure = draw(summary, spec, looks)
        if figure is not None:
            text = f"{spec.title or title.format(summary.metrics[spec.metric].label)}: {note}"
            drawn[f"figures/{spec.name}"] = (text, figures.save(figure))
    return drawn


_SPREAD = "mean over seeds, one sample standard deviation to each side"
_KINDS: dict[
    str, tuple[Callable[[Summary, FigureSpec, figures.Looks], Figure | None], str, str]
] = {
    "metric-by-k": (metric_by_k, "{} by panel size", _SPREAD),
    "metric-by-noise": (metric_by_noise, "{} with noisy labels", f"test labels clean; {_SPREAD}"),
    "confusion": (
        lambda summary, spec, _: confusion(summary, spec),
        "Confusion matrices",
        "test cells of all seeds; shares of the true class, decimals cut off",
    ),
    "umap": (
        lambda summary, spec, _: umap(summary, spec),
        "Test cells by the genes of a panel",
        "UMAP, one seed",
    ),
    "reconstruction": (
        lambda summary, spec, _: reconstruction(summary, spec),
        "Variances and principal components of reconstructed cells",
        "test cells of one seed; true cells grey",
    ),
}
"""By kind of figure: what draws it, its title without one of its own, what is shown."""


def _diagram(main: Metric, compared: Comparison | None) -> Drawn:
    figure = figures.critical_difference(compared) if compared else None
    if figure is None:
        return {}
    title = f"Mean ranks by {main.label}; a bar joins methods that cannot be told apart"
    return {"ranks": (f"{title} (Wilcoxon, Holm-corrected, 5% level)", figures.save(figure))}


def _cost_figure(summary: Summary, main: Metric, cost: Grid) -> Picture | None:
    figure = page_figures.cost_against_quality(summary, cost.records, main, figures.Looks(summary))
    title = f"{main.label} against the time of one selection, mean over seeds and tasks"
    return Picture(title, figures.save(figure)["svg"]) if figure is not None else None


def _write(path: Path, data: bytes) -> Path:
    """Replace a file in one step: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
