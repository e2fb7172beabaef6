"""A metric of expression targets against the number of genes trained on beside the primary ones.

What a selection trained on is told in its info: ``auxiliary`` says how these genes were taken
(``none``, ``all``, the ``variable`` ones first, at ``random``, ``learned``), ``k`` how many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import COLOURS, GREY, axis_label, blank, headline, legend
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.metrics import metric
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDERS = {"variable": "the most variable genes", "random": "genes at random"}
"""Ways to take a number of genes, each a line from none to all."""


@dataclass(frozen=True)
class Line:
    """Mean and standard deviation of a metric at some numbers of genes."""

    ks: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """A data set and task: lines by order, the learned number, methods that train on none.

    `learned` holds the number of each seed and `learned_mean` the metric there; `others` are the
    means of methods that train on primary genes without a network of this kind.
    """

    title: str
    lines: Mapping[str, Line]
    learned: tuple[float, ...]
    learned_mean: float
    others: Mapping[str, float]


@dataclass(frozen=True)
class AuxiliaryContent:
    """All that the figure shows."""

    title: str
    axis: str
    panels: tuple[Panel, ...]


def metric_by_auxiliary(summary: Summary, spec: FigureSpec) -> AuxiliaryContent | None:
    """Gather the figure; None without two fixed numbers of genes that have scores.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    item = metric(spec.metric, choice.where(spec), summary.metrics)
    entrants = choice.entrants(summary, spec, {item.kind})
    panels = []
    for dataset, task in choice.tasks(summary, spec):
        place = Place(dataset, task, None, summary.levels[0])
        panel = _panel(summary, place, entrants, item.id)
        if any(len(line.ks) > 1 for line in panel.lines.values()):
            panels.append(panel)
    if not panels:
        return None
    return AuxiliaryContent(spec.title, axis_label(item), tuple(panels))


def _panel(summary: Summary, place: Place, entrants: list[Entrant], name: str) -> Panel:
    points: dict[str, list[tuple[float, float, float]]] = {}
    others: dict[str, float] = {}
    learned: tuple[float, ...] = ()
    learned_mean = float("nan")
    own = set()
    for entrant in entrants:
        score = summary.get(place, entrant)
        if score is None or not len(score.values(name)):
            continue
        how, ks = _trained_on(summary, place, entrant)
        sd = score.sd(name)
        mean, sd = score.mean(name), sd if np.isfinite(sd) else 0.0
        if how == "learned":
            learned, learned_mean = ks, mean
        elif how in ("none", "all", *ORDERS):
            point = (float(np.mean(ks)), mean, sd)
            own |= {how} & ORDERS.keys()
            for order in ORDERS if how in ("none", "all") else (how,):
                points.setdefault(order, []).append(point)
        elif not how:
            others[entrant.row.label] = mean
    several = len(summary.tasks[place.dataset]) > 1
    # Without a number of genes of its own an order has but the ends, which are those of the others.
    drawn = own or {next(iter(ORDERS))}
    lines = {
        order: Line(*zip(*sorted(found), strict=True))
        for order, found in points.items()
        if order in drawn
    }
    title = f"{place.dataset}\n{place.task}" if several else place.dataset
    return Panel(title, lines, learned, learned_mean, others)


def _trained_on(summary: Summary, place: Place, entrant: Entrant) -> tuple[str, tuple[float, ...]]:
    """How the genes of a row were taken, and how many there were with each seed."""
    infos = [
        line.info
        for line in sorted(summary.results.selections, key=lambda line: line.seed)
        if line.dataset == place.dataset
        and line.row == entrant.row
        and place.task in line.tasks
        and line.status == "ok"
    ]
    how = {str(info.get("auxiliary", "")) for info in infos}
    if len(how) != 1:
        return "", ()
    return how.pop(), tuple(float(info["k"]) for info in infos if "k" in info)


def draw(content: AuxiliaryContent) -> Figure:
    """Draw it: lines with bands of one standard deviation, the learned number as a dot."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(2, len(content.panels))
    rows = -(-len(content.panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 2.6, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        for number, (order, text) in enumerate(ORDERS.items()):
            if (line := panel.lines.get(order)) is not None:
                _draw_line(ax, line, COLOURS[number], text, handles)
        if panel.learned:
            middle = float(np.mean(panel.learned))
            reach = [[middle - min(panel.learned)], [max(panel.learned) - middle]]
            handles["as many as are learned, and their range"] = ax.errorbar(
                [middle], [panel.learned_mean], xerr=reach, fmt="D", color=COLOURS[2], capsize=3
            )
        for number, (name, mean) in enumerate(panel.others.items()):
            style = ("-.", ":", "--")[number % 3]
            handles[name] = ax.axhline(mean, color=GREY, linestyle=style, linewidth=1.2)
        ax.set_title(panel.title)
        ax.set_xlabel("genes trained on beside the primary ones")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylabel(content.axis)
    blank(axes.flat[len(content.panels) :])
    legend(figure, handles, rows)
    headline(figure, content.title)
    return figure


def _draw_line(ax: Axes, line: Line, colour: str, text: str, handles: dict[str, Any]) -> None:
    ks, means, sds = map(np.array, (line.ks, line.means, line.sds))
    (handles[text],) = ax.plot(ks, means, marker="o", markersize=4, linewidth=1.6, color=colour)
    ax.fill_between(ks, means - sds, means + sds, color=colour, alpha=0.13, lw=0)
