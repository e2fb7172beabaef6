"""Figures of bars: metrics side by side, and how cells spread over classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import COLOURS, GREY, Looks, axis_label, blank, headline
from panelbench.report.results import Size, size_name
from panelbench.report.summary import Place, Summary
from panelbench.scoring.metrics import metric
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bars:
    """Bars of one metric: per row mean and standard deviation, NaN where there is no score."""

    axis: str
    means: tuple[float, ...]
    sds: tuple[float, ...]


@dataclass(frozen=True)
class BarsContent:
    """A line of panels per data set and task, a panel per metric, a bar per method."""

    title: str
    labels: tuple[str, ...]
    colours: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Bars, ...]], ...]


def metric_bars(summary: Summary, spec: FigureSpec, looks: Looks) -> BarsContent | None:
    """Several metrics at one panel size, the largest unless the figure names another.

    Bars are means over seeds, whiskers one sample standard deviation. None without scores.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    items = [metric(name, choice.where(spec), summary.metrics) for name in spec.measures]
    entrants = choice.entrants(summary, spec, {item.kind for item in items})
    sizes: list[Size] = [*choice.sizes(summary, spec)] or [None]
    k = sizes[-1]
    lines = []
    for dataset, task in choice.tasks(summary, spec):
        panels = []
        for item in items:
            scale = 100 if item.percent else 1
            place = Place(dataset, task, k, summary.levels[0])
            scores = [summary.get(place, entrant) for entrant in entrants]
            means = tuple(scale * s.mean(item.id) if s else float("nan") for s in scores)
            sds = tuple(scale * s.sd(item.id) if s else float("nan") for s in scores)
            panels.append(Bars(axis_label(item), means, sds))
        if any(np.isfinite(panel.means).any() for panel in panels):
            lines.append((f"{dataset}, {task}, {size_name(k)}", tuple(panels)))
    if not lines:
        return None
    evaluators = list(dict.fromkeys(entrant.evaluator for entrant in entrants))
    return BarsContent(
        title=spec.title,
        labels=tuple(summary.label(entrant, entrants) for entrant in entrants),
        colours=tuple(looks.of(entrant, evaluators)["color"] for entrant in entrants),
        lines=tuple(lines),
    )


def draw_bars(content: BarsContent) -> Figure:
    """Draw bars of methods, a panel per metric."""
    from matplotlib.figure import Figure

    columns = len(content.lines[0][1])
    height = max(1.9, 1.0 + 0.26 * len(content.labels))
    figure = Figure(
        figsize=(1.6 + 2.3 * columns, height * len(content.lines)), layout="constrained"
    )
    axes = figure.subplots(len(content.lines), columns, squeeze=False, sharey=True)
    for row, (title, panels) in zip(axes, content.lines, strict=True):
        row[0].set_title(title, loc="left")
        for ax, bars in zip(row, panels, strict=True):
            _bars(ax, bars, content)
    headline(figure, content.title)
    return figure


def _bars(ax: Axes, bars: Bars, content: BarsContent) -> None:
    places = np.arange(len(content.labels))
    means, sds = np.array(bars.means), np.array(bars.sds)
    there = np.isfinite(means)
    ax.barh(
        places[there],
        means[there],
        color=np.array(content.colours)[there].tolist(),
        xerr=np.nan_to_num(sds[there]),
        error_kw={"ecolor": GREY, "capsize": 2, "elinewidth": 1},
        height=0.75,
    )
    ax.set_yticks(places, content.labels)
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set_xlabel(bars.axis)
    ax.grid(visible=False, axis="y")


SHARE = 0.9
"""Share of the cells that the line in a label distribution marks."""


@dataclass(frozen=True)
class Distribution:
    """Cells of each class, most first, and the number of classes that hold 90% of the cells."""

    title: str
    counts: tuple[int, ...]
    holding: int


@dataclass(frozen=True)
class DistributionContent:
    """A panel per data set and task."""

    title: str
    panels: tuple[Distribution, ...]


def label_distribution(
    summary: Summary, spec: FigureSpec, looks: Looks
) -> DistributionContent | None:
    """How many cells each class has; None where nothing is known of the classes.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    panels = []
    for dataset, task in choice.tasks(summary, spec):
        tasks = summary.results.datasets.get(dataset, {}).get("tasks", {})
        counts = sorted(map(int, tasks.get(task, {}).values()), reverse=True)
        if counts:
            panels.append(Distribution(f"{dataset}\n{task}", tuple(counts), holding(counts)))
    return DistributionContent(spec.title, tuple(panels)) if panels else None


def holding(counts: list[int]) -> int:
    """The least number of classes that together hold 90% of the cells, the largest first."""
    total = np.cumsum(counts)
    # In whole numbers: a share that is met exactly is met.
    return int(np.argmax(10 * total >= round(10 * SHARE) * total[-1])) + 1


def draw_distribution(content: DistributionContent) -> Figure:
    """Draw the cells of each class, and a line behind the classes that hold 90% of them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(content.panels))
    rows = -(-len(content.panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        n = len(panel.counts)
        ax.bar(range(1, n + 1), panel.counts, color=COLOURS[0], width=0.8)
        ax.axvline(panel.holding + 0.5, color=COLOURS[1], linestyle="--", linewidth=1.2)
        left = panel.holding > 0.6 * n
        ax.annotate(
            f"{SHARE:.0%} of the cells\nin {panel.holding} of {n}",
            (panel.holding + 0.5, 0.95),
            xytext=(-4 if left else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            horizontalalignment="right" if left else "left",
            verticalalignment="top",
        )
        ax.set_title(panel.title)
        ax.set_xlabel("classes, largest first")
        ax.set_ylabel("cells")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    blank(axes.flat[len(content.panels) :])
    headline(figure, content.title)
    return figure
