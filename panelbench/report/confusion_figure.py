"""Confusion matrices side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.report import choice
from panelbench.report.figures import blank, headline
from panelbench.report.results import Size, size_name
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

MOST = 6
"""Matrices of one data set and task, unless the figure names its methods."""
COLUMNS = 3
WRITTEN = 15
"""Up to this many classes the shares are written into the cells."""
COLOURS = "Blues"
"""White to dark blue: legible in grey print too."""


@dataclass(frozen=True)
class _Matrix:
    """Test cells of all seeds, rows true and columns predicted, in the order of `classes`."""

    label: str
    classes: tuple[str, ...]
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Share of each true class, NaN for a class without test cells."""
        total = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > 0, self.counts / np.maximum(total, 1), np.nan))


@dataclass(frozen=True)
class ConfusionContent:
    """Matrices of every data set, task and panel size, each lot with its title."""

    title: str
    blocks: tuple[tuple[str, tuple[_Matrix, ...]], ...]


def confusion(summary: Summary, spec: FigureSpec) -> ConfusionContent | None:
    """Confusion matrices summed over seeds, one per method; None without any.

    Shown for the first classifier of the suite unless the figure names evaluators, and the
    largest panel unless it names sizes. Classes are sorted by name. Shares of the rows are
    written with two decimals, the rest cut off as in the MarkerMap paper's Figure 2D.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    entrants = _entrants(summary, spec)
    sizes: list[Size] = [*choice.sizes(summary, spec)] or [None]
    sizes = sizes if spec.ks else sizes[-1:]
    blocks = tuple(
        (title, tuple(matrices))
        for dataset, task in choice.tasks(summary, spec)
        for k in sizes
        for place in [Place(dataset, task, k, summary.levels[0])]
        for title in [_title(summary, place, entrants)]
        if (matrices := _matrices(summary, place, entrants, None if spec.methods else MOST))
    )
    return ConfusionContent(spec.title, blocks) if blocks else None


def draw(content: ConfusionContent) -> Figure:
    """Draw confusion matrices."""
    from matplotlib.figure import Figure

    blocks = content.blocks
    shapes = [_shape(matrices) for _, matrices in blocks]
    figure = Figure(
        figsize=(max(w for w, _ in shapes), sum(h for _, h in shapes)), layout="constrained"
    )
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=[h for _, h in shapes])
    for part, (title, matrices) in zip(parts.flat, blocks, strict=True):
        _draw(part, matrices, title)
    headline(figure, content.title)
    return figure


def _entrants(summary: Summary, spec: FigureSpec) -> list[Entrant]:
    entrants = choice.entrants(summary, spec, {"classification"})
    if spec.evaluators is None:
        present = {entrant.evaluator for entrant in entrants}
        first = next((ref for ref in summary.evaluators if ref in present), None)
        entrants = [entrant for entrant in entrants if entrant.evaluator == first]
    if spec.methods is None:
        entrants = [entrant for entrant in entrants if summary.competes(entrant)]
    return entrants


def _title(summary: Summary, place: Place, entrants: Sequence[Entrant]) -> str:
    """Data set, panel size and classifier, as far as the matrices' own titles do not say."""
    evaluators = {entrant.evaluator for entrant in entrants}
    parts = [place.dataset]
    parts += [place.task] if len(summary.tasks[place.dataset]) > 1 else []
    parts += [size_name(place.k)] if place.k is not None else []
    parts += [ref.label for ref in evaluators] if len(evaluators) == 1 else []
    return ", ".join(parts)


def _matrices(
    summary: Summary, place: Place, entrants: Sequence[Entrant], most: int | None
) -> list[_Matrix]:
    found = []
    for entrant in entrants:
        lines = [
            line
            for line in summary.runs(place, entrant)
            if len(line.confusion) == len(line.classes) > 0
        ]
        if not lines:
            continue
        names = lines[0].classes
        order = sorted(range(len(names)), key=lambda code: names[code])
        counts = sum(np.asarray(line.confusion, dtype=np.int64) for line in lines)
        found.append(
            _Matrix(
                summary.label(entrant, entrants),
                tuple(names[code] for code in order),
                np.asarray(counts)[np.ix_(order, order)],
            )
        )
    return found[:most]


def _side(n_classes: int) -> float:
    """Width of a matrix in inches: its numbers, or else its colours, must stay legible."""
    per_class = 0.3 if n_classes <= WRITTEN else 0.085
    return float(np.clip(per_class * n_classes, 1.6, 5.5))


def _shape(matrices: Sequence[_Matrix]) -> tuple[float, float]:
    """Width and height in inches of all matrices of a data set, with the names beside them."""
    side = _side(len(matrices[0].classes))
    names = 0.075 * max(len(name) for name in matrices[0].classes)
    rows = -(-len(matrices) // COLUMNS)
    return (side + 0.2) * min(COLUMNS, len(matrices)) + names + 1.4, (side + 0.5) * rows + 0.7


def _draw(part: SubFigure, matrices: Sequence[_Matrix], title: str) -> None:
    columns = min(COLUMNS, len(matrices))
    rows = -(-len(matrices) // columns)
    axes = part.subplots(rows, columns, squeeze=False)
    classes = matrices[0].classes
    points = 72 * _side(len(classes)) / len(classes)
    ticks = range(len(classes))
    numbers = [str(i + 1) for i in ticks]
    # Names stand once in a row; columns are numbered in the same order.
    names = [f"{name}  {number}" for name, number in zip(classes, numbers, strict=True)]
    size = min(8.0, 0.9 * points)
    image: AxesImage | None = None
    for place, (ax, matrix) in enumerate(zip(axes.flat, matrices, strict=False)):
        image = _matrix(ax, matrix, points)
        left = place % columns == 0
        ax.set_title(matrix.label)
        ax.set_xticks(ticks, numbers, rotation=0 if points > 12 else 90, fontsize=size)
        ax.set_yticks(ticks, names if left else numbers, fontsize=size)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true" if left else "")
    blank(axes.flat[len(matrices) :])
    if image is not None:
        part.colorbar(image, ax=list(axes.flat), label="share of the true class", aspect=30)
    part.suptitle(title, fontsize=10)


def _matrix(ax: Axes, matrix: _Matrix, points: float) -> AxesImage:
    shares = matrix.shares
    image = ax.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    if len(matrix.classes) <= WRITTEN:
        for (row, column), n in np.ndenumerate(matrix.counts):
            if n:
                share = shares[row, column]
                colour = "white" if share > 0.55 else "black"
                text = floored(int(n), int(matrix.counts[row].sum()))
                ax.text(
                    column, row, text, ha="center", va="center", color=colour,
                    fontsize=min(6.5, 0.3 * points),
                )  # fmt: skip
    return image


def floored(n: int, total: int) -> str:
    """A share with two decimals, the rest cut off: nothing is called 1.00 that is not."""
    hundredths = 100 * n // total
    return f"{hundredths // 100}.{hundredths % 100:02d}"
