"""Tables of differences to one method's scores, split by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from panelbench.errors import UnknownName
from panelbench.report import choice
from panelbench.report.grid import Cell, Grid
from panelbench.report.summary import Entrant, Place, Score, Summary
from panelbench.report.tables import (
    Notes,
    columns_of,
    entrants_of,
    header_of,
    label_cell,
    places,
    record_lines,
    title_of,
    with_uncut,
    without_size,
)
from panelbench.scoring.metrics import Metric
from panelbench.suite.specs import TableSpec


def paired_grid(summary: Summary, spec: TableSpec) -> Grid:
    """Fill a table of differences.

    A cell is the mean ± sample standard deviation (n - 1) of the differences over the seeds that
    both methods have, and how many of them are above 0. The CSV holds the differences of every
    metric.

    Raises
    ------
    UnknownName
        When the table names a data set, task, k, evaluator, method or metric that does not exist.
    """
    columns, entrants = columns_of(summary, spec), entrants_of(summary, spec)
    base = _base(spec, entrants)
    others = [entrant for entrant in entrants if entrant != base.get(entrant.evaluator.variant)]
    notes = Notes()

    def score(place: Place, entrant: Entrant) -> Score | None:
        other = base.get(entrant.evaluator.variant)
        mine = summary.get(place, entrant)
        theirs = summary.get(place, other) if other is not None else None
        return None if mine is None or theirs is None else difference(mine, theirs)

    body = [
        [
            label_cell(summary, entrant, entrants, notes),
            *(Cell(_text(score(place, entrant), item)) for place, item in columns),
        ]
        for entrant in others
    ]
    header, fixed = header_of(columns, named=not spec.title)
    parts = [
        "Mean ± sample standard deviation of the differences over seeds (how many are above 0)",
        *without_size(fixed, entrants),
    ]
    less = ", ".join(dict.fromkeys(entrant.row.label for entrant in base.values()))
    return Grid(
        name=spec.name,
        title=spec.title or f"{title_of(summary, spec)}, less that of {less}",
        header=header,
        rows=tuple(tuple(row) for row in body),
        caption=". ".join(part[:1].upper() + part[1:] for part in parts) + ".",
        notes=tuple(notes.texts),
        records=tuple(
            line
            for place in with_uncut(places(summary, spec))
            for entrant in others
            if (place, entrant) in summary.scores and (found := score(place, entrant)) is not None
            for line in record_lines(summary, spec, place, entrant, entrants, found)
        ),
    )


def difference(mine: Score, theirs: Score) -> Score:
    """Metrics of one score less those of another, for the seeds that have both."""
    other = dict(zip(theirs.seeds, theirs.metrics, strict=True))
    pairs = [
        (seed, {name: values[name] - other[seed][name] for name in values if name in other[seed]})
        for seed, values in zip(mine.seeds, mine.metrics, strict=True)
        if seed in other
    ]
    return replace(
        mine,
        seeds=tuple(seed for seed, _ in pairs),
        metrics=tuple(values for _, values in pairs),
        lines=(),
    )


def _base(spec: TableSpec, entrants: Sequence[Entrant]) -> dict[str, Entrant]:
    """Whose scores are taken off, by evaluator: the row named, or the first of the method."""
    found: dict[str, Entrant] = {}
    for entrant in entrants:
        if spec.minus in (entrant.row.variant, entrant.row.method):
            found.setdefault(entrant.evaluator.variant, entrant)
    if not found:
        known = [entrant.row.method for entrant in entrants]
        raise UnknownName("method", str(spec.minus), known, choice.where(spec))
    return found


def _text(score: Score | None, item: Metric) -> str:
    values = np.array([]) if score is None else score.values(item.id)
    if not len(values):
        return "–"
    scale, digits = (100, 1) if item.percent else (1, 3)
    scaled = scale * values
    spread = f" ± {scaled.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{scaled.mean() + 0.0:+.{digits}f}{spread} ({int((values > 0).sum())}/{len(values)})"
