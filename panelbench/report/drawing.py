"""Figures before they are drawn, and drawing those that have changed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.records.bulk import left_out
from panelbench.report import manifest
from panelbench.report.manifest import Manifest, digest_of, sha256

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 8
"""Figures from which on several processes draw them."""
_MOST = 8
"""Processes that draw."""


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn.

    Attributes
    ----------
    name
        Name of its files, without suffix.
    title
        What the page says below it.
    content
        All that it shows, as plain values and arrays.
    draw
        Draws the content.
    """

    name: str
    title: str
    content: Any
    draw: Callable[[Any], Figure]

    @property
    def digest(self) -> str:
        """Of what is drawn and of what draws it."""
        return digest_of([manifest.maker(), self.content])

    @property
    def files(self) -> tuple[str, str]:
        """Names of its files."""
        return f"{self.name}.svg", f"{self.name}.png"

    def kept(self, folder: Path, known: Manifest) -> dict[str, bytes]:
        """Bytes of the files that show the same already; {} unless all are there."""
        if known.drawings.get(self.name) == self.digest:
            with suppress(OSError):
                there = {name: (folder / name).read_bytes() for name in self.files}
                if all(sha256(data) == known.files.get(name) for name, data in there.items()):
                    return there
        return {}


def draw_all(drawings: Sequence[Drawing], folder: Path, known: Manifest) -> dict[str, bytes]:
    """Bytes of all figures by file name: those of the folder that show the same, else drawn anew.

    The same figures give the same bytes, however many processes draw them.
    """
    kept = [drawing.kept(folder, known) for drawing in drawings]
    due = [drawing for drawing, files in zip(drawings, kept, strict=True) if not files]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    processes = min(cores, len(due), _MOST)
    if len(due) < MANY or processes < 2:
        with left_out():
            drawn = list(map(_drawn, due))
    else:
        from panelbench.report import figures

        # Forked with all libraries there: to start anew takes as long as to draw some figures.
        figures.load()
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, fork, initializer=_begin) as others:
            drawn = list(others.map(_drawn, due))
    found = {name: data for files in (*kept, *drawn) for name, data in files.items()}
    return {name: found[name] for drawing in drawings for name in drawing.files}


def _begin() -> None:
    # What came from the parent is not searched, and so stays shared with it.
    gc.freeze()
    gc.enable()


def _drawn(drawing: Drawing) -> dict[str, bytes]:
    from panelbench.report import figures

    with figures.style():
        found = figures.save(drawing.draw(drawing.content))
    return {f"{drawing.name}.{suffix}": data for suffix, data in found.items()}
