"""Metric tables: methods in rows, whatever varies of data set, task, k and metric in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from panelbench.config import CLEAN, TableSpec
from panelbench.errors import UnknownName
from panelbench.metrics import METRICS, Metric, metric
from panelbench.report.grid import Cell, Grid, Mark
from panelbench.report.summary import (
    KEEPS_ALL,
    Entrant,
    Place,
    Score,
    Summary,
    evaluator_label,
    own,
)

Column = tuple[Place, Metric]

NOISE, METRIC = 3, 4
"""Levels of a full header."""


@dataclass
class _Notes:
    """Footnotes of one table: the same text gets the same number."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def specs(summary: Summary) -> tuple[TableSpec, ...]:
    """Tables of a suite; without any, one for the main metric of each kind of task."""
    suite = summary.results.suite
    if suite.tables:
        return suite.tables
    kinds = summary.kinds()
    names = {"classification": "f1_macro", "regression": "pearson", "expression": "l2"}
    found = [name for kind, name in names.items() if kind in kinds]
    return tuple(TableSpec(name=name.replace("_", "-"), metrics=(name,)) for name in found)


def metric_grid(summary: Summary, spec: TableSpec) -> Grid:
    """Fill a table.

    A cell is the mean ± sample standard deviation (n - 1) over seeds. The best of a column is
    bold and the next lower value underlined, both as printed: rows that print the same value
    share the mark. Only rows with as many seeds as any other row of the column compete, and no
    controls that keep all genes.

    Raises
    ------
    UnknownName
        When the table names a data set, task, k, evaluator or metric that does not exist.
    """
    columns, entrants = _columns(summary, spec), _entrants(summary, spec)
    notes = _Notes()
    body: list[list[Cell]] = []
    for entrant in entrants:
        row = [_label(summary, entrant, entrants, notes)]
        row += [_cell(summary.get(place, entrant), item, notes) for place, item in columns]
        body.append(row)
    for i, (place, item) in enumerate(columns, start=1):
        for number, mark in _marks(summary, entrants, place, item).items():
            body[number][i] = replace(body[number][i], mark=mark)
    header, fixed = _header(columns, named=not spec.title)
    if spec.n_models:
        header = (*header, ("",) * (len(header[0]) - 1) + ("#models",))
        for row, entrant in zip(body, entrants, strict=True):
            row.append(Cell(count_models(summary, spec, entrant)))
    return Grid(
        name=spec.name,
        title=spec.title or _title(spec),
        header=header,
        rows=tuple(tuple(row) for row in body),
        caption=_caption(summary, columns, fixed, entrants),
        notes=tuple(notes.texts),
        records=tuple(_records(summary, spec, entrants)),
    )


def _chosen(
    kind: str, wanted: Sequence[Any] | None, known: Sequence[Any], spec: TableSpec
) -> list[Any]:
    for name in wanted or ():
        if name not in known:
            raise UnknownName(kind, str(name), map(str, known), f"table {spec.name}")
    return [name for name in known if wanted is None or name in wanted]


def _entrants(summary: Summary, spec: TableSpec) -> list[Entrant]:
    # A table may name an evaluator with its parameters or, for all of its kind, by its id.
    known = summary.evaluators
    ids = {name.partition("[")[0] for name in known}
    for name in spec.evaluators or ():
        if name not in known and name not in ids:
            raise UnknownName("evaluator", name, {*known, *ids}, f"table {spec.name}")
    chosen = spec.evaluators
    datasets = _chosen("data set", spec.datasets, summary.datasets, spec)
    kinds = {metric(name, f"table {spec.name}").kind for name in spec.metrics}
    present = {
        entrant
        for (place, entrant), score in summary.scores.items()
        if place.dataset in datasets and (score.kind in kinds or kinds == {"panel"})
    }
    return [
        entrant
        for entrant in summary.entrants
        if entrant in present
        and (chosen is None or {entrant.evaluator, entrant.evaluator.partition("[")[0]} & {*chosen})
    ]


def _places(summary: Summary, spec: TableSpec) -> list[Place]:
    tasks = {task for names in summary.tasks.values() for task in names}
    _chosen("task", spec.tasks, sorted(tasks), spec)
    asked = sorted({*summary.ks, *summary.results.suite.ks})
    ks = [k for k in _chosen("k", spec.ks, asked, spec) if k in summary.ks]
    return [
        Place(dataset, task, k, level)
        for dataset in _chosen("data set", spec.datasets, summary.datasets, spec)
        for task in summary.tasks[dataset]
        if spec.tasks is None or task in spec.tasks
        for k in ks or [KEEPS_ALL]
        for level in summary.levels
    ]


