"""Ranks over all columns of a suite, with tests where there are enough of them."""

from __future__ import annotations

import numpy as np

from panelbench.report.grid import Grid
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.comparison import Comparison, compare
from panelbench.scoring.metrics import Metric


def comparison(summary: Summary, item: Metric) -> Comparison | None:
    """Compare all entrants that compete by one metric; None with fewer than two.

    A column is a (data set, task, k, level of noise), its value the mean over the seeds that
    ran.
    """
    import pandas as pd

    entrants = [
        entrant
        for entrant in summary.entrants
        if summary.competes(entrant) and item.kind in (*summary.kind(entrant), "panel")
    ]
    labels = unique_labels(summary, entrants)
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
    values = pd.DataFrame(table, columns=labels, dtype=float)
    values = values.dropna(axis=0, how="all").dropna(axis=1, how="all")
    if values.shape[1] < 2:
        return None
    return compare(values, higher_is_better=item.higher_is_better)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def unique_labels(summary: Summary, entrants: list[Entrant]) -> list[str]:
    """Labels of rows; two rows of the same label are told apart by their parameters."""
    labels = [summary.label(entrant, entrants) for entrant in entrants]
    return [
        label
        if labels.count(label) == 1
        else f"{label} ({entrant.row.variant}, {entrant.evaluator.variant})"
        for label, entrant in zip(labels, entrants, strict=True)
    ]


def _mean(summary: Summary, place: Place, entrant: Entrant, item: Metric) -> float:
    score = summary.scores.get((place, entrant))
    return score.mean(item.id) if score else float("nan")


def ranks_grid(found: Comparison, item: Metric) -> Grid:
    """Mean ranks, and for each method how its difference to the best is rated."""
    names = list(found.mean_rank.index)
    tested = found.pairwise is not None
    rows = []
    for name in names:
        p = found.pairwise.loc[name, names[0]] if found.pairwise is not None else np.nan
        cells = [str(name), f"{found.mean_rank[name]:.2f}"]
        rows.append([*cells, *(["–" if name == names[0] else _p(p)] if tested else [])])
    friedman = (
        f"Friedman's test: chi-square {found.statistic:.2f}, p = {found.p_value:.3g}. "
        if np.isfinite(found.p_value)
        else ""
    )
    holm = (
        "p: Wilcoxon signed-rank test against the best-ranked method, Holm-corrected over all "
        "pairs. Columns of one data set are related, so the p-values flatter. "
    )
    caption = (
        f"Mean rank by {item.label} over {found.columns} columns (data set, task, k), 1 = best. "
        + friedman
        + (holm if tested else "")
        + " ".join(note[:1].upper() + note[1:] + "." for note in found.notes)
    )
    columns = ("Method", "Mean rank", *(("p against the best",) if tested else ()))
    return Grid.plain("ranks", "Mean ranks", columns, rows, caption=caption.strip())
