"""Tables with classes in rows: how well each kind of cell is reconstructed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from panelbench.report import tables
from panelbench.report.grid import Cell, Grid
from panelbench.report.summary import Entrant, Score, Summary
from panelbench.suite.specs import TableSpec

ALL = "All"
"""Name of the last group of rows: all cells, whatever their class."""

RECORD_COLUMNS = ("class", *tables.RECORD_COLUMNS)


def by_class_grid(summary: Summary, spec: TableSpec) -> Grid:
    """Fill a table whose rows are classes, and within each class the methods.

    Data sets and tasks are in rows too where there are several; the last group of each holds the
    metrics of all its cells. Cells are as in `tables.metric_grid`, with the best and second of
    each group marked.

    Raises
    ------
    UnknownName
        When the table names something that the suite does not have.
    """
    columns, entrants = tables.columns_of(summary, spec), tables.entrants_of(summary, spec)
    blocks = list(dict.fromkeys((place.dataset, place.task) for place, _ in columns))
    several = len(blocks) > 1
    items = list(dict.fromkeys((place.k, place.noise, item) for place, item in columns))
    notes = tables.Notes()
    body: list[tuple[Cell, ...]] = []
    shown: list[tables.Column] = []
    for dataset, task in blocks:
        shown = [
            (replace(columns[0][0], dataset=dataset, task=task, k=k, noise=noise), item)
            for k, noise, item in items
        ]
        first = dataset if len(summary.tasks[dataset]) == 1 else f"{dataset}, {task}"
        for name in [*_classes(summary, shown, entrants), None]:
            second = ALL if name is None else name
            for row in _group(summary, shown, entrants, name, notes):
                stubs = [Cell(first), Cell(second)] if several else [Cell(second)]
                body.append((*stubs, *row))
                # What a row shares with the one above it is not said again.
                first = second = ""
    levels = range(tables.SIZE if several else tables.DATASET, tables.METRIC + 1)
    header, fixed = tables.header_of(shown, named=not spec.title, levels=levels)
    names = ["Data set", "Class"] if several else ["Class"]
    corner = [("",) * (len(header[0]) - 1) + (name,) for name in names]
    return Grid(
        name=spec.name,
        title=spec.title or tables.title_of(summary, spec),
        header=(*corner, *header),
        rows=tuple(body),
        stubs=len(corner) + 1,
        caption=tables.caption(summary, columns, fixed, entrants),
        notes=tuple(notes.texts),
        records=tuple(_records(summary, spec, entrants)),
    )


def _classes(
    summary: Summary, columns: Sequence[tables.Column], entrants: Sequence[Entrant]
) -> list[str]:
    """Names of all classes that have scores, sorted."""
    scores = [summary.get(place, entrant) for place, _ in columns for entrant in entrants]
    return sorted({name for score in scores if score for seed in score.by_class for name in seed})


def _of(score: Score | None, name: str | None) -> Score | None:
    """Scores of one class, or of all cells."""
    return score if score is None or name is None else score.of_class(name)


def _group(
    summary: Summary,
    columns: Sequence[tables.Column],
    entrants: Sequence[Entrant],
    name: str | None,
    notes: tables.Notes,
) -> list[list[Cell]]:
    """Rows of one class: name and scores of every method."""
    rows = []
    for entrant in entrants:
        scores = [(_of(summary.get(place, entrant), name), item) for place, item in columns]
        cells = [tables.score_cell(score, item, notes) for score, item in scores]
        rows.append([tables.label_cell(summary, entrant, entrants, notes), *cells])
    for i, (place, item) in enumerate(columns, start=1):
        rivals = [
            _of(summary.get(place, entrant), name) if summary.competes(entrant) else None
            for entrant in entrants
        ]
        for number, mark in tables.marks(rivals, item).items():
            rows[number][i] = replace(rows[number][i], mark=mark)
    return rows


def _records(
    summary: Summary, spec: TableSpec, entrants: Sequence[Entrant]
) -> Iterator[dict[str, Any]]:
    """Every metric of every class, one line each; class "" for all cells."""
    for place in tables.with_uncut(tables.places(summary, spec)):
        for entrant in entrants:
            score = summary.scores.get((place, entrant))
            if score is None:
                continue
            classes = sorted({name for seed in score.by_class for name in seed})
            parts = {"": score} | {name: score.of_class(name) for name in classes}
            for name, part in parts.items():
                lines = tables.record_lines(summary, spec, place, entrant, entrants, part)
                yield from ({"class": name, **line} for line in lines)
