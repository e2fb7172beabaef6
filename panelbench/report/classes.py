"""Class by class: F1 of every method, and what the best method confuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from panelbench.report.summary import KEEPS_ALL, Place, Summary
from panelbench.report.tables import printed

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
    from panelbench.scoring.metrics import METRICS

    f1 = METRICS["f1_macro"]
    details = []
    k = summary.ks[-1] if summary.ks else KEEPS_ALL
    for dataset in summary.datasets:
        for task in summary.tasks[dataset]:
            lines = [x for x in summary.lines if (x["dataset"], x["task"]) == (dataset, task)
                     and x["k"] in (k, KEEPS_ALL) and x["status"] == "ok"
                     and x["noise"] == summary.levels[0]
                     and x["kind"] == "classification"]  # fmt: skip
            lines.sort(key=lambda x: (x["seed"], str(x["key"])))
            place = Place(dataset, task, k, summary.levels[0])
            entrants = [
                entrant
                for entrant in summary.entrants
                if (score := summary.get(place, entrant)) and len(score.values(f1.id))
            ]
            if not lines or not entrants:
                continue
            by_entrant = {
                entrant: [
                    x
                    for x in lines
                    if (x["variant"], x["evaluator"]) == (entrant.variant, entrant.evaluator)
                ]
                for entrant in entrants
            }
            classes = tuple(str(name) for name in lines[0]["classes"])
            competing = [e for e in entrants if summary.competes(e)] or entrants
            best = max(competing, key=lambda e: _mean_f1(summary, place, e, f1.id))
            labels = tuple(summary.label(entrant, entrants) for entrant in entrants)
            size = "all genes" if k == KEEPS_ALL else f"k = {k}"
            counts = summary.results.datasets.get(dataset, {}).get("tasks", {}).get(task, {})
            rows = []
            for name in classes:
                cells = []
                for entrant in entrants:
                    values = [dict(x["per_class_f1"]).get(name) for x in by_entrant[entrant]]
                    found = [float(value) for value in values if value is not None]
                    mean = float(np.mean(found)) if found else float("nan")
                    cells.append(Shaded(printed(mean, f1), mean) if found else Shaded("–", 0.0))
                cells_of = f"{name} ({counts[name]:,})" if name in counts else name
                rows.append((cells_of, tuple(cells)))
            per_class = Shades(
                f"F1 by class, {size}",
                "Class (cells)" if counts else "Class",
                labels,
                tuple(rows),
                "Mean over seeds, in percent; a dash where the test cells and the predictions "
                "hold none of the class.",
            )
            total = _summed([x["confusion"] for x in by_entrant[best]], len(classes))
            name = summary.label(best, entrants)
            details.append(
                ClassDetails(
                    f"{dataset}, {task}",
                    per_class,
                    _matrix(total, classes, f"Confusion matrix of {name}, {size}"),
                    _peaks(total, classes),
                )
            )
    return details


def _mean_f1(summary: Summary, place: Place, entrant: object, name: str) -> float:
    score = summary.get(place, entrant)  # type: ignore[arg-type]
    return score.mean(name) if score else float("-inf")


def _summed(matrices: list[object], n_classes: int) -> np.ndarray:
    total = np.zeros((n_classes, n_classes), dtype=np.int64)
    for matrix in matrices:
        found = np.asarray(matrix, dtype=np.int64)
        if found.shape == total.shape:
            total += found
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
