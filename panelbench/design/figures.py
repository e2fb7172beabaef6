"""Figures of a design: what they show, and how it is drawn; SVG, for the page and for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.design.cells import Profile
from panelbench.report.figures import COLOURS, GREY, LINES, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_A_ROW = 40
"""Genes side by side; more begin another row, so that names stay legible."""
CELL = 0.19
"""Width and height of a gene and of a class in inches."""
DOTS = "YlGnBu"
HEAT = "cividis"
"""Colour maps that grow darker or lighter all the way: legible without colour, and in print."""


@dataclass(frozen=True)
class Blocks:
    """Panel genes by class: what both figures of expression draw.

    Attributes
    ----------
    genes, classes
        In the order drawn: similar classes side by side, genes by the class that they are
        highest in.
    levels, detection
        Mean value and share of cells, classes x genes.
    unit
        What the levels are.
    """

    genes: tuple[str, ...]
    classes: tuple[str, ...]
    levels: np.ndarray
    detection: np.ndarray
    unit: str

    @classmethod
    def of(cls, profile: Profile, panel: Sequence[str]) -> Blocks:
        """Gather and arrange."""
        there = np.flatnonzero(profile.sizes)
        columns = profile.columns(panel)
        levels = profile.levels[np.ix_(there, columns)]
        rows = _similar(relative(levels))
        levels = levels[rows]
        order = np.lexsort((np.arange(len(panel)), levels.argmax(axis=0)))
        return cls(
            genes=tuple(panel[i] for i in order),
            classes=tuple(profile.classes[there[row]] for row in rows),
            levels=levels[:, order],
            detection=profile.detection[np.ix_(there[rows], columns[order])],
            unit="mean log-normalised expression" if profile.counts is not None else "mean value",
        )


def relative(levels: np.ndarray) -> np.ndarray:
    """Each gene's level as a share of its highest, 0 for a gene that is nowhere above 0."""
    top = levels.max(axis=0)
    return np.asarray(np.where(top > 0, np.maximum(levels, 0) / np.where(top > 0, top, 1), 0.0))


def _similar(rows: np.ndarray) -> np.ndarray:
    """An order of rows in which similar ones are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(rows) < 3:
        return np.arange(len(rows))
    return np.asarray(leaves_list(linkage(rows, "average", optimal_ordering=True)))


def _grid(blocks: Blocks, width: float) -> tuple[Figure, list[tuple[Axes, slice]]]:
    """A figure with a row of axes for every `IN_A_ROW` genes."""
    from matplotlib.figure import Figure

    parts = -(-len(blocks.genes) // IN_A_ROW)
    per_row = -(-len(blocks.genes) // parts)
    names = 0.075 * max(map(len, blocks.classes))
    label = 0.07 * max(map(len, blocks.genes)) + 0.15
    height = parts * (CELL * len(blocks.classes) + label) + 0.3
    figure = Figure(figsize=(CELL * per_row + names + width, height), layout="constrained")
    axes = figure.subplots(parts, 1, squeeze=False)[:, 0]
    pieces = []
    for number, ax in enumerate(axes):
        piece = slice(number * per_row, min((number + 1) * per_row, len(blocks.genes)))
        genes = blocks.genes[piece]
        ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=8, style="italic")
        ax.set_yticks(range(len(blocks.classes)), blocks.classes, fontsize=8)
        ax.set_xlim(-0.6, per_row - 0.4)
        ax.set_ylim(len(blocks.classes) - 0.4, -0.6)
        ax.tick_params(length=0)
        pieces.append((ax, piece))
    return figure, pieces


def dot_plot(blocks: Blocks) -> Figure:
    """Size: share of the class's cells with the gene; colour: mean, relative to the highest."""
    from matplotlib.lines import Line2D

    figure, pieces = _grid(blocks, 2.3)
    shares = relative(blocks.levels)
    image = None
    for ax, piece in pieces:
        y, x = np.mgrid[: len(blocks.classes), : piece.stop - piece.start]
        image = ax.scatter(
            x.ravel(), y.ravel(), s=_area(blocks.detection[:, piece].ravel()),
            c=shares[:, piece].ravel(), cmap=DOTS, vmin=0, vmax=1, edgecolors=GREY, linewidths=0.25,
        )  # fmt: skip
        ax.grid(visible=True, linewidth=0.4)
    assert image is not None
    bar = figure.colorbar(image, ax=[ax for ax, _ in pieces], aspect=18, shrink=0.6, pad=0.02)
    bar.set_label("mean, of the class where\nthe gene is highest", fontsize=8)
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=GREY, markersize=_area(share) ** 0.5)
        for share in (0.1, 0.25, 0.5, 1.0)
    ]
    figure.legend(
        handles, ["10%", "25%", "50%", "100%"], loc="outside right upper", title="share of cells",
        fontsize=8, title_fontsize=8,
    )  # fmt: skip
    return figure


def _area(share: Any) -> Any:
    """Area of a dot in square points."""
    return 1 + 118 * np.asarray(share) * 0.75


