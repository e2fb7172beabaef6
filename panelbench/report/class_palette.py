"""Colours and markers of classes, legible for colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Paul Tol's muted scheme with the orange of his vibrant one.
COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
    "#AA4499", "#EE7733",
)  # fmt: skip
MARKERS = ("o", "x")
"""The colours come again with the second marker."""

OTHER = "#9ca3af"
"""What is left over."""

LIMIT = len(COLOURS) * len(MARKERS)
"""Classes that can be told apart; when there are more, the smallest share a grey."""


def dot_size(n_cells: int) -> float:
    """Area of a cell's dot in square points: the fewer cells, the larger."""
    return float(np.clip(9000 / max(n_cells, 1), 1.5, 14))


class Palette:
    """How the classes of a data set are drawn, the same in all its pictures.

    Parameters
    ----------
    classes
        Names in the order of the codes.
    cells
        Number of cells of each class, by name.
    """

    def __init__(self, classes: Sequence[str], cells: Mapping[str, int]) -> None:
        self.classes = tuple(classes)
        named = sorted(classes, key=lambda name: (-cells.get(name, 0), name))
        if len(named) > LIMIT:
            named = named[: LIMIT - 1]
        self.named = tuple(sorted(named))
        self.others = len(self.classes) - len(self.named)

    def scatter(self, ax: Axes, points: np.ndarray, codes: np.ndarray) -> None:
        """Draw cells, as an image: no page has room for a hundred thousand circles.

        Parameters
        ----------
        points
            Coordinates, cells x 2.
        codes
            int, code of each cell's class; without classes all cells look the same.
        """
        from matplotlib.colors import to_rgba_array

        # What is left over lies below; the rest in random order, lest the last class hides others.
        names = [self.classes[code] if self.classes else "" for code in codes]
        order = np.random.default_rng(0).permutation(len(points))
        order = np.array(sorted(order, key=lambda i: names[i] in self.named), dtype=np.intp)
        points, names = points[order], [names[i] for i in order]
        looks = {name: self._look(name) for name in set(names)}
        colours = to_rgba_array([looks[name][0] for name in names])
        markers = np.array([looks[name][1] for name in names])
        for marker in MARKERS:
            mine = markers == marker
            ax.scatter(
                points[mine, 0], points[mine, 1], c=colours[mine], marker=marker,
                s=dot_size(len(points)),
                linewidths=0 if marker == "o" else 0.7, rasterized=True,
            )  # fmt: skip

    def handles(self) -> dict[str, Any]:
        """Handles of a legend by name."""
        from matplotlib.lines import Line2D

        names = [*self.named, *([f"{self.others} smaller classes"] if self.others else [])]
        looks = [self._look(name) for name in names]
        return {
            name: Line2D([], [], linestyle="none", color=colour, marker=marker, markersize=5)
            for name, (colour, marker) in zip(names, looks, strict=True)
        }

    def _look(self, name: str) -> tuple[str, str]:
        if name not in self.named:
            return OTHER if self.classes else COLOURS[0], MARKERS[0]
        lap, place = divmod(self.named.index(name), len(COLOURS))
        return COLOURS[place], MARKERS[lap]
