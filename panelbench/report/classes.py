"""Class by class: F1 of every method, and what the best method confuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.report.results import ScoreLine, size_name
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.report.tables import printed
from panelbench.scoring.metrics import METRICS

F1 = METRICS["f1_macro"]

MATRIX_LIMIT = 30
"""Above this many classes a confusion matrix is a wall of zeros; only its peaks are listed."""


@dataclass(frozen=True)
class Shaded:
    """A cell with a shade in [0, 1]."""

    text: str
    shade: float


@dataclass(frozen=True)
class Shades:
    """A table of shaded cells."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shaded, ...]], ...]
    caption: str


@dataclass(frozen=True)
class ClassDetails:
    """Details of one data set and task at the largest k."""

    title: str
    per_class: Shades | None
    confusion: Shades | None
    peaks: tuple[str, ...]


def class_details(summary: Summary) -> list[ClassDetails]:
    """Details of every classification task with scores, at the suite's largest k."""
    k = summary.ks[-1] if summary.ks else None
    places = [
        Place(dataset, task, k, summary.levels[0])
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
    ]
    details = [_details(summary, place) for place in places]
    return [item for item in details if item is not None]


def _details(summary: Summary, place: Place) -> ClassDetails | None:
    """Details of one task; None without scores of a classifier."""
    runs = {e: _classified(summary, place, e) for e in summary.entrants}
    runs = {entrant: lines for entrant, lines in runs.items() if lines}
    if not runs:
        return None
    first = min((lines[0] for lines in runs.values()), key=lambda line: (line.seed, line.key))
    classes = tuple(map(str, first.classes))
    labels = {entrant: summary.label(entrant, list(runs)) for entrant in runs}
    competing = [entrant for entrant in runs if summary.competes(entrant)] or list(runs)
    best = max(competing, key=lambda entrant: _mean_f1(summary, place, entrant))
    total = _summed([line.confusion for line in runs[best]], len(classes))
    return ClassDetails(
        f"{place.dataset}, {place.task}",
        _per_class(summary, place, classes, {labels[entrant]: runs[entrant] for entrant in runs}),
        _matrix(total, classes, f"Confusion matrix of {labels[best]}, {size_name(place.k)}"),
        _peaks(total, classes),
    )


def _classified(summary: Summary, place: Place, entrant: Entrant) -> list[ScoreLine]:
    """Runs of an entrant that predicted classes, by seed."""
    score = summary.get(place, entrant)
    if score is None or not len(score.values(F1.id)):
        return []
    return [line for line in summary.runs(place, entrant) if line.kind == "classification"]


def _mean_f1(summary: Summary, place: Place, entrant: Entrant) -> float:
    score = summary.get(place, entrant)
    return score.mean(F1.id) if score else float("-inf")


def _per_class(
    summary: Summary,
    place: Place,
    classes: Sequence[str],
    runs: Mapping[str, Sequence[ScoreLine]],
) -> Shades:
    """F1 of every class, one column per method."""
    counts = summary.results.datasets.get(place.dataset, {}).get("tasks", {}).get(place.task, {})
    rows = tuple(
        (
            f"{name} ({counts[name]:,})" if name in counts else name,
            tuple(_mean_shade(lines, name) for lines in runs.values()),
        )
        for name in classes
    )
    return Shades(
        f"F1 by class, {size_name(place.k)}",
        "Class (cells)" if counts else "Class",
        tuple(runs),
        rows,
        "Mean over seeds, in percent; a dash where the test cells and the predictions hold none "
        "of the class.",
    )


def _mean_shade(lines: Sequence[ScoreLine], name: str) -> Shaded:
    values = [line.per_class_f1[name] for line in lines if name in line.per_class_f1]
    if not values:
        return Shaded("–", 0.0)
    mean = float(np.mean(values))
    return Shaded(printed(mean, F1), mean)


def _summed(matrices: Sequence[object], n_classes: int) -> np.ndarray:
    total = np.zeros((n_classes, n_classes), dtype=np.int64)
    for matrix in matrices:
        counts = np.asarray(matrix, dtype=np.int64)
        if counts.shape == total.shape:
            total += counts
    return total


def _matrix(total: np.ndarray, classes: tuple[str, ...], title: str) -> Shades | None:
    if not 2 <= len(classes) <= MATRIX_LIMIT or not total.any():
        return None
    share = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    rows = tuple(
        (name, tuple(Shaded(str(n) if n else "", float(s)) for n, s in zip(*pair, strict=True)))
        for name, pair in zip(classes, zip(total.tolist(), share, strict=True), strict=True)
    )
    caption = "Test cells of all seeds: rows true, columns predicted; shaded by share of the row."
    return Shades(title, "true \\ predicted", classes, rows, caption)


def _peaks(total: np.ndarray, classes: tuple[str, ...], n: int = 10) -> tuple[str, ...]:
    """The most frequent confusions, in words."""
    wrong = total - np.diag(np.diag(total))
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    pairs = [divmod(int(i), len(classes)) for i in order]
    return tuple(
        f"{classes[true]} taken for {classes[guess]}: {wrong[true, guess]:,} of "
        f"{total[true].sum():,} cells ({wrong[true, guess] / total[true].sum():.0%})"
        for true, guess in pairs
        if wrong[true, guess]
    )
