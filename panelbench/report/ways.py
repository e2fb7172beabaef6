"""Ways to score side by side, and how they agree on which methods are good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from panelbench.errors import UnknownName
from panelbench.report import choice
from panelbench.report.grid import Cell, Grid
from panelbench.report.results import EvaluatorRef, size_name
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.report.tables import (
    Notes,
    label_cell,
    marks,
    other_groups,
    places,
    record_lines,
    score_cell,
    with_uncut,
)
from panelbench.scoring.metrics import Metric, metric
from panelbench.suite.runs import Row
from panelbench.suite.specs import TableSpec


@dataclass(frozen=True)
class Way:
    """A metric as one evaluator gives it; `labelled` if labels of cells have part in it."""

    evaluator: EvaluatorRef
    metric: Metric
    label: str
    labelled: bool


def ways(summary: Summary, spec: TableSpec) -> list[Way]:
    """Metrics of a table by all of its evaluators that give them and score panels.

    Raises
    ------
    UnknownName
        When an evaluator or metric is named that does not exist, or that no evaluator gives.
    """
    entrants = choice.entrants(summary, spec, {"panel"})
    refs = [ref for ref in summary.evaluators if any(e.evaluator == ref for e in entrants)]
    known = {ref: summary.results.evaluators.get(ref.id) for ref in refs if not ref.own}
    found = []
    for name in spec.metrics:
        item = metric(name, choice.where(spec), summary.metrics)
        by = [ref for ref, declared in known.items() if item in declared.metrics]
        if not by:
            given = {m.id for declared in known.values() for m in declared.metrics}
            raise UnknownName("metric", name, sorted(given), choice.where(spec))
        for ref in by:
            declared = known[ref]
            label = item.label if len(by) == 1 else f"{item.label}, {_short(ref, by)}"
            found.append(Way(ref, item, label, declared.noisy or declared.describes))
    return found


def _short(ref: EvaluatorRef, among: Sequence[EvaluatorRef]) -> str:
    """What tells an evaluator from others: its parameters alone where they are one and the same."""
    if len({other.id for other in among}) > 1 or "[" not in ref.label:
        return ref.label
    return ref.label.partition("[")[2].removesuffix("]")


def ways_grid(summary: Summary, spec: TableSpec) -> Grid:
    """Methods in rows, ways to score in columns; a part for each data set, task and panel size.

    The last columns are mean ranks among the methods that compete: by ways that labels have part
    in, and by those that know none. A method that is good at labels only has a small first and a
    large second.

    Raises
    ------
    UnknownName
        As `ways`.
    """
    every, rows, where = ways(summary, spec), _rows(summary, spec), _places(summary, spec)
    notes = Notes()
    body, header = [], [*(("Data",) if len(where) > 1 else ()), "Method", *(w.label for w in every)]
    sides = [side for side in (True, False) if any(way.labelled == side for way in every)]
    header += [f"Mean rank, {'with' if side else 'without'} labels" for side in sides]
    for place in where:
        part = [_line(summary, place, row, every, notes) for row in rows]
        for column, way in enumerate(every, start=1):
            scores = [
                summary.get(place, e)
                if summary.competes(e := Entrant(row, way.evaluator))
                else None
                for row in rows
            ]
            for number, mark in marks(scores, way.metric).items():
                part[number][column] = replace(part[number][column], mark=mark)
        for side in sides:
            ranks = _mean_ranks(summary, place, rows, [w for w in every if w.labelled == side])
            for line, rank in zip(part, ranks, strict=True):
                line.append(Cell("–" if np.isnan(rank) else f"{rank:.1f}"))
        for number, line in enumerate(part):
            named = Cell(_name(place) if number == 0 else "")
            body.append(tuple([named, *line] if len(where) > 1 else line))
    return Grid(
        name=spec.name,
        title=spec.title or "Ways to score",
        header=tuple((text,) for text in header),
        rows=tuple(body),
        stubs=2 if len(where) > 1 else 1,
        caption=_caption(summary, every, where),
        notes=tuple(notes.texts),
        records=tuple(_ways_records(summary, spec, every, rows, where)),
    )


def _line(
    summary: Summary, place: Place, row: Row, every: Sequence[Way], notes: Notes
) -> list[Cell]:
    """Label of a method and its scores."""
    first = Entrant(row, every[0].evaluator)
    cells = [label_cell(summary, first, [first], notes)]
    return cells + [
        score_cell(summary.get(place, Entrant(row, way.evaluator)), way.metric, notes)
        for way in every
    ]


def _ways_records(
    summary: Summary,
    spec: TableSpec,
    every: Sequence[Way],
    rows: Sequence[Row],
    where: Sequence[Place],
) -> Iterator[dict[str, Any]]:
    entrants = [Entrant(row, way.evaluator) for row in rows for way in every]
    asked = {(way.evaluator.variant, way.metric.id) for way in every}
    for place in with_uncut(where):
        for entrant in dict.fromkeys(entrants):
            score = summary.scores.get((place, entrant))
            if score is None:
                continue
            for line in record_lines(summary, spec, place, entrant, entrants, score):
                if (line["evaluator"], line["metric"]) in asked:
                    yield line


def _caption(summary: Summary, every: Sequence[Way], where: Sequence[Place]) -> str:
    percent = [way.label for way in every if way.metric.percent]
    unit = "" if not percent else ", in percent"
    if percent and len(percent) < len(every):
        unit += " but for " + ", ".join(way.label for way in every if not way.metric.percent)
    lower = [way.label for way in every if not way.metric.higher_is_better]
    parts = [
        f"Mean ± sample standard deviation over seeds{unit}; best bold, second underlined"
        + (f" (lower is better: {', '.join(lower)})" if lower else "")
    ]
    if len(where) == 1:
        parts.append(_name(where[0]))
    parts += filter(None, [other_groups(summary, where)])
    free = [way.label for way in every if not way.labelled]
    if free and len(free) < len(every):
        parts.append(f"Without labels: {', '.join(free)}; 1 is the best rank")
    return ". ".join(parts) + "."


def _name(place: Place) -> str:
    noise = f", {place.noise.label}" if place.noise.fraction else ""
    return f"{place.dataset}, {place.task}, {size_name(place.k)}{noise}"


# -- how they agree ------------------------------------------------------------------------


AGREEMENT_COLUMNS = ("dataset", "task", "k", "one", "other", "methods", "spearman", "kendall")


def agreement_grid(summary: Summary, spec: TableSpec) -> Grid:
    """Rank correlation of each two ways over the methods that compete.

    A cell is Spearman's correlation between the mean scores of the methods by two ways, turned so
    that more is better, over the methods that both have scored; the mean over data sets, tasks and
    panel sizes where there are several. The CSV has each of these, and Kendall's tau-b.

    Raises
    ------
    UnknownName
        As `ways`.
    """
    every, where = ways(summary, spec), _places(summary, spec)
    rows = [row for row in _rows(summary, spec) if row.declared.cut]
    records = [
        record
        for place in where
        for record in _correlations(place, every, _values(summary, place, rows, every))
    ]
    found: dict[tuple[str, str], list[float]] = {}
    for line in records:
        if line["spearman"] == line["spearman"]:
            for pair in ((line["one"], line["other"]), (line["other"], line["one"])):
                found.setdefault(pair, []).append(line["spearman"])
    body = []
    for number, way in enumerate(every, start=1):
        values = [found.get((way.label, other.label)) for other in every]
        texts = ["1" if o is way else "–" if not v else f"{np.mean(v):+.2f}"
                 for o, v in zip(every, values, strict=True)]  # fmt: skip
        body.append([f"{number} {way.label}", *texts])
    most = max((line["methods"] for line in records), default=0)
    over = "; ".join(_name(place) for place in where)
    return Grid.plain(
        spec.name,
        spec.title or "How ways to score agree on methods",
        ["Way", *map(str, range(1, len(every) + 1))],
        body,
        caption=f"Spearman's rank correlation between the scores of up to {most} methods by two "
        f"ways, turned so that more is better{', mean' if len(where) > 1 else ''} over {over}. "
        "The CSV has Kendall's tau too.",
        records=records,
    )


def _correlations(
    place: Place, every: Sequence[Way], values: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Correlations of all pairs of ways at a place; NaN with fewer than three methods."""
    from scipy.stats import kendalltau, spearmanr

    for i, one in enumerate(every):
        for j in range(i + 1, len(every)):
            both = ~np.isnan(values[:, [i, j]]).any(axis=1)
            a, b = values[both, i], values[both, j]
            able = both.sum() > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
            yield {
                "dataset": place.dataset,
                "task": place.task,
                "k": place.k or 0,
                "one": one.label,
                "other": every[j].label,
                "methods": int(both.sum()),
                "spearman": float(spearmanr(a, b).statistic) if able else float("nan"),
                "kendall": float(kendalltau(a, b).statistic) if able else float("nan"),
            }


