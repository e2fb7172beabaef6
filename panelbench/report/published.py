"""Published numbers beside ours, where a paper printed the same cell.

A reference folder holds CSV files with the columns of `COLUMNS`, and a column ``class`` where
numbers are those of one class; percentages are given as fractions. A number is shown only where
data set, method, evaluator, task, k, class and metric are the same and the suite prepares the
cells as the paper did.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from panelbench.data.specs import SplitSpec
from panelbench.errors import DataError
from panelbench.report.by_class import ALL
from panelbench.report.grid import Grid
from panelbench.report.summary import Entrant, Place, Score, Summary
from panelbench.report.tables import columns_of, entrants_of, printed
from panelbench.scoring.metrics import METRICS
from panelbench.suite.specs import CLEAN, DatasetEntry, TableSpec

COLUMNS = (
    "source", "protocol", "table", "dataset", "method", "evaluator", "task", "k", "metric",
    "mean", "sd",
)  # fmt: skip

# The YOTO paper's ACC behaves like balanced accuracy for forests and like plain accuracy for
# PERSIST's own predictor, and the paper does not say which it is: both stand beside it.
_ALSO = {("yoto", "accuracy"): ("accuracy", "balanced_accuracy")}


@dataclass(frozen=True)
class Published:
    """A published number: mean and standard deviation (NaN where none is printed).

    `method` and `evaluator` are named with their parameters, where they are not the defaults.
    `cell_class` is the class whose cells it is about, "" for all cells.
    """

    source: str
    protocol: str
    table: str
    method: str
    evaluator: str
    place: Place
    metric: str
    mean: float
    sd: float
    cell_class: str = ""


def protocol_of(split: SplitSpec, entry: DatasetEntry | None = None) -> str:
    """Name of the protocol by which a suite prepares a data set, "" for none that is known.

    ``yoto``: 80/20, stratified. ``markermap``: 70/10/20, not stratified;
    ``markermap-generative``: split the same, but scaled as one matrix by the suite's `entry`, as
    in the paper's Table 4.
    """
    steps = (entry.recipe if entry else None) or ()
    if any(step.name == "scale" and step.options.get("by") == "matrix" for step in steps):
        return "markermap-generative" if protocol_of(split) == "markermap" else ""
    if split.scheme != "holdout" or split.test != 0.2:
        return ""
    if split.stratify and split.validation == 0:
        return "yoto"
    return "markermap" if not split.stratify and split.validation == 0.1 else ""


def read(folder: Path | None) -> list[Published]:
    """Read all CSV files of a reference folder; nothing when there is no such folder.

    Raises
    ------
    DataError
        Naming the file and line that cannot be read.
    """
    if folder is None or not folder.is_dir():
        return []
    return [line for path in sorted(folder.glob("*.csv")) for line in _read_file(path)]


def _read_file(path: Path) -> Iterable[Published]:
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: column {', '.join(missing)} is missing")
        for number, line in enumerate(reader, start=2):
            try:
                yield Published(
                    source=line["source"],
                    protocol=line["protocol"],
                    table=line["table"],
                    method=line["method"],
                    evaluator=line["evaluator"],
                    place=Place(line["dataset"], line["task"], int(line["k"])),
                    metric=line["metric"],
                    mean=float(line["mean"]),
                    sd=float(line["sd"] or "nan"),
                    cell_class=line.get("class") or "",
                )
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: {error}") from None


def beside(summary: Summary, published: Iterable[Published]) -> list[dict[str, Any]]:
    """Pair published numbers with ours.

    Returns
    -------
    One line per published number and metric of ours that it may be compared with, in the order
    of the suite. The same number printed in several tables gives one line that names them all.
    A run with parameters of its own stands beside its method's number, under its full name,
    unless a number is published for just these parameters.
    With label noise, only what was measured without it.
    """
    protocols = _protocols(summary)
    wanted: dict[tuple[Place, str, str], list[Published]] = {}
    for item in published:
        if protocols.get(item.place.dataset) == item.protocol:
            key = (item.place, item.method, item.evaluator)
            wanted.setdefault(key, []).append(item)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place in _places(summary):
        for entrant in summary.entrants:
            # A control that keeps all genes stands beside its number at any panel size.
            score = summary.get(place, entrant)
            if score is None:
                continue
            row, evaluator = entrant.row, entrant.evaluator.variant
            numbers = wanted.get((place, row.variant, evaluator)) or wanted.get(
                (place, row.method, evaluator), []
            )
            for item in numbers:
                ours = score.of_class(item.cell_class) if item.cell_class else score
                for name in _ALSO.get((item.protocol, item.metric), (item.metric,)):
                    if not len(ours.values(name)):
                        continue
                    same = (place, entrant, name, replace(item, table="", sd=0.0), str(item.sd))
                    if same in lines:
                        tables = {*str(lines[same]["table"]).split(", "), item.table}
                        lines[same]["table"] = ", ".join(sorted(tables))
                    else:
                        lines[same] = _line(summary, place, entrant, name, item, ours)
    return list(lines.values())


def _places(summary: Summary) -> list[Place]:
    return [
        Place(dataset, task, k)
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
        for k in summary.ks
    ]


def _protocols(summary: Summary) -> dict[str, str]:
    """Protocol of each data set, which the suite splits its own way, its way or by default."""
    facts: Mapping[str, Mapping[str, Any]] = summary.results.datasets
    protocols = {}
    for entry in summary.results.suite.datasets:
        known = facts.get(entry.dataset, {}).get("split")
        default = SplitSpec() if known is None else SplitSpec.model_validate(known)
        protocols[entry.dataset] = protocol_of(entry.split or default, entry)
    return protocols


def _line(
    summary: Summary, place: Place, entrant: Entrant, name: str, item: Published, score: Score
) -> dict[str, Any]:
    return {
        "source": item.source,
        "table": item.table,
        "dataset": place.dataset,
        "task": place.task,
        "k": place.k,
        "class": item.cell_class,
        "method": entrant.row.variant,
        "label": summary.label(entrant, summary.entrants),
        "evaluator": entrant.evaluator.variant,
        "metric": name,
        "published_metric": item.metric,
        "mean": score.mean(name),
        "sd": score.sd(name),
        "n": len(score.values(name)),
        "published_mean": item.mean,
        "published_sd": item.sd,
        "difference": score.mean(name) - item.mean,
    }


def joined(
    grid: Grid, summary: Summary, spec: TableSpec, lines: Sequence[Mapping[str, Any]]
) -> Grid:
    """A table with the published numbers beside its cells and in its records.

    Parameters
    ----------
    grid, summary, spec
        A table as `tables.metric_grid` or `by_class.by_class_grid` filled it.
    lines
        What `beside` found. Where a paper prints a cell in several tables with different numbers,
        that of the table that `spec` names counts.
    """
    known: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for line in lines:
        if not spec.published or spec.published in str(line["table"]).split(", "):
            known.setdefault(tuple(line[name] for name in _CELL), line)
    records = []
    for record in grid.records:
        key = tuple(record.get(name, "") for name in _CELL)
        found = {} if record["noise"] else known.get(key, {})
        extra = {name: found.get(name, "") for name in ("published_mean", "published_sd")}
        extra |= {"difference": found.get("difference", ""), "published_table": ""}
        if found:
            extra["published_table"] = f"{found['source']}, table {found['table']}"
        records.append({**record, **extra})
    grid = replace(grid, records=tuple(records))
    if spec.by_class:
        return grid
    columns, entrants = columns_of(summary, spec), entrants_of(summary, spec)
    rows = []
    for entrant, row in zip(entrants, grid.rows, strict=True):
        cells = list(row)
        for i, (place, item) in enumerate(columns, start=1):
            key = (place.dataset, place.task, place.k, "", entrant.row.variant,
                   entrant.evaluator.variant, item.id)  # fmt: skip
            there = known.get(key)
            if place.noise == CLEAN and there is not None:
                pair = _pair(there["published_mean"], there["published_sd"], item.id)
                difference = _signed(printed(there["difference"], item))
                cells[i] = replace(cells[i], beside=f"{pair} ({difference})")
        rows.append(tuple(cells))
    return replace(grid, rows=tuple(rows))


_CELL = ("dataset", "task", "k", "class", "method", "evaluator", "metric")


def published_grid(lines: list[dict[str, Any]]) -> Grid:
    """Ours, the paper's and the difference, one row per number."""
    classes = any(line["class"] for line in lines)
    rows = []
    for line in lines:
        item = METRICS[line["metric"]]
        rows.append(
            (
                line["label"],
                line["dataset"],
                line["task"],
                line["k"],
                *((line["class"] or ALL,) if classes else ()),
                item.label,
                f"{line['source']}, table {line['table']}",
                _pair(line["mean"], line["sd"], line["metric"]),
                _pair(line["published_mean"], line["published_sd"], line["metric"]),
                _signed(printed(line["difference"], item)),
            )
        )
    columns = (
        "Method", "Data set", "Task", "k", *(("Class",) if classes else ()), "Metric",
        "Published in", "Ours", "Published", "Difference",
    )  # fmt: skip
    return Grid.plain(
        "published",
        "Beside the published numbers",
        columns,
        rows,
        stubs=len(columns) - 3,
        caption="Mean ± sample standard deviation over seeds; where a paper prints no deviation, "
        "the mean alone. Difference: ours minus published. YOTO's tables do not say which accuracy "
        "they print: it stands beside both.",
        records=lines,
    )


def _pair(mean: float, sd: float, name: str) -> str:
    item = METRICS[name]
    return printed(mean, item) + (f" ± {printed(sd, item)}" if sd == sd else "")


def _signed(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else f"+{text}"