def heat_map(blocks: Blocks) -> Figure:
    """Mean expression of each gene in each class."""
    figure, pieces = _grid(blocks, 1.3)
    image = None
    for ax, piece in pieces:
        image = ax.imshow(
            blocks.levels[:, piece], cmap=HEAT, vmin=min(0.0, float(blocks.levels.min())),
            vmax=float(blocks.levels.max()) or 1.0, aspect="equal", interpolation="nearest",
        )  # fmt: skip
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    assert image is not None
    bar = figure.colorbar(image, ax=[ax for ax, _ in pieces], aspect=18, shrink=0.6, pad=0.02)
    bar.set_label(blocks.unit, fontsize=8)
    return figure


@dataclass(frozen=True)
class Curve:
    """Scores against the number of genes.

    Attributes
    ----------
    growth
        Of the winner's panel, by number of its first genes, the score of each part.
    others
        By label, mean score by size of the sizes asked for.
    ceiling
        Score of all genes on the first part; NaN where unknown.
    elbow, k
        Smallest size within one standard error of the best; size of the panel.
    """

    growth: Mapping[int, np.ndarray]
    others: Mapping[str, Mapping[int, float]]
    ceiling: float
    elbow: int
    k: int


def curve(shown: Curve, winner: str) -> Figure:
    """Draw held-out macro F1 by the number of genes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(7.4, 3.9), layout="constrained")
    ax = figure.subplots()
    sizes = sorted(shown.growth)
    if sizes:
        values = np.array([shown.growth[size] for size in sizes]) * 100
        mean, parts = values.mean(axis=1), values.shape[1]
        error = values.std(axis=1, ddof=1) / np.sqrt(parts) if parts > 1 else np.zeros(len(sizes))
        ax.fill_between(sizes, mean - error, mean + error, color=COLOURS[0], alpha=0.18, lw=0)
        ax.plot(sizes, mean, color=COLOURS[0], marker="o", markersize=3.5, lw=1.8,
                label=f"first genes of {winner}'s panel ± s.e.")  # fmt: skip
        ax.axvline(shown.elbow, color=GREY, linestyle=":", linewidth=1.2)
        right = shown.elbow < sizes[-1] / 2
        ax.annotate(
            f"elbow: {shown.elbow}", (shown.elbow, float(mean.min())), (4 if right else -4, 2),
            textcoords="offset points", ha="left" if right else "right", color=GREY, fontsize=8,
        )  # fmt: skip
    for number, (label, found) in enumerate(shown.others.items(), start=1):
        ax.plot(
            list(found), [100 * value for value in found.values()], label=label,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[1] if len(found) > 1 else "none", lw=1, markersize=6,
            fillstyle="full" if number < len(COLOURS) else "none", alpha=0.85,
        )  # fmt: skip
    if np.isfinite(shown.ceiling):
        ax.axhline(100 * shown.ceiling, color="black", lw=0.8, linestyle="--")
        ax.annotate("all genes, first part", (1, 100 * shown.ceiling), (2, 3),
                    textcoords="offset points", fontsize=8)  # fmt: skip
    every = sorted({*sizes, *(size for found in shown.others.values() for size in found)})
    ax.set_xscale("log")
    ticks = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size <= every[-1]]
    ax.set_xticks([*ticks, every[-1]] if every[-1] > 1.3 * ticks[-1] else ticks)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("genes (logarithmic)")
    ax.set_ylabel("macro F1 on held-out cells, %")
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def confusion(total: np.ndarray, classes: Sequence[str]) -> Figure:
    """Share of each true class by predicted class, similar classes side by side."""
    from matplotlib.figure import Figure

    there = np.flatnonzero(total.sum(axis=1) + total.sum(axis=0))
    counts = total[np.ix_(there, there)].astype(float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = _similar(shares + shares.T)
    shares = shares[np.ix_(order, order)]
    names = [classes[there[i]] for i in order]
    n = len(names)
    side = float(np.clip(0.36 * n, 2.2, 8.5))
    margin = 0.075 * max(map(len, names)) + 0.4
    figure = Figure(figsize=(side + margin + 0.9, side + margin), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    size = float(np.clip(72 * side / n * 0.55, 4, 9))
    ax.set_xticks(range(n), names, rotation=90, fontsize=size)
    ax.set_yticks(range(n), names, fontsize=size)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    if n <= 24:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center",
                        fontsize=min(8, 0.8 * size), color="white" if share > 0.55 else "black",
                        )  # fmt: skip
    figure.colorbar(image, ax=ax, shrink=0.7, aspect=25, label="share of the true class")
    return figure


def told_apart(shares: Sequence[float]) -> Figure:
    """Share of pairs of classes that a single gene tells apart, by number of genes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    ax = figure.subplots()
    values = [100 * share for share in shares]
    ax.step(range(1, len(values) + 1), values, where="mid", color=COLOURS[0])
    ax.set_ylim(0, 103)
    ax.set_xlim(0.4, len(values) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("genes, in the panel's order")
    ax.set_ylabel("pairs told apart, %")
    return figure
