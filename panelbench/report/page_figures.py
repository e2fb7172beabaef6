"""Figures of the page alone: cost against quality, overlap of methods, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import (
    COLOURS,
    Looks,
    axis_label,
    blank,
    headline,
    legend,
    legend_width,
)
from panelbench.report.grid import Grid
from panelbench.report.results import SelectionLine
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.metrics import Metric
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dot:
    """A method: its name, seconds per selection and mean score."""

    label: str
    seconds: float
    mean: float
    look: Mapping[str, Any]


@dataclass(frozen=True)
class CostContent:
    """Dots of every data set, and the label of the axis of the metric."""

    axis: str
    panels: tuple[tuple[str, tuple[Dot, ...]], ...]


def cost_against_quality(
    summary: Summary, costs: Sequence[Mapping[str, Any]], item: Metric, looks: Looks
) -> CostContent | None:
    """Mean selection time against the mean metric at the largest k, one panel per data set."""
    if not summary.ks or not costs:
        return None
    seconds = {(line["dataset"], line["method"]): line["select_seconds"] for line in costs}
    panels = []
    for dataset in summary.datasets:
        dots = []
        for entrant in summary.entrants:
            mean = _mean(summary, dataset, entrant, item)
            time = seconds.get((dataset, entrant.row.variant), float("nan"))
            if np.isfinite(mean) and np.isfinite(time):
                label = summary.label(entrant, summary.entrants)
                look = looks.of(entrant, summary.evaluators) | {"linestyle": "none"}
                dots.append(Dot(label, max(time, 1e-3), mean, look))
        if dots:
            panels.append((dataset, tuple(dots)))
    axis = f"{axis_label(item)}, k = {summary.ks[-1]}"
    return CostContent(axis, tuple(panels)) if panels else None


def _mean(summary: Summary, dataset: str, entrant: Entrant, item: Metric) -> float:
    """Mean over tasks at the largest k, as tables print it; NaN without a score."""
    largest, level = summary.ks[-1], summary.levels[0]
    places = [Place(dataset, task, largest, level) for task in summary.tasks[dataset]]
    scores = [summary.get(place, entrant) for place in places]
    means = [score.mean(item.id) for score in scores if score]
    means = [mean for mean in means if np.isfinite(mean)]
    return (100 if item.percent else 1) * float(np.mean(means)) if means else float("nan")


def draw_cost(content: CostContent) -> Figure:
    """Draw time against quality, the time on a logarithmic axis."""
    from matplotlib.figure import Figure

    columns = min(3, len(content.panels))
    rows = -(-len(content.panels) // columns)
    labels = {dot.label for _, dots in content.panels for dot in dots}
    width = 3.6 * columns + legend_width(labels, rows)
    figure = Figure(figsize=(width, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (dataset, dots) in zip(axes.flat, content.panels, strict=False):
        for dot in dots:
            (handles[dot.label],) = ax.plot([dot.seconds], [dot.mean], markersize=8, **dot.look)
        _seconds_axis(ax, [dot.seconds for dot in dots])
        ax.set_title(dataset)
        ax.set_ylabel(content.axis)
    blank(axes.flat[len(content.panels) :])
    legend(figure, handles, rows)
    return figure


def _seconds_axis(ax: Axes, times: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.set_xlim(min(times) / 1.8, max(times) * 1.8)
    steps = (1.0, 2.0, 5.0) if max(times) < 50 * min(times) else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("seconds per selection")


@dataclass(frozen=True)
class CurvesContent:
    """Training curves of one method on one data set: of each run, values by name."""

    title: str
    runs: tuple[tuple[int, Mapping[str, Sequence[float]]], ...]


def curves(selections: Sequence[SelectionLine]) -> list[CurvesContent]:
    """Training curves of the methods that recorded any, by data set and method.

    A selection's ``info["curves"]`` maps names to lists of numbers, one per epoch; every name
    gets a panel, every run a line, coloured by k.
    """

    def place(line: SelectionLine) -> tuple[str, str, str]:
        return line.dataset, line.row.label, line.row.variant

    with_curves = [line for line in selections if _curves_of(line)]
    with_curves.sort(key=lambda line: (*place(line), line.tasks, line.k, line.seed))
    return [
        CurvesContent(f"{label}, {dataset}", tuple((line.k, _curves_of(line)) for line in lines))
        for (dataset, label, _), lines in groupby(with_curves, key=place)
    ]


def _curves_of(line: SelectionLine) -> dict[str, list[float]]:
    found = line.info.get("curves")
    if not isinstance(found, Mapping):
        return {}
    return {str(name): list(values) for name, values in found.items() if len(values)}


def draw_curves(content: CurvesContent) -> Figure:
    """Draw training curves."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = sorted({name for _, values in content.runs for name in values})
    ks = sorted({k for k, _ in content.runs})
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns + 2.8, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, name in zip(axes.flat, names, strict=False):
        for k, found in content.runs:
            if values := found.get(name):
                colour = COLOURS[ks.index(k) % len(COLOURS)]
                epochs = range(1, len(values) + 1)
                (handle,) = ax.plot(epochs, values, color=colour, alpha=0.8, linewidth=1)
                handles[f"k = {k}"] = handle
        ax.set_title(name)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    blank(axes.flat[len(names) :])
    legend(figure, handles, rows)
    return figure


