"""Figures of cells: maps of the test cells, and how reconstructed cells differ from them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from panelbench.records.packs import opened
from panelbench.report import choice
from panelbench.report.class_palette import Palette, dot_size
from panelbench.report.figures import COLOURS, GREY, blank, headline, legend
from panelbench.report.results import Size, size_name
from panelbench.report.summary import Entrant, Place, Summary
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WRAP = 4
"""Maps in a row when there is only one panel size or one method."""

TITLE = 27
"""Letters in a line of a panel's title."""


@dataclass(frozen=True)
class _Picture:
    """What one run left to draw, of the first seed that has it."""

    label: str
    k: Size
    classes: tuple[str, ...]
    metrics: Mapping[str, float]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Block:
    """Pictures of one data set and task, which share a legend."""

    title: str
    palette: Palette
    pictures: tuple[_Picture, ...]


@dataclass(frozen=True)
class CellContent:
    """All that a figure of cells shows; `side` is that of a map in inches."""

    title: str
    blocks: tuple[Block, ...]
    side: float = 2.3


def umap(summary: Summary, spec: FigureSpec) -> CellContent | None:
    """Test cells by the genes of each panel; methods in rows, panel sizes in columns.

    The MarkerMap paper's Figure 3. None without coordinates.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    return _content(summary, spec, {"view"}, ("umap", "codes"))


def draw_umap(content: CellContent) -> Figure:
    """Draw maps of cells."""
    from matplotlib.figure import Figure

    blocks = content.blocks
    layouts = [_layout(block.pictures) for block in blocks]
    heights = [content.side * rows + 0.3 for rows, _ in layouts]
    width = content.side * max(columns for _, columns in layouts) + 2.2
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)
    for part, block, (rows, columns) in zip(parts.flat, blocks, layouts, strict=True):
        _maps(part, block, rows, columns)
        _finish(part, block, rows, named=len(blocks) > 1)
    headline(figure, content.title)
    return figure


def reconstruction(summary: Summary, spec: FigureSpec) -> CellContent | None:
    """True against reconstructed gene variances, and both kinds of cells, one row per method.

    The cells are drawn in the first two principal components of the true ones: these in grey,
    the reconstructed ones coloured by class. The MarkerMap paper's Figure 3. The methods' own
    reconstructions are drawn unless the figure names evaluators. None without any.

    Raises
    ------
    UnknownName
        When the figure names something that the suite does not have.
    """
    return _content(summary, spec, {"expression"}, ("variances", "components", "codes"))


def draw_reconstruction(content: CellContent) -> Figure:
    """Draw variances and components of reconstructed cells."""
    from matplotlib.figure import Figure

    blocks = content.blocks
    heights = [3.1 * len(block.pictures) + 0.3 for block in blocks]
    figure = Figure(figsize=(8.6, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)
    for part, block in zip(parts.flat, blocks, strict=True):
        axes = part.subplots(len(block.pictures), 2, squeeze=False)
        for (left, right), picture in zip(axes, block.pictures, strict=True):
            _variances(left, picture)
            _components(right, picture, block.palette)
        _finish(part, block, len(block.pictures), named=len(blocks) > 1)
    headline(figure, content.title)
    return figure


def _content(
    summary: Summary, spec: FigureSpec, kinds: set[str], names: Sequence[str]
) -> CellContent | None:
    blocks = _blocks(summary, spec, kinds, names)
    return CellContent(spec.title, tuple(blocks)) if blocks else None


def _blocks(
    summary: Summary, spec: FigureSpec, kinds: set[str], names: Sequence[str]
) -> list[Block]:
    entrants = choice.entrants(summary, spec, kinds)
    if spec.evaluators is None and kinds == {"expression"}:
        entrants = [entrant for entrant in entrants if entrant.evaluator.own]
    sizes = choice.sizes(summary, spec)
    blocks = []
    for dataset, task in choice.tasks(summary, spec):
        pictures = []
        for entrant in entrants:
            for k in sizes if summary.competes(entrant) else [None]:
                place = Place(dataset, task, k, summary.levels[0])
                label = summary.label(entrant, entrants)
                picture = _picture(summary, place, entrant, label, names)
                pictures += [picture] if picture else []
        if pictures:
            title = f"{dataset}, {task}" if len(summary.tasks[dataset]) > 1 else dataset
            counts = summary.results.datasets.get(dataset, {}).get("tasks", {}).get(task, {})
            classes, codes = pictures[0].classes, pictures[0].arrays["codes"]
            if not counts and classes:
                counts = Counter(classes[code] for code in codes)
            palette = Palette(classes, counts)
            blocks.append(Block(title, palette, tuple(pictures)))
    return blocks


def _picture(
    summary: Summary, place: Place, entrant: Entrant, label: str, names: Sequence[str]
) -> _Picture | None:
    for line in summary.runs(place, entrant):
        arrays = read_arrays(line.arrays)
        if all(name in arrays for name in names):
            return _Picture(label, place.k, tuple(line.classes), line.metrics, arrays)
    return None


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Arrays of a file; none when it cannot be read, as where only records were copied."""
    try:
        with opened(path) as handle, np.load(handle, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, BadZipFile):
        return {}


