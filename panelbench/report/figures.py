"""Figures, drawn without pyplot's global state; the same data give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.config import FigureSpec
from panelbench.errors import UnknownName
from panelbench.metrics import Metric, metric
from panelbench.report.summary import KEEPS_ALL, Entrant, Place, Summary
from panelbench.stats import Comparison, cliques

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, legible for colour-blind readers; yellow is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":")
GREY = "#6b7280"


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with ours, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    ours: dict[str, Any] = {
        "svg.hashsalt": "panelbench",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e5e7eb",
        "grid.linewidth": 0.6,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "legend.frameon": False,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        # Typed as a dictionary of literal keys, which a plain dictionary is not.
        parameters: Any = mpl.rcParams
        parameters.update(ours)
        yield


def save(figure: Figure) -> dict[str, bytes]:
    """Bytes of a figure as PNG and SVG, without dates."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return {"svg": svg.getvalue(), "png": png.getvalue()}


class Looks:
    """Colour, marker and line of every method, the same in all figures of a report."""

    def __init__(self, summary: Summary) -> None:
        self.number = {variant: i for i, variant in enumerate(summary.rows)}

    def of(self, entrant: Entrant, evaluators: Sequence[str]) -> dict[str, Any]:
        """Matplotlib options of a line: colour and marker by method, dashes by evaluator."""
        i = self.number.get(entrant.variant, len(self.number))
        lap = i // len(COLOURS)
        # Beyond seven methods a colour comes again with another marker.
        return {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[(i + lap) % len(MARKERS)],
            "linestyle": LINES[evaluators.index(entrant.evaluator) % len(LINES)],
            "fillstyle": "full" if lap % 2 == 0 else "none",
        }


def specs(summary: Summary) -> tuple[FigureSpec, ...]:
    """Figures of a suite; without any, the main metric of each kind of task by k."""
    suite = summary.results.suite
    if suite.figures:
        return suite.figures
    names = {"classification": "f1_macro", "regression": "pearson"}
    found = [name for kind, name in names.items() if kind in summary.kinds()]
    return tuple(FigureSpec(name=f"{n.replace('_', '-')}-by-k", metric=n) for n in found)


def metric_by_k(summary: Summary, spec: FigureSpec, looks: Looks) -> Figure | None:
    """A metric against the panel size, one panel per data set and task; None without scores.

    Lines are means over seeds, bands one sample standard deviation to each side. A control that
    keeps all genes is a grey line across. With a single k the methods are listed instead.

    Raises
    ------
    UnknownName
        When the figure names a data set, task, evaluator or metric that does not exist.
    """
    where = f"figure {spec.name}"
    item = metric(spec.metric, where)
    panels = _panels(summary, spec, item, where)
    entrants = _entrants(summary, spec, where)
    panels = [
        panel
        for panel in panels
        if any(_points(summary, *panel, entrant, item)[0].size for entrant in entrants)
    ]
    if not panels:
        return None
    draw = _lines if len(summary.ks) > 1 else _dots
    return draw(summary, spec, panels, entrants, item, looks)


def _panels(summary: Summary, spec: FigureSpec, item: Metric, where: str) -> list[tuple[str, str]]:
    every = sorted({task for names in summary.tasks.values() for task in names})
    for kind, asked, known in (
        ("data set", spec.datasets, summary.datasets),
        ("task", spec.tasks, every),
    ):
        for name in asked or ():
            if name not in known:
                raise UnknownName(kind, name, known, where)
    return [
        (dataset, task)
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
        if (spec.datasets is None or dataset in spec.datasets)
        and (spec.tasks is None or task in spec.tasks)
        and item.kind in (*summary.kinds_of(dataset, task), "panel")
    ]


def _entrants(summary: Summary, spec: FigureSpec, where: str) -> list[Entrant]:
    ids = {name.partition("[")[0] for name in summary.evaluators}
    for name in spec.evaluators or ():
        if name not in ids and name not in summary.evaluators:
            raise UnknownName("evaluator", name, ids | {*summary.evaluators}, where)
    return [
        entrant
        for entrant in summary.entrants
        if spec.evaluators is None
        or {entrant.evaluator, entrant.evaluator.partition("[")[0]} & {*spec.evaluators}
    ]


