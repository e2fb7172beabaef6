"""What all figures share: style, looks of the methods, legends, bytes.

They are drawn without pyplot's global state; the same data give the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from panelbench.report.results import EvaluatorRef
from panelbench.report.summary import Entrant, Summary
from panelbench.scoring.comparison import Comparison, cliques
from panelbench.scoring.metrics import Metric
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe & Ito's palette, legible for colour-blind readers; yellow is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":")
FILLS = (("full", "left", "bottom"), ("none", "right", "top"))
"""Fillings of markers: colours of the first and of later rounds, by evaluator."""
GREY = "#6b7280"
_DPI = 150
_MARGIN = 0.1
"""Inches around what is drawn."""


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
        # Names of methods and classes are no formulas, whatever dollar signs are in them.
        "text.parse_math": False,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        # Typed as a dictionary of literal keys, which a plain dictionary is not.
        parameters: Any = mpl.rcParams
        parameters.update(ours)
        yield


def load() -> None:
    """Import what figures are drawn and saved with."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


def save(figure: Figure) -> dict[str, bytes]:
    """Bytes of a figure as PNG and SVG, without dates."""
    svg, png = io.BytesIO(), io.BytesIO()
    # Laid out once for both; "tight" would do so for each, and draw each twice.
    figure.set_dpi(_DPI)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    box = figure.get_tightbbox().padded(_MARGIN)
    # The resolution is that of the parts that are rasterised.
    figure.savefig(svg, format="svg", dpi=_DPI, bbox_inches=box, metadata={"Date": None})
    figure.savefig(png, format="png", dpi=_DPI, bbox_inches=box, metadata={"Software": None})
    return {"svg": svg.getvalue(), "png": png.getvalue()}


class Looks:
    """Colour, marker and line of every method, the same in all figures of a report."""

    def __init__(self, summary: Summary) -> None:
        self.number = {row: i for i, row in enumerate(summary.results.rows)}

    def of(self, entrant: Entrant, evaluators: Sequence[EvaluatorRef]) -> dict[str, Any]:
        """Options of a line: colour and marker by method, dashes and filling by evaluator."""
        i = self.number[entrant.row]
        lap = i // len(COLOURS)
        turn = evaluators.index(entrant.evaluator)
        # Beyond seven methods a colour comes again with another marker.
        return {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[(i + lap) % len(MARKERS)],
            "linestyle": LINES[turn % len(LINES)],
            "fillstyle": FILLS[lap % 2][turn % len(FILLS[0])],
        }


def specs(summary: Summary) -> tuple[FigureSpec, ...]:
    """Figures of a suite; without any, the main metric of each kind of task by k."""
    suite = summary.results.suite
    if suite.figures:
        return suite.figures
    names = {"classification": "f1_macro", "regression": "pearson"}
    found = [name for kind, name in names.items() if kind in summary.kinds()]
    return tuple(FigureSpec(name=f"{n.replace('_', '-')}-by-k", metric=n) for n in found)


def axis_label(item: Metric) -> str:
    """Label of an axis that shows a metric."""
    return item.label + (", %" if item.percent else "")


def legend(figure: Figure | SubFigure, handles: Mapping[str, Any], rows: int) -> None:
    """One legend for all panels of a figure, beside them: it takes no height from the panels."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right center",
        ncols=_legend_columns(len(handles), rows),
    )


def _legend_columns(entries: int, rows: int) -> int:
    return max(1, -(-entries // (16 * rows)))


def legend_width(labels: Collection[str], rows: int) -> float:
    """Inches that a legend takes beside `rows` of panels."""
    longest = max((len(label) for label in labels), default=0)
    return _legend_columns(len(set(labels)), rows) * (0.068 * longest + 0.6)


@dataclass(frozen=True)
class RanksContent:
    """Mean ranks by method, best first, and bars that join methods not told apart."""

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    bars: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, compared: Comparison) -> RanksContent | None:
        """What a comparison has to show; None if nothing was tested."""
        if compared.pairwise is None:
            return None
        names = tuple(map(str, compared.mean_rank.index))
        return cls(names, tuple(map(float, compared.mean_rank)), tuple(cliques(compared)))


def critical_difference(content: RanksContent) -> Figure:
    """Mean ranks, best on top; bars join methods that cannot be told apart.

    The critical-difference diagram of Demšar 2006 turned by a quarter, which leaves room for
    the names of many methods.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names, ranks, bars = content.names, content.ranks, content.bars
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


def headline(figure: Figure, text: str) -> None:
    """Title of a figure, in as many lines as its width asks for; none for an empty text."""
    if text:
        lines = textwrap.fill(text, max(20, int(9 * figure.get_figwidth())))
        figure.suptitle(lines, x=0.02, horizontalalignment="left", fontsize=11)


def blank(axes: Iterable[Axes]) -> None:
    """Hide the panels of a figure that nothing is drawn in."""
    for ax in axes:
        ax.set_visible(False)