@dataclass(frozen=True)
class TrainingContent:
    """One training curve: panels by title, each with the label and the values of every run."""

    title: str
    axis: str
    panels: tuple[tuple[str, tuple[tuple[str, tuple[float, ...]], ...]], ...]


def training_curve(summary: Summary, spec: FigureSpec, looks: Looks) -> TrainingContent | None:
    """The curve that a figure names, a line per run; None without any.

    There is a panel per data set, or per task where methods are run for each.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    rows = {entrant.row for entrant in choice.entrants(summary, spec, summary.kinds())}
    panels = []
    for dataset in dict.fromkeys(dataset for dataset, _ in choice.tasks(summary, spec)):
        lines = sorted(
            (line for line in summary.results.selections if line.dataset == dataset),
            key=lambda line: (looks.number[line.row], line.tasks, line.k, line.seed),
        )
        drawn: dict[tuple[str, ...], list[tuple[str, tuple[float, ...]]]] = {}
        for line in lines:
            if line.row in rows and spec.curve in (found := _curves_of(line)):
                values = tuple(map(float, found[spec.curve]))
                drawn.setdefault(line.tasks, []).append((line.row.label, values))
        for names, runs in drawn.items():
            title = dataset if len(drawn) == 1 else f"{dataset}\n{', '.join(names)}"
            panels.append((title, tuple(runs)))
    return TrainingContent(spec.title, spec.curve, tuple(panels)) if panels else None


def draw_training(content: TrainingContent) -> Figure:
    """Draw one training curve of all runs, coloured by method."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    labels = list(dict.fromkeys(label for _, lines in content.panels for label, _ in lines))
    columns = min(3, len(content.panels))
    rows = -(-len(content.panels) // columns)
    width = 3.6 * columns + legend_width(labels, rows)
    figure = Figure(figsize=(width, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (dataset, lines) in zip(axes.flat, content.panels, strict=False):
        for label, values in lines:
            colour = COLOURS[labels.index(label) % len(COLOURS)]
            epochs = range(1, len(values) + 1)
            (handles[label],) = ax.plot(epochs, values, color=colour, alpha=0.7, linewidth=1)
        if max(abs(value) for _, values in lines for value in values) >= 1000:
            ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.set_title(dataset)
        ax.set_xlabel("epoch")
        ax.set_ylabel(content.axis)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    blank(axes.flat[len(content.panels) :])
    legend(figure, handles, rows)
    headline(figure, content.title)
    return figure


@dataclass(frozen=True)
class OverlapContent:
    """Names of methods and the overlap of their panels, NaN where unknown."""

    title: str
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


def overlap(grid: Grid) -> OverlapContent:
    """What a table of overlaps shows."""
    values = tuple(tuple(_number(cell.text) for cell in row[1:]) for row in grid.rows)
    return OverlapContent(grid.title, tuple(row[0].text for row in grid.rows), values)


def _number(text: str) -> float:
    return float(text) if text[:1].isdigit() else float("nan")


def draw_overlap(content: OverlapContent) -> Figure:
    """Draw a heat map of the overlap between methods."""
    from matplotlib.figure import Figure

    n = len(content.names)
    figure = Figure(figsize=(2.6 + 0.3 * n, 2.2 + 0.3 * n), layout="constrained")
    ax = figure.subplots()
    values = np.array(content.values)
    image = ax.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    # Numbers fit into the squares of a few methods only.
    for i, j in np.ndindex(values.shape) if n <= 16 else ():
        if np.isfinite(values[i, j]):
            colour = "white" if values[i, j] > 0.6 else "black"
            text = f"{values[i, j]:.2f}".removeprefix("0")
            number = ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
            # It lies within its square: there is no need to measure hundreds of them.
            number.set_in_layout(False)
    ax.set_xticks(range(n), content.names, rotation=90)
    ax.set_yticks(range(n), content.names)
    ax.grid(visible=False)
    figure.colorbar(image, ax=ax, shrink=0.6, label="Jaccard index")
    return figure
