"""Figures of a metric: against the panel size, and against label noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import GREY, Looks, axis_label, blank, headline, legend, legend_width
from panelbench.report.results import Size, size_name
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.scoring.metrics import Metric, metric
from panelbench.suite.specs import FigureSpec, NoiseLevel, NoiseVariant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOISY: dict[NoiseVariant, str] = {
    "both": "noise in selection and classifier",
    "select": "noise in selection only",
}
"""Variants of label noise as titles of panels."""

_CONTROL = {"color": GREY, "linestyle": "-.", "linewidth": 1.2}
"""How a control that keeps all genes is drawn."""


@dataclass(frozen=True)
class Series:
    """A line: mean and standard deviation at every x that has a score, as tables print them.

    `look` are matplotlib's options; without `band` only the means are drawn.
    """

    label: str
    xs: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    look: Mapping[str, Any]
    band: bool


@dataclass(frozen=True)
class Panel:
    """A panel of a figure; its series are in the order of the figure's labels."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class MetricContent:
    """All that a figure of a metric shows.

    Attributes
    ----------
    title, axis
        Its title, and the label of the axis of the metric.
    labels
        Names of the rows that it compares.
    panels, columns
        The panels, and how many stand side by side.
    across
        What the other axis is: panel sizes ``k``, fractions of ``noise``, or for a single
        panel size the ``rows`` themselves.
    ticks
        Where the other axis has ticks.
    share
        Whether panels of a row share the axis of the metric.
    """

    title: str
    axis: str
    labels: tuple[str, ...]
    panels: tuple[Panel, ...]
    columns: int
    across: Literal["k", "noise", "rows"]
    ticks: tuple[float, ...] = ()
    share: bool = False


Places = Sequence[tuple[float, Place]]
"""The places whose scores stand at each x of a panel."""


def metric_by_k(summary: Summary, spec: FigureSpec, looks: Looks) -> MetricContent | None:
    """A metric against the panel size, one panel per data set and task; None without scores.

    Lines are means over seeds, bands one sample standard deviation to each side. A control that
    keeps all genes is a grey line across. With a single k the methods are listed instead.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    ks = choice.sizes(summary, spec)
    sizes: list[Size] = [*ks] or [None]
    level = summary.levels[0]
    panels = [
        (
            _title(summary, dataset, task),
            [(float(k or 0), Place(dataset, task, k, level)) for k in sizes],
        )
        for dataset, task in choice.tasks(summary, spec)
    ]
    item, entrants = _asked(summary, spec)
    drawn = _panels(summary, item, entrants, panels, looks)
    if not drawn:
        return None
    axis = axis_label(item)
    if len(ks) < 2 and sizes[0] is not None:
        axis += f", {size_name(sizes[0])}"
    return MetricContent(
        title=spec.title,
        axis=axis,
        labels=tuple(summary.label(entrant, entrants) for entrant in entrants),
        panels=drawn,
        columns=min(3, len(drawn)),
        across="k" if len(ks) > 1 else "rows",
        ticks=tuple(map(float, ks)),
    )


def metric_by_noise(summary: Summary, spec: FigureSpec, looks: Looks) -> MetricContent | None:
    """A metric against the fraction of noisy labels; None without scores at two fractions.

    One panel per data set, task, panel size (the largest unless the figure names others) and
    variant of the noise. Without noise the variants are the same: that point is in both.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    noise = summary.results.suite.noise
    fractions = sorted(set(noise.fractions)) if noise else []
    variants = tuple(dict.fromkeys(noise.variants)) if noise else ()
    if len(fractions) < 2:
        return None
    sizes: list[Size] = [*choice.sizes(summary, spec)] or [None]
    sizes = sizes if spec.ks else sizes[-1:]
    panels = []
    for dataset, task in choice.tasks(summary, spec):
        for k in sizes:
            for variant in variants:
                title = [_title(summary, dataset, task), size_name(k) if len(sizes) > 1 else ""]
                title.append(NOISY[variant])
                levels = [NoiseLevel(f, variant) if f else NoiseLevel() for f in fractions]
                places = [(level.fraction, Place(dataset, task, k, level)) for level in levels]
                panels.append(("\n".join(filter(None, title)), places))
    item, entrants = _asked(summary, spec)
    drawn = _panels(summary, item, entrants, panels, looks)
    if not drawn:
        return None
    # Variants of one data set stand side by side, to be compared.
    several = len(variants) > 1
    return MetricContent(
        title=spec.title,
        axis=axis_label(item),
        labels=tuple(summary.label(entrant, entrants) for entrant in entrants),
        panels=drawn,
        columns=min(len(variants) if several else 3, len(drawn)),
        across="noise",
        ticks=tuple(fractions),
        share=several,
    )