def _mean_ranks(
    summary: Summary, place: Place, rows: Sequence[Row], every: Sequence[Way]
) -> np.ndarray:
    """Mean rank of each method over some ways, 1 = best; NaN unless all have scored it."""
    from scipy.stats import rankdata

    values = _values(summary, place, rows, every)
    competes = np.array([row.declared.cut for row in rows], dtype=bool)
    whole = competes & ~np.isnan(values).any(axis=1)
    ranks = np.full(len(rows), np.nan)
    if whole.sum() > 1:
        ranks[whole] = rankdata(-values[whole], axis=0).mean(axis=1)
    return ranks


def _values(
    summary: Summary, place: Place, rows: Sequence[Row], every: Sequence[Way]
) -> np.ndarray:
    """Mean scores, methods x ways, turned so that more is better; NaN where there is none."""
    found = np.full((len(rows), len(every)), np.nan)
    for i, row in enumerate(rows):
        for j, way in enumerate(every):
            score = summary.get(place, Entrant(row, way.evaluator))
            if score is not None:
                sign = 1 if way.metric.higher_is_better else -1
                found[i, j] = sign * score.mean(way.metric.id)
    return found


def _rows(summary: Summary, spec: TableSpec) -> list[Row]:
    chosen = {entrant.row for entrant in choice.entrants(summary, spec, {"panel"})}
    return [row for row in summary.results.rows if row in chosen]


def _places(summary: Summary, spec: TableSpec) -> list[Place]:
    """Where anything was planned: a data set may lack a size or a task."""
    planned = {place for place, _ in summary.scores}
    return [place for place in places(summary, spec) if place in planned]
