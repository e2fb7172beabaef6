"""Ranks over all columns of a suite, with tests where there are enough of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.report.grid import Grid
from panelbench.report.results import EvaluatorRef
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.comparison import Comparison, compare
from panelbench.scoring.metrics import Metric


@dataclass(frozen=True)
class Ranking:
    """Methods compared by the scores that one evaluator gave their panels."""

    evaluator: EvaluatorRef
    compared: Comparison


def rankings(summary: Summary, item: Metric) -> list[Ranking]:
    """Compare the methods that compete by one metric, within each evaluator.

    A forest and a neighbour search on the same panel are no rivals: what is ranked are methods.
    A column is a (data set, task, k, level of noise), its value the mean over the seeds that
    ran. An evaluator with fewer than two methods is left out.
    """
    found = []
    for evaluator in summary.evaluators:
        entrants = [
            entrant
            for entrant in summary.entrants
            if entrant.evaluator == evaluator
            and summary.competes(entrant)
            and item.kind in (*summary.kind(entrant), "panel")
        ]
        compared = _compared(summary, entrants, item)
        if compared is not None:
            found.append(Ranking(evaluator, compared))
    return found


def _compared(summary: Summary, entrants: list[Entrant], item: Metric) -> Comparison | None:
    import pandas as pd

    places = [
        Place(dataset, task, k, level)
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
        for k in summary.ks
        for level in summary.levels
    ]
    table = [
        [_mean(summary, place, entrant, item) for entrant in entrants]
        for place in places
        if any((place, entrant) in summary.scores for entrant in entrants)
    ]
    values = pd.DataFrame(table, columns=_labels(entrants), dtype=float)
    values = values.dropna(axis=0, how="all").dropna(axis=1, how="all")
    if values.shape[1] < 2:
        return None
    incomplete = summary.results.suite.incomplete
    return compare(values, higher_is_better=item.higher_is_better, incomplete=incomplete)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def _labels(entrants: list[Entrant]) -> list[str]:
    """Labels of methods; two of the same label are told apart by their parameters."""
    labels = [entrant.row.label for entrant in entrants]
    return [
        label if labels.count(label) == 1 else f"{label} ({entrant.row.variant})"
        for label, entrant in zip(labels, entrants, strict=True)
    ]


def _mean(summary: Summary, place: Place, entrant: Entrant, item: Metric) -> float:
    score = summary.scores.get((place, entrant))
    return score.mean(item.id) if score else float("nan")


def ranks_grid(rankings: Sequence[Ranking], item: Metric) -> Grid:
    """Mean ranks, and for each method how its difference to the best is rated.

    With several evaluators each has its own ranks, below each other.
    """
    several = len(rankings) > 1
    tested = any(ranking.compared.pairwise is not None for ranking in rankings)
    rows, notes = [], []
    for ranking in rankings:
        first = ranking.evaluator.label
        for cells in _rows(ranking.compared):
            rows.append([*([first] if several else []), *cells[: 3 if tested else 2]])
            # What a row shares with the one above it is not said again.
            first = ""
        notes.append((f"{ranking.evaluator.label}: " if several else "") + _about(ranking.compared))
    holm = (
        "p: Wilcoxon signed-rank test against the best-ranked method, Holm-corrected over all "
        "pairs. Columns of one data set are related, so the p-values flatter."
    )
    scored = "" if several else f" of panels scored by {rankings[0].evaluator.label}"
    caption = [f"Mean rank by {item.label}{scored}, 1 = best.", *notes, *([holm] if tested else [])]
    columns = ("Method", "Mean rank", *(("p against the best",) if tested else ()))
    if several:
        columns = ("Scored by", *columns)
    stubs = 2 if several else 1
    return Grid.plain("ranks", "Mean ranks", columns, rows, stubs=stubs, caption=" ".join(caption))


def _rows(compared: Comparison) -> Iterator[list[str]]:
    """Method, mean rank and p of every method of a comparison."""
    names = list(compared.mean_rank.index)
    for name in names:
        p = "–"
        if compared.pairwise is not None and name != names[0]:
            p = _p(compared.pairwise.loc[name, names[0]])
        yield [str(name), f"{compared.mean_rank[name]:.2f}", p]


def _about(compared: Comparison) -> str:
    """On how much a comparison rests, in words."""
    text = f"{compared.columns} columns (data set, task, k)." if compared.columns else ""
    if np.isfinite(compared.p_value):
        text += (
            f" Friedman's test: chi-square {compared.statistic:.2f}, p = {compared.p_value:.3g}."
        )
    notes = (note[:1].upper() + note[1:] + "." for note in compared.notes)
    return " ".join(filter(None, [text, *notes]))
