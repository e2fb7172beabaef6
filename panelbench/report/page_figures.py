"""Figures of the page alone: cost against quality, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.report.figures import COLOURS, Looks, axis_label, blank, legend
from panelbench.report.results import SelectionLine
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cost_against_quality(
    summary: Summary, costs: Sequence[Mapping[str, Any]], item: Metric, looks: Looks
) -> Figure | None:
    """Mean selection time against the mean metric at the largest k, one panel per data set."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    if not summary.ks or not costs:
        return None
    seconds = {(line["dataset"], line["method"]): line["select_seconds"] for line in costs}
    entrants = summary.entrants
    largest = summary.ks[-1]
    scale = 100 if item.percent else 1
    points: dict[str, list[tuple[Entrant, float, float]]] = {}
    for dataset in summary.datasets:
        for entrant in entrants:
            means = [
                score.mean(item.id)
                for task in summary.tasks[dataset]
                if (score := summary.get(Place(dataset, task, largest, summary.levels[0]), entrant))
            ]
            means = [mean for mean in means if np.isfinite(mean)]
            time = seconds.get((dataset, entrant.row.variant), float("nan"))
            if means and np.isfinite(time):
                point = (entrant, max(time, 1e-3), scale * float(np.mean(means)))
                points.setdefault(dataset, []).append(point)
    if not points:
        return None
    columns = min(3, len(points))
    rows = -(-len(points) // columns)
    figure = Figure(figsize=(3.6 * columns + 2.8, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (dataset, found) in zip(axes.flat, points.items(), strict=False):
        for entrant, time, mean in found:
            look = looks.of(entrant, summary.evaluators) | {"linestyle": "none"}
            (dot,) = ax.plot([time], [mean], markersize=8, **look)
            handles[summary.label(entrant, entrants)] = dot
        times = [time for _, time, _ in found]
        ax.set_xscale("log")
        ax.set_xlim(min(times) / 1.8, max(times) * 1.8)
        steps = (1.0, 2.0, 5.0) if max(times) < 50 * min(times) else (1.0,)
        ax.xaxis.set_major_locator(LogLocator(subs=steps))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(dataset)
        ax.set_xlabel("seconds per selection")
        ax.set_ylabel(f"{axis_label(item)}, k = {largest}")
    blank(axes.flat[len(points) :])
    legend(figure, handles, rows)
    return figure


def curves(selections: Sequence[SelectionLine]) -> list[tuple[str, Figure]]:
    """Training curves of the methods that recorded any: (title, figure), one per data set.

    A selection's ``info["curves"]`` maps names to lists of numbers, one per epoch; every name
    gets a panel, every run a line, coloured by k.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    def place(line: SelectionLine) -> tuple[str, str, str]:
        return line.dataset, line.row.label, line.row.variant

    with_curves = [line for line in selections if _curves_of(line)]
    with_curves.sort(key=lambda line: (*place(line), line.tasks, line.k, line.seed))
    drawn = []
    for (dataset, label, _), group in groupby(with_curves, key=place):
        lines = list(group)
        names = sorted({name for line in lines for name in _curves_of(line)})
        ks = sorted({line.k for line in lines})
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(3.4 * columns + 2.8, 2.8 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        handles: dict[str, Any] = {}
        for ax, name in zip(axes.flat, names, strict=False):
            for line in lines:
                values = _curves_of(line).get(name, [])
                colour = COLOURS[ks.index(line.k) % len(COLOURS)]
                if values:
                    epochs = range(1, len(values) + 1)
                    (handle,) = ax.plot(epochs, values, color=colour, alpha=0.8, linewidth=1)
                    handles[f"k = {line.k}"] = handle
            ax.set_title(name)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        blank(axes.flat[len(names) :])
        legend(figure, handles, rows)
        drawn.append((f"{label}, {dataset}", figure))
    return drawn


def _curves_of(line: SelectionLine) -> dict[str, list[float]]:
    found = line.info.get("curves")
    if not isinstance(found, Mapping):
        return {}
    return {str(name): list(values) for name, values in found.items() if len(values)}
