"""Published numbers beside ours, where a paper printed the same cell.

A reference folder holds CSV files with the columns of `COLUMNS`; values are fractions, not
percent. A number is shown only where data set, method, evaluator, task, k and metric are the
same and the suite splits the cells as the paper did.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panelbench.config import SplitSpec
from panelbench.errors import DataError
from panelbench.metrics import METRICS
from panelbench.report.grid import Grid
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.report.tables import printed

COLUMNS = (
    "source", "protocol", "table", "dataset", "method", "evaluator", "task", "k", "metric",
    "mean", "sd",
)  # fmt: skip

# The YOTO paper's ACC behaves like balanced accuracy for forests and like plain accuracy for
# PERSIST's own predictor, and the paper does not say which it is: both stand beside it.
_ALSO = {("yoto", "accuracy"): ("accuracy", "balanced_accuracy")}


@dataclass(frozen=True)
class Published:
    """A published number: mean and standard deviation (NaN where none is printed)."""

    source: str
    protocol: str
    table: str
    entrant: Entrant
    place: Place
    metric: str
    mean: float
    sd: float


def protocol_of(split: SplitSpec) -> str:
    """Name of the paper whose way of splitting the cells this is, "" for none.

    ``yoto``: 80/20, stratified. ``markermap``: 70/10/20, not stratified.
    """
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
                    entrant=Entrant(line["method"], line["evaluator"]),
                    place=Place(line["dataset"], line["task"], int(line["k"])),
                    metric=line["metric"],
                    mean=float(line["mean"]),
                    sd=float(line["sd"] or "nan"),
                )
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: {error}") from None


def beside(summary: Summary, published: Iterable[Published]) -> list[dict[str, Any]]:
    """Pair published numbers with ours.

    Returns
    -------
    One line per published number and metric of ours that it may be compared with, in the order
    of the suite. The same number printed in several tables gives one line that names them all.
    A run with parameters of its own stands beside its method's number, under its full name.
    With label noise, only what was measured without it.
    """
    protocols = {name: protocol_of(split) for name, split in _splits(summary).items()}
    wanted: dict[tuple[Place, str, str], list[Published]] = {}
    for item in published:
        if protocols.get(item.place.dataset) == item.protocol:
            key = (item.place, item.entrant.variant, item.entrant.evaluator)
            wanted.setdefault(key, []).append(item)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place in _places(summary):
        for entrant in summary.entrants:
            score = summary.scores.get((place, entrant))
            row = summary.rows.get(entrant.variant)
            if score is None or row is None:
                continue
            found = wanted.get((place, entrant.variant, entrant.evaluator)) or wanted.get(
                (place, row.method, entrant.evaluator), []
            )
            for item in found:
                for name in _ALSO.get((item.protocol, item.metric), (item.metric,)):
                    if not len(score.values(name)):
                        continue
                    same = (place, entrant, name, item.source, item.metric, item.mean, str(item.sd))
                    if same in lines:
                        tables = {*str(lines[same]["table"]).split(", "), item.table}
                        lines[same]["table"] = ", ".join(sorted(tables))
                    else:
                        lines[same] = _line(summary, place, entrant, name, item)
    return list(lines.values())


def _places(summary: Summary) -> list[Place]:
    return [
        Place(dataset, task, k)
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
        for k in summary.ks
    ]


def _splits(summary: Summary) -> dict[str, SplitSpec]:
    """How the suite splits each data set: its own way, the data set's, or the default."""
    facts: Mapping[str, Mapping[str, Any]] = summary.results.datasets
    splits = {}
    for entry in summary.results.suite.datasets:
        known = facts.get(entry.dataset, {}).get("split")
        default = SplitSpec() if known is None else SplitSpec.model_validate(known)
        splits[entry.dataset] = entry.split or default
    return splits


def _line(
    summary: Summary, place: Place, entrant: Entrant, name: str, item: Published
) -> dict[str, Any]:
    score = summary.scores[place, entrant]
    return {
        "source": item.source,
        "table": item.table,
        "dataset": place.dataset,
        "task": place.task,
        "k": place.k,
        "method": entrant.variant,
        "label": summary.label(entrant, summary.entrants),
        "evaluator": entrant.evaluator,
        "metric": name,
        "published_metric": item.metric,
        "mean": score.mean(name),
        "sd": score.sd(name),
        "n": len(score.values(name)),
        "published_mean": item.mean,
        "published_sd": item.sd,
        "difference": score.mean(name) - item.mean,
    }


def published_grid(lines: list[dict[str, Any]]) -> Grid:
    """Ours, the paper's and the difference, one row per number."""
    rows = []
    for line in lines:
        item = METRICS[line["metric"]]
        rows.append(
            (
                line["label"],
                line["dataset"],
                line["task"],
                line["k"],
                item.label,
                f"{line['source']}, table {line['table']}",
                _pair(line["mean"], line["sd"], line["metric"]),
                _pair(line["published_mean"], line["published_sd"], line["metric"]),
                _signed(printed(line["difference"], item)),
            )
        )
    columns = (
        "Method", "Data set", "Task", "k", "Metric", "Published in", "Ours", "Published",
        "Difference",
    )  # fmt: skip
    return Grid.plain(
        "published",
        "Beside the published numbers",
        columns,
        rows,
        stubs=6,
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