def _titled(picture: _Picture) -> str:
    """Method and panel size, in as many lines as a narrow panel asks for."""
    if picture.k is None:
        return textwrap.fill(picture.label, TITLE)
    size = size_name(picture.k)
    text = f"{picture.label}, {size}"
    return text if len(text) <= TITLE else f"{textwrap.fill(picture.label, TITLE)}\n{size}"


def _layout(pictures: Sequence[_Picture]) -> tuple[int, int]:
    """Rows and columns of the maps."""
    labels, sizes = {p.label for p in pictures}, {p.k for p in pictures} - {None}
    if len(labels) == 1 or len(sizes) < 2:
        return -(-len(pictures) // WRAP), min(WRAP, len(pictures))
    return len(labels), len(sizes)


def _maps(part: SubFigure, block: Block, rows: int, columns: int) -> None:
    axes = part.subplots(rows, columns, squeeze=False)
    blank(axes.flat)
    labels = list(dict.fromkeys(picture.label for picture in block.pictures))
    sizes = sorted({p.k for p in block.pictures if p.k is not None})
    table = len(labels) > 1 and len(sizes) > 1
    for number, picture in enumerate(block.pictures):
        row, column = divmod(number, columns)
        if table:
            # What keeps all genes has no size: it begins its row.
            row = labels.index(picture.label)
            column = sizes.index(picture.k) if picture.k in sizes else 0
        ax = axes[row, column]
        ax.set_visible(True)
        block.palette.scatter(ax, picture.arrays["umap"], picture.arrays["codes"])
        ax.set_title(_titled(picture), fontsize=9)
        _bare(ax)


def _bare(ax: Axes) -> None:
    """Coordinates without meaning of their own get no ticks."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set(visible=True, color="#d1d5db")
    ax.set_box_aspect(1)


def _variances(ax: Axes, picture: _Picture) -> None:
    from matplotlib.ticker import NullFormatter

    true, rebuilt = picture.arrays["variances"]
    varies = (true > 0) & (rebuilt > 0)
    ax.scatter(true[varies], rebuilt[varies], s=6, color=COLOURS[0], alpha=0.5, linewidths=0,
               rasterized=True)  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    if varies.any():
        both = np.concatenate([true[varies], rebuilt[varies]])
        ends = [both.min() / 1.3, both.max() * 1.3]
        ax.plot(ends, ends, color=GREY, linewidth=1)
    rank = picture.metrics.get("spearman_variance", float("nan"))
    lines = [f"Spearman {rank:.3f}".replace("-", "−")] if np.isfinite(rank) else []
    if not varies.all():
        lines.append(f"{int((~varies).sum())} constant genes not drawn")
    ax.text(0.04, 0.96, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    ax.set_title(_titled(picture))
    ax.set_xlabel("variance of a gene over true cells")
    ax.set_ylabel("over reconstructed cells")


def _components(ax: Axes, picture: _Picture, palette: Palette) -> None:
    true, rebuilt = picture.arrays["components"]
    ax.scatter(
        true[:, 0],
        true[:, 1],
        s=dot_size(len(true)),
        color="#b6bcc5",
        linewidths=0,
        rasterized=True,
    )
    palette.scatter(ax, rebuilt, picture.arrays["codes"])
    ax.set_title(_titled(picture))
    ax.set_xlabel("component 1 of the true cells")
    ax.set_ylabel("component 2")


def _finish(part: SubFigure, block: Block, rows: int, named: bool) -> None:
    handles: dict[str, Any] = block.palette.handles()
    if handles:
        legend(part, handles, rows)
    if named:
        part.suptitle(block.title, fontweight="bold", fontsize=10)