def _columns(summary: Summary, spec: TableSpec) -> list[Column]:
    items = [metric(name, f"table {spec.name}") for name in spec.metrics]
    return [
        (place, item)
        for place in _places(summary, spec)
        for item in items
        if item.kind in (*summary.kinds_of(place.dataset, place.task), "panel")
    ]


def _header(
    columns: Sequence[Column], named: bool
) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
    """Header levels for what varies, and the parts that are the same in all columns.

    The metric is no such part when the title already names it (`named`).
    """
    texts = [
        (place.dataset, place.task, "all genes" if place.k == KEEPS_ALL else f"k = {place.k}",
         place.noise.label, item.label)
        for place, item in columns
    ]  # fmt: skip
    varying = [level for level in range(METRIC + 1) if len({text[level] for text in texts}) > 1]
    tasks = {place.dataset: {p.task for p, _ in columns if p.dataset == place.dataset}
             for place, _ in columns}  # fmt: skip
    # One task per data set: its name tells nothing that the data set's does not.
    if 0 in varying and all(len(names) == 1 for names in tasks.values()):
        varying = [level for level in varying if level != 1]
    shown = varying or ([METRIC] if columns else [])
    nouns = ("data set", "task", "panel size", "noise", "metric")
    fixed = [
        f"{noun} {texts[0][level]}" if level < 2 else texts[0][level]
        for level, noun in enumerate(nouns)
        if columns
        and level not in shown
        and not (named and level == METRIC)
        and not (level == NOISE and columns[0][0].noise == CLEAN)
        and len({text[level] for text in texts}) == 1
    ]
    stub = ("",) * (max(len(shown), 1) - 1) + ("Method",)
    return (stub, *(tuple(text[level] for level in shown) for text in texts)), fixed


def _title(spec: TableSpec) -> str:
    return ", ".join(METRICS[name].label for name in spec.metrics)


def _caption(
    summary: Summary, columns: Sequence[Column], fixed: Sequence[str], entrants: Sequence[Entrant]
) -> str:
    shown = {item.id: item for _, item in columns}.values()
    unit = ", in percent" if any(item.percent for item in shown) else ""
    if unit and not all(item.percent for item in shown):
        unit += " where marked so: " + ", ".join(item.label for item in shown if item.percent)
    lower = [item.label for item in shown if not item.higher_is_better]
    parts = [
        f"Mean ± sample standard deviation over seeds{unit}; best bold, second underlined"
        + (f" (lower is better: {', '.join(lower)})" if lower else "")
    ]
    if fixed:
        parts.append((text := ", ".join(fixed))[:1].upper() + text[1:])
    parts.append(_scored_by(summary, entrants))
    if any(place.noise.fraction for place, _ in columns):
        parts.append(
            "Noise: this share of the training labels is redrawn at random, for selection and "
            "classifier or for the selection only"
        )
    if any(
        (score := summary.get(place, entrant)) and len(score.values(item.id)) < score.planned
        for place, item in columns
        for entrant in entrants
    ):
        parts.append("A row with fewer seeds than others does not compete")
    if any(summary.leaky(entrant) for entrant in entrants):
        parts.append("† the method's own predictor, which reads more than the panel's genes")
    return ". ".join(part for part in parts if part) + "."


def _scored_by(summary: Summary, entrants: Sequence[Entrant]) -> str:
    """Which models scored the panels, where the names of the rows do not say."""
    mine = [e for e in entrants if own(e)]
    downstream = dict.fromkeys(e.evaluator for e in entrants if e not in mine)
    names = " and ".join(map(evaluator_label, downstream))
    if mine and downstream:
        rows = ", ".join(summary.label(entrant, entrants) for entrant in mine)
        return f"Panels scored by {names}; {rows}: by the method's own predictor"
    if not entrants:
        return ""
    return f"Panels scored by {names}" if names else "Scored by the methods' own predictors"


def _label(summary: Summary, entrant: Entrant, entrants: Sequence[Entrant], notes: _Notes) -> Cell:
    text = summary.label(entrant, entrants) + ("†" if summary.leaky(entrant) else "")
    if summary.competes(entrant):
        return Cell(text)
    note = "Keeps all genes: the same at every k, and no competitor for the best"
    return Cell(text, notes=(notes.number(note),))


