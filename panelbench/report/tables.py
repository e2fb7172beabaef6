"""Metric tables: methods in rows, whatever varies of data set, task, k and metric in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from panelbench.report import choice
from panelbench.report.grid import Cell, Grid, Mark
from panelbench.report.results import Size, size_name
from panelbench.report.summary import Entrant, Place, Score, Summary
from panelbench.scoring.metrics import Metric, metric
from panelbench.suite.specs import CLEAN, TableSpec

Column = tuple[Place, Metric]

DATASET, TASK, SIZE, NOISE, METRIC = range(5)
"""Levels of a full header."""


@dataclass
class Notes:
    """Footnotes of one table: the same text gets the same number."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        """Number of a footnote, from 1."""
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
    for item in summary.metrics.values():
        names.setdefault(item.kind, item.id)
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
    columns, entrants = columns_of(summary, spec), entrants_of(summary, spec)
    notes = Notes()
    body: list[list[Cell]] = []
    for entrant in entrants:
        row = [label_cell(summary, entrant, entrants, notes)]
        row += [score_cell(summary.get(place, entrant), item, notes) for place, item in columns]
        body.append(row)
    for i, (place, item) in enumerate(columns, start=1):
        scores = [summary.get(place, e) if summary.competes(e) else None for e in entrants]
        for number, mark in marks(scores, item).items():
            body[number][i] = replace(body[number][i], mark=mark)
    header, fixed = header_of(columns, named=not spec.title)
    fixed = without_size(fixed, entrants)
    if spec.n_models:
        header = (*header, ("",) * (len(header[0]) - 1) + ("#models",))
        for row, entrant in zip(body, entrants, strict=True):
            row.append(Cell(count_models(summary, spec, entrant)))
    return Grid(
        name=spec.name,
        title=spec.title or title_of(summary, spec),
        header=header,
        rows=tuple(tuple(row) for row in body),
        caption=caption(summary, columns, fixed, entrants),
        notes=tuple(notes.texts),
        records=tuple(
            line
            for place in with_uncut(places(summary, spec))
            for entrant in entrants
            if (score := summary.scores.get((place, entrant)))
            for line in record_lines(summary, spec, place, entrant, entrants, score)
        ),
    )


def places(summary: Summary, spec: TableSpec) -> list[Place]:
    """Where the scores of a table stand."""
    return [
        Place(dataset, task, k, level)
        for dataset, task in choice.tasks(summary, spec)
        for k in _sizes(summary, spec)
        for level in summary.levels
    ]


def _sizes(summary: Summary, spec: TableSpec) -> list[Size]:
    return [*choice.sizes(summary, spec)] or [None]


def entrants_of(summary: Summary, spec: TableSpec) -> list[Entrant]:
    """Rows of a table."""
    kinds = {metric(name, choice.where(spec), summary.metrics).kind for name in spec.metrics}
    return choice.entrants(summary, spec, kinds)


def columns_of(summary: Summary, spec: TableSpec) -> list[Column]:
    """Columns of a table: where scores stand, and which metric."""
    items = [metric(name, choice.where(spec), summary.metrics) for name in spec.metrics]
    return [
        (place, item)
        for place in places(summary, spec)
        for item in items
        if item.kind in (*summary.kinds_of(place.dataset, place.task), "panel")
    ]


def header_of(
    columns: Sequence[Column], named: bool, levels: Sequence[int] = range(METRIC + 1)
) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
    """Header levels for what varies, and the parts that are the same in all columns.

    The metric is no such part when the title already names it (`named`). Only `levels` are
    looked at.
    """
    texts = [
        (place.dataset, place.task, size_name(place.k),
         place.noise.label, item.label)
        for place, item in columns
    ]  # fmt: skip
    varying = [level for level in levels if len({text[level] for text in texts}) > 1]
    tasks = {place.dataset: {p.task for p, _ in columns if p.dataset == place.dataset}
             for place, _ in columns}  # fmt: skip
    # One task per data set: its name tells nothing that the data set's does not.
    if DATASET in varying and all(len(names) == 1 for names in tasks.values()):
        varying = [level for level in varying if level != TASK]
    shown = varying or ([METRIC] if columns else [])
    nouns = {DATASET: "data set ", TASK: "task "}
    fixed = [
        nouns.get(level, "") + texts[0][level]
        for level in levels
        if columns
        and level not in shown
        and not (named and level == METRIC)
        and not (level == NOISE and columns[0][0].noise == CLEAN)
        and len({text[level] for text in texts}) == 1
    ]
    stub = ("",) * (max(len(shown), 1) - 1) + ("Method",)
    return (stub, *(tuple(text[level] for level in shown) for text in texts)), fixed


def without_size(fixed: Sequence[str], entrants: Sequence[Entrant]) -> list[str]:
    """What is the same in all columns; where methods find a size of their own, none is told."""
    own = any(entrant.row.declared.sizes_itself for entrant in entrants)
    return [text for text in fixed if not (own and text == size_name(None))]


def title_of(summary: Summary, spec: TableSpec) -> str:
    """Title of a table that has none: its metrics."""
    return ", ".join(summary.metrics[name].label for name in spec.metrics)


def caption(
    summary: Summary, columns: Sequence[Column], fixed: Sequence[str], entrants: Sequence[Entrant]
) -> str:
    """What the cells of a table are, and by whom its panels are scored."""
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
    parts += [_scored_by(summary, entrants), other_groups(summary, [place for place, _ in columns])]
    parts += _sampled(summary, dict.fromkeys(place.dataset for place, _ in columns))
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


def _sampled(summary: Summary, datasets: Iterable[str]) -> list[str]:
    """Of which data sets methods and classifiers got a sample of the training cells."""
    found: dict[int, list[str]] = {}
    for name in datasets:
        facts = summary.results.datasets.get(name, {})
        most, cells = facts.get("max_cells"), facts.get("cells")
        if most and (cells is None or most < cells):
            found.setdefault(most, []).append(name)
    alone = len(found) == 1 and len(next(iter(found.values()))) == len(tuple(datasets))
    return [
        f"Trained on at most {most:,} cells" + (f" of {', '.join(names)}" if not alone else "")
        + ", a sample by class; scored on all test cells"
        for most, names in found.items()
    ]  # fmt: skip


def other_groups(summary: Summary, where: Sequence[Place]) -> str:
    """Which data sets are scored on groups of cells (donors, batches) that were not trained on."""
    found = {}
    for place in where:
        split = summary.results.datasets.get(place.dataset, {}).get("split") or {}
        if split.get("scheme") in ("groups", "leave-one-group-out"):
            found[place.dataset] = split["group"]
    named = ", ".join(f"{dataset} ({group})" for dataset, group in found.items())
    return f"Scored on groups of cells that were not trained on: {named}" if named else ""


def _scored_by(summary: Summary, entrants: Sequence[Entrant]) -> str:
    """Which models scored the panels, where the names of the rows do not say."""
    mine = [e for e in entrants if e.evaluator.own]
    downstream = dict.fromkeys(e.evaluator for e in entrants if e not in mine)
    names = " and ".join(ref.label for ref in downstream)
    if mine and downstream:
        rows = ", ".join(summary.label(entrant, entrants) for entrant in mine)
        return f"Panels scored by {names}; {rows}: by the method's own predictor"
    if not entrants:
        return ""
    if all(entrant.evaluator.reads == "reconstruction" for entrant in entrants):
        return "All genes reconstructed by what the methods trained"
    return f"Panels scored by {names}" if names else "Scored by the methods' own predictors"


def label_cell(
    summary: Summary, entrant: Entrant, entrants: Sequence[Entrant], notes: Notes
) -> Cell:
    """Name of a row."""
    text = summary.label(entrant, entrants) + ("†" if summary.leaky(entrant) else "")
    if summary.competes(entrant):
        return Cell(text)
    note = "Keeps all genes: the same at every k, and no competitor for the best"
    return Cell(text, notes=(notes.number(note),))


def score_cell(score: Score | None, item: Metric, notes: Notes) -> Cell:
    """Mean ± standard deviation over seeds, with footnotes on seeds that are not in it."""
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


def marks(scores: Sequence[Score | None], item: Metric) -> dict[int, Mark]:
    """Best and second among scores, by their number; None does not compete."""
    seeds: dict[int, int] = {}
    values: dict[int, float] = {}
    for row, score in enumerate(scores):
        if score is not None and len(score.values(item.id)):
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
    chosen = {*choice.tasks(summary, spec)}
    groups: dict[tuple[Any, ...], tuple[set[str], list[str]]] = {}
    for line in summary.results.scores:
        inside = (line.dataset, line.task) in chosen
        if inside and Entrant(line.row, line.evaluator) == entrant:
            key = (line.dataset, line.k, line.seed, line.noise)
            selections, classifiers = groups.setdefault(key, (set(), []))
            selections.add(line.select_key)
            if not entrant.evaluator.own:
                classifiers.append(line.task)
    counts = sorted({len(fits) + len(classifiers) for fits, classifiers in groups.values()})
    return "–".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else ""


RECORD_COLUMNS = (
    "dataset", "task", "k", "noise", "noise_in", "method", "label", "evaluator", "metric",
    "mean", "sd", "n", "planned", "problems",
    "published_table", "published_mean", "published_sd", "difference",
)  # fmt: skip


def with_uncut(found: Sequence[Place]) -> list[Place]:
    """Places, then those of the panels that are not cut."""
    return [*dict.fromkeys([*found, *(place.uncut for place in found)])]


def record_lines(
    summary: Summary,
    spec: TableSpec,
    place: Place,
    entrant: Entrant,
    entrants: Sequence[Entrant],
    score: Score,
) -> list[dict[str, Any]]:
    """Every metric that was measured of a score, one line each, for the table's CSV."""
    known = summary.metrics
    asked = [name for name in spec.metrics if known[name].kind in (score.kind, "panel")]
    found = {name for values in score.metrics for name in values} | {*asked}
    return [
        {
            "dataset": place.dataset,
            "task": place.task,
            # The number 0 stands for all genes, so that the column stays one of numbers.
            "k": place.k or 0,
            "noise": place.noise.fraction,
            "noise_in": place.noise.seen_by,
            "method": entrant.row.variant,
            "label": summary.label(entrant, entrants),
            "evaluator": entrant.evaluator.variant,
            "metric": name,
            "mean": score.mean(name),
            "sd": score.sd(name),
            "n": len(score.values(name)),
            "planned": score.planned,
            "problems": "; ".join(map(str, score.problems)),
        }
        for name in [*(n for n in known if n in found), *sorted(found - {*known})]
    ]


def main_metric(summary: Summary) -> Metric:
    """The metric by which a suite ranks: that of its first table."""
    chosen = [spec for spec in specs(summary) if spec.kind == "metrics"]
    return summary.metrics[chosen[0].metrics[0] if chosen else "f1_macro"]