def _points(
    summary: Summary, dataset: str, task: str, entrant: Entrant, item: Metric
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ks with a score, their means and standard deviations, as printed in tables."""
    scale = 100 if item.percent else 1
    found = []
    for k in (KEEPS_ALL, *summary.ks):
        score = summary.scores.get((Place(dataset, task, k, summary.levels[0]), entrant))
        if score is not None and len(score.values(item.id)):
            found.append((k, scale * score.mean(item.id), scale * score.sd(item.id)))
    ks, means, sds = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return ks, means, np.nan_to_num(sds)


def axis_label(item: Metric) -> str:
    """Label of an axis that shows a metric."""
    return item.label + (", %" if item.percent else "")


def _title(summary: Summary, panel: tuple[str, str]) -> str:
    dataset, task = panel
    return f"{dataset}\n{task}" if len(summary.tasks[dataset]) > 1 else dataset


def _lines(
    summary: Summary,
    spec: FigureSpec,
    panels: Sequence[tuple[str, str]],
    entrants: Sequence[Entrant],
    item: Metric,
    looks: Looks,
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns + 2.8, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes.flat, panels, strict=False):
        for entrant in entrants:
            ks, means, sds = _points(summary, *panel, entrant, item)
            label = summary.label(entrant, entrants)
            if len(ks) == 0:
                continue
            if ks[0] == KEEPS_ALL:
                handles[label] = ax.axhline(means[0], color=GREY, linestyle="-.", linewidth=1.2)
                continue
            look = looks.of(entrant, summary.evaluators)
            (line,) = ax.plot(ks, means, linewidth=1.6, markersize=5, **look)
            ax.fill_between(ks, means - sds, means + sds, color=look["color"], alpha=0.13, lw=0)
            handles[label] = line
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(summary.ks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        ax.set_title(_title(summary, panel))
        ax.set_xlabel("genes in the panel (k)")
        ax.set_ylabel(axis_label(item))
    blank(axes.flat[len(panels) :])
    legend(figure, handles, rows)
    if spec.title:
        figure.suptitle(spec.title, x=0.02, horizontalalignment="left")
    return figure


def legend(figure: Figure, handles: Mapping[str, Any], rows: int) -> None:
    """One legend for all panels of a figure, beside them: it takes no height from the panels."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right center",
        ncols=max(1, -(-len(handles) // (15 * rows))),
    )


def _dots(
    summary: Summary,
    spec: FigureSpec,
    panels: Sequence[tuple[str, str]],
    entrants: Sequence[Entrant],
    item: Metric,
    looks: Looks,
) -> Figure:
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    height = 0.9 + 0.26 * len(entrants)
    figure = Figure(figsize=(2.9 * columns + 1.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for ax, panel in zip(axes.flat, panels, strict=False):
        for position, entrant in enumerate(entrants):
            _, means, sds = _points(summary, *panel, entrant, item)
            if len(means):
                look = looks.of(entrant, summary.evaluators) | {"linestyle": "none"}
                ax.errorbar(means[:1], [position], xerr=sds[:1], capsize=3, markersize=6, **look)
        ax.set_yticks(range(len(entrants)), [summary.label(e, entrants) for e in entrants])
        ax.set_ylim(len(entrants) - 0.5, -0.5)
        ax.set_title(_title(summary, panel))
        ax.set_xlabel(axis_label(item) + "".join(f", k = {k}" for k in summary.ks))
    blank(axes.flat[len(panels) :])
    if spec.title:
        figure.suptitle(spec.title, x=0.02, horizontalalignment="left")
    return figure


def critical_difference(found: Comparison) -> Figure | None:
    """Mean ranks, best on top; bars join methods that cannot be told apart. None if not tested.

    The critical-difference diagram of Demšar 2006 turned by a quarter, which leaves room for
    the names of many methods.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if found.pairwise is None:
        return None
    names, ranks = list(found.mean_rank.index), found.mean_rank.to_numpy()
    bars = cliques(found)
    figure = Figure(figsize=(5.2 + 0.14 * len(bars), 0.9 + 0.26 * len(names)), layout="constrained")
    ax = figure.subplots()
    rows = range(len(names))
    ax.hlines(rows, 1, ranks, color="#d1d5db", linewidth=1.2)
    ax.plot(ranks, rows, "o", color=COLOURS[0], markersize=6)
    for row, rank in zip(rows, ranks, strict=True):
        ax.annotate(f"{rank:.2f}", (rank, row), (6, 0), textcoords="offset points", va="center")
    step = 0.045 * (len(names) - 1)
    for i, bar in enumerate(bars):
        first, last = names.index(bar[0]), names.index(bar[-1])
        place = len(names) + step * (i + 3)
        ax.plot([place, place], [first - 0.25, last + 0.25], color=GREY, linewidth=3)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=1 - step)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.grid(visible=False)
    ax.set_xlabel("mean rank (1 = best)")
    return figure


def blank(axes: Iterable[Axes]) -> None:
    """Hide the panels of a figure that nothing is drawn in."""
    for ax in axes:
        ax.set_visible(False)