def _asked(summary: Summary, spec: FigureSpec) -> tuple[Metric, list[Entrant]]:
    item = metric(spec.metric, choice.where(spec), summary.metrics)
    return item, choice.entrants(summary, spec, {item.kind})


def _title(summary: Summary, dataset: str, task: str) -> str:
    return f"{dataset}\n{task}" if len(summary.tasks[dataset]) > 1 else dataset


def _panels(
    summary: Summary,
    item: Metric,
    entrants: Sequence[Entrant],
    panels: Sequence[tuple[str, Places]],
    looks: Looks,
) -> tuple[Panel, ...]:
    """The panels that have any score, from their titles and places."""
    evaluators = list(dict.fromkeys(entrant.evaluator for entrant in entrants))
    drawn = []
    for title, places in panels:
        series = []
        for entrant in entrants:
            competes = summary.competes(entrant)
            look = looks.of(entrant, evaluators)
            xs, means, sds = _points(summary, item, entrant, places)
            label = summary.label(entrant, entrants)
            series.append(Series(label, xs, means, sds, look, band=competes))
        if any(line.xs for line in series):
            drawn.append(Panel(title, tuple(series)))
    return tuple(drawn)


def _points(
    summary: Summary, item: Metric, entrant: Entrant, places: Places
) -> tuple[tuple[float, ...], ...]:
    """Every x with a score, its mean and standard deviation."""
    scale = 100 if item.percent else 1
    points = []
    for x, place in places:
        score = summary.get(place, entrant)
        if score is not None and len(score.values(item.id)):
            sd = score.sd(item.id)
            points.append((x, scale * score.mean(item.id), scale * sd if np.isfinite(sd) else 0.0))
    return tuple(zip(*points, strict=True)) if points else ((), (), ())


def draw(content: MetricContent) -> Figure:
    """Draw a figure of a metric."""
    return _dots(content) if content.across == "rows" else _lines(content)


def _lines(content: MetricContent) -> Figure:
    from matplotlib.figure import Figure

    columns = content.columns
    rows = -(-len(content.panels) // columns)
    width = 3.6 * columns + legend_width(content.labels, rows)
    figure = Figure(figsize=(width, 3.6 * rows), layout="constrained")
    sharey: Literal["row", "none"] = "row" if content.share else "none"
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        for line in panel.series:
            if not line.xs:
                continue
            xs, means, sds = map(np.array, (line.xs, line.means, line.sds))
            if line.band:
                (handle,) = ax.plot(xs, means, linewidth=1.6, markersize=5, **line.look)
                colour = line.look["color"]
                ax.fill_between(xs, means - sds, means + sds, color=colour, alpha=0.13, lw=0)
            else:
                (handle,) = ax.plot(xs, means, **_CONTROL)
            handles[line.label] = handle
        _dress(ax, content)
        ax.set_title(panel.title)
        ax.set_ylabel(content.axis)
        if content.share:
            ax.label_outer(remove_inner_ticks=False)
    blank(axes.flat[len(content.panels) :])
    legend(figure, handles, rows)
    headline(figure, content.title)
    return figure


def _dress(ax: Axes, content: MetricContent) -> None:
    """Ticks and label of the axis across."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if content.across == "k":
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(content.ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    if content.across == "k":
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        ax.set_xlabel("genes in the panel (k)")
    else:
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
        ax.set_xlabel("labels redrawn at random, %")


def _dots(content: MetricContent) -> Figure:
    """Methods below each other: what a single panel size has to show."""
    from matplotlib.figure import Figure

    columns, labels = content.columns, content.labels
    rows = -(-len(content.panels) // columns)
    height = max(1.9, 0.9 + 0.26 * len(labels))
    figure = Figure(figsize=(2.9 * columns + 1.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        for position, line in enumerate(panel.series):
            if line.xs:
                look = {**line.look, "linestyle": "none"}
                ax.errorbar(
                    line.means[:1], [position], xerr=line.sds[:1], capsize=3, markersize=6, **look
                )
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_title(panel.title)
        ax.set_xlabel(content.axis)
    blank(axes.flat[len(content.panels) :])
    headline(figure, content.title)
    return figure