def _cell(score: Score | None, item: Metric, notes: _Notes) -> Cell:
    if score is None:
        return Cell("")
    found = len(score.values(item.id))
    why = "; ".join(map(str, score.problems))
    if found == 0:
        text = why or "not defined on these test cells"
        return Cell("–", notes=(notes.number(text[:1].upper() + text[1:]),))
    text = printed(score.mean(item.id), item)
    if found > 1:
        text += f" ± {printed(score.sd(item.id), item)}"
    if found == score.planned:
        return Cell(text)
    reason = why or "not defined on the test cells of the others"
    return Cell(text, notes=(notes.number(f"{found} of {score.planned} seeds ({reason})"),))


def printed(value: float, item: Metric) -> str:
    """A value as tables print it: percent with one decimal, or three decimals."""
    scaled = round(100 * value, 1) if item.percent else round(value, 3)
    return f"{scaled + 0.0:.{1 if item.percent else 3}f}"


def _marks(
    summary: Summary, entrants: Sequence[Entrant], place: Place, item: Metric
) -> dict[int, Mark]:
    """Best and second of a column, by row number."""
    seeds: dict[int, int] = {}
    values: dict[int, float] = {}
    for row, entrant in enumerate(entrants):
        score = summary.get(place, entrant)
        if score is not None and summary.competes(entrant) and len(score.values(item.id)):
            seeds[row] = len(score.values(item.id))
            values[row] = float(printed(score.mean(item.id), item))
    complete = {row: v for row, v in values.items() if seeds[row] == max(seeds.values())}
    if len(complete) < 2:
        return {}
    order = sorted(set(complete.values()), reverse=item.higher_is_better)
    names: dict[float, Mark] = dict(zip(order, ("best", "second"), strict=False))
    return {row: names[value] for row, value in complete.items() if value in names}


def count_models(summary: Summary, spec: TableSpec, entrant: Entrant) -> str:
    """Models fitted per (data set, k, seed) for the table's tasks: "4", or "4–6" if it varies.

    Selections fitted, and one classifier per task unless the method's own predictor is scored.
    """
    places = {(place.dataset, place.task) for place in _places(summary, spec)}
    groups: dict[tuple[Any, ...], tuple[set[str], list[str]]] = {}
    for line in summary.lines:
        inside = (line["dataset"], line["task"]) in places
        if inside and (line["variant"], line["evaluator"]) == (entrant.variant, entrant.evaluator):
            key = (line["dataset"], line["k"], line["seed"], line["noise"])
            selections, classifiers = groups.setdefault(key, (set(), []))
            selections.add(line["select_key"])
            if not own(entrant):
                classifiers.append(line["task"])
    counts = sorted({len(fits) + len(classifiers) for fits, classifiers in groups.values()})
    return "–".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else ""


RECORD_COLUMNS = (
    "dataset", "task", "k", "noise", "noise_in", "method", "label", "evaluator", "metric",
    "mean", "sd", "n", "planned", "problems",
)  # fmt: skip


def _records(
    summary: Summary, spec: TableSpec, entrants: Sequence[Entrant]
) -> list[dict[str, Any]]:
    """The table with every metric that was measured, one line per cell and metric."""
    lines = []
    places = _places(summary, spec)
    uncut = [replace(place, k=KEEPS_ALL) for place in places]
    for place in dict.fromkeys([*places, *uncut]):
        for entrant in entrants:
            score = summary.scores.get((place, entrant))
            if score is None:
                continue
            asked = [name for name in spec.metrics if METRICS[name].kind in (score.kind, "panel")]
            found = {name for values in score.metrics for name in values} | {*asked}
            for name in [*(n for n in METRICS if n in found), *sorted(found - {*METRICS})]:
                lines.append(
                    {
                        "dataset": place.dataset,
                        "task": place.task,
                        "k": place.k,
                        "noise": place.noise.fraction,
                        "noise_in": place.noise.variant if place.noise.fraction else "",
                        "method": entrant.variant,
                        "label": summary.label(entrant, entrants),
                        "evaluator": entrant.evaluator,
                        "metric": name,
                        "mean": score.mean(name),
                        "sd": score.sd(name),
                        "n": len(score.values(name)),
                        "planned": score.planned,
                        "problems": "; ".join(map(str, score.problems)),
                    }
                )
    return lines


def main_metric(summary: Summary) -> Metric:
    """The metric by which a suite ranks: that of its first table."""
    chosen = specs(summary)
    return METRICS[chosen[0].metrics[0]] if chosen else METRICS["f1_macro"]
