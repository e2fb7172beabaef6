"""Figures of a metric: against the panel size, and against label noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import GREY, Looks, axis_label, blank, headline, legend
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


@dataclass(frozen=True)
class _Panel:
    """A panel of a figure: its title, and the places whose scores stand at each x."""

    title: str
    places: tuple[tuple[float, Place], ...]


@dataclass(frozen=True)
class _Content:
    """What a figure shows; the rows and panels without any score are left out of it."""

    summary: Summary
    spec: FigureSpec
    item: Metric
    entrants: tuple[Entrant, ...]
    panels: tuple[_Panel, ...]

    def series(self, panel: _Panel, entrant: Entrant) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every x with a score, its mean and standard deviation, as tables print them."""
        scale = 100 if self.item.percent else 1
        points = []
        for x, place in panel.places:
            score = self.summary.get(place, entrant)
            if score is not None and len(score.values(self.item.id)):
                points.append((x, scale * score.mean(self.item.id), scale * score.sd(self.item.id)))
        xs, means, sds = np.array(points, dtype=np.float64).reshape(-1, 3).T
        return xs, means, np.nan_to_num(sds)

    def label(self, entrant: Entrant) -> str:
        """Name of a line."""
        return self.summary.label(entrant, self.entrants)


def metric_by_k(summary: Summary, spec: FigureSpec, looks: Looks) -> Figure | None:
    """A metric against the panel size, one panel per data set and task; None without scores.

    Lines are means over seeds, bands one sample standard deviation to each side. A control that
    keeps all genes is a grey line across. With a single k the methods are listed instead.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    ks = choice.sizes(summary, spec)
    sizes: list[Size] = [*ks] or [None]
    level = summary.levels[0]
    content = _content(summary, spec, [
        _Panel(
            _title(summary, dataset, task),
            tuple((k or 0, Place(dataset, task, k, level)) for k in sizes),
        )
        for dataset, task in choice.tasks(summary, spec)
    ])  # fmt: skip
    if content is None:
        return None
    if len(ks) < 2:
        return _dots(content, looks)

    def dress(ax: Axes) -> None:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(ks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        ax.set_xlabel("genes in the panel (k)")

    return _lines(content, looks, dress, min(3, len(content.panels)))


def metric_by_noise(summary: Summary, spec: FigureSpec, looks: Looks) -> Figure | None:
    """A metric against the fraction of noisy labels; None without scores at two fractions.

    One panel per data set, task, panel size (the largest unless the figure names others) and
    variant of the noise. Without noise the variants are the same: that point is in both.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    noise = summary.results.suite.noise
    fractions = sorted(set(noise.fractions)) if noise else []
    variants = tuple(dict.fromkeys(noise.variants)) if noise else ()
    if len(fractions) < 2:
        return None
    ks: list[Size] = [*choice.sizes(summary, spec)] or [None]
    ks = ks if spec.ks else ks[-1:]
    panels = []
    for dataset, task in choice.tasks(summary, spec):
        for k in ks:
            for variant in variants:
                levels = [NoiseLevel(f, variant) if f else NoiseLevel() for f in fractions]
                title = [_title(summary, dataset, task), size_name(k) if len(ks) > 1 else ""]
                title.append(NOISY[variant])
                places = (Place(dataset, task, k, level) for level in levels)
                panels.append(
                    _Panel(
                        "\n".join(text for text in title if text),
                        tuple(zip(fractions, places, strict=True)),
                    )
                )
    content = _content(summary, spec, panels)
    if content is None:
        return None

    def dress(ax: Axes) -> None:
        ax.xaxis.set_major_locator(FixedLocator(fractions))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}")
        ax.set_xlabel("labels redrawn at random, %")

    # Variants of one data set stand side by side, to be compared.
    several = len(variants) > 1
    columns = min(len(variants) if several else 3, len(content.panels))
    return _lines(content, looks, dress, columns, share=several)


def _content(summary: Summary, spec: FigureSpec, panels: Sequence[_Panel]) -> _Content | None:
    item = metric(spec.metric, choice.where(spec), summary.metrics)
    entrants = tuple(choice.entrants(summary, spec, {item.kind}))
    every = _Content(summary, spec, item, entrants, tuple(panels))
    shown = tuple(
        panel for panel in panels if any(every.series(panel, e)[0].size for e in entrants)
    )
    return _Content(summary, spec, item, entrants, shown) if shown else None


def _title(summary: Summary, dataset: str, task: str) -> str:
    return f"{dataset}\n{task}" if len(summary.tasks[dataset]) > 1 else dataset


def _lines(
    content: _Content,
    looks: Looks,
    dress: Callable[[Axes], None],
    columns: int,
    share: bool = False,
) -> Figure:
    """Lines of all panels; those of a row `share` their vertical axis if asked."""
    from matplotlib.figure import Figure

    rows = -(-len(content.panels) // columns)
    figure = Figure(figsize=(3.6 * columns + 2.8, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if share else "none")
    evaluators = list(dict.fromkeys(entrant.evaluator for entrant in content.entrants))
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        for entrant in content.entrants:
            xs, means, sds = content.series(panel, entrant)
            if len(xs) == 0:
                continue
            if content.summary.competes(entrant):
                look = looks.of(entrant, evaluators)
                (line,) = ax.plot(xs, means, linewidth=1.6, markersize=5, **look)
                ax.fill_between(xs, means - sds, means + sds, color=look["color"], alpha=0.13, lw=0)
            else:
                (line,) = ax.plot(xs, means, color=GREY, linestyle="-.", linewidth=1.2)
            handles[content.label(entrant)] = line
        dress(ax)
        ax.set_title(panel.title)
        ax.set_ylabel(axis_label(content.item))
        if share:
            ax.label_outer(remove_inner_ticks=False)
    blank(axes.flat[len(content.panels) :])
    legend(figure, handles, rows)
    headline(figure, content.spec.title)
    return figure


def _dots(content: _Content, looks: Looks) -> Figure:
    """Methods below each other: what a single panel size has to show."""
    from matplotlib.figure import Figure

    entrants = content.entrants
    columns = min(3, len(content.panels))
    rows = -(-len(content.panels) // columns)
    height = 0.9 + 0.26 * len(entrants)
    figure = Figure(figsize=(2.9 * columns + 1.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    evaluators = list(dict.fromkeys(entrant.evaluator for entrant in entrants))
    for ax, panel in zip(axes.flat, content.panels, strict=False):
        for position, entrant in enumerate(entrants):
            _, means, sds = content.series(panel, entrant)
            if len(means):
                look = looks.of(entrant, evaluators) | {"linestyle": "none"}
                ax.errorbar(means[:1], [position], xerr=sds[:1], capsize=3, markersize=6, **look)
        ax.set_yticks(range(len(entrants)), [content.label(e) for e in entrants])
        ax.set_ylim(len(entrants) - 0.5, -0.5)
        ax.set_title(panel.title)
        size = next(place.k for _, place in panel.places)
        ax.set_xlabel(
            axis_label(content.item) + (f", {size_name(size)}" if size is not None else "")
        )
    blank(axes.flat[len(content.panels) :])
    headline(figure, content.spec.title)
    return figure
