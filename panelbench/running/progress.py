"""Progress for people: bars on a terminal, one plain line per run in a log."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from panelbench.records.status import Status
from panelbench.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Reporter:
    """Shows how a stage goes on. Safe to call from several threads.

    Parameters
    ----------
    stage
        Name of the stage.
    total
        Number of runs to do.
    stream
        Where to write; a terminal gets bars, anything else gets lines.
    quiet
        Write nothing.
    """

    def __init__(
        self, stage: str, total: int, stream: TextIO | None = None, *, quiet: bool = False
    ) -> None:
        self._stage, self._total, self._count = stage, total, 0
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet or total == 0
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> Reporter:
        if not self._quiet and self._stream.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bars.start()
            self._whole = self._bars.add_task(self._stage, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, run: str, fraction: float, message: str) -> None:
        """Show how far a single run is."""
        with self._lock:
            if self._bars is None:
                return
            if run not in self._lines:
                self._lines[run] = self._bars.add_task(f"  {run}", total=100)
            text = f"  {run} {message}".rstrip()
            self._bars.update(self._lines[run], completed=100 * fraction, description=text)

    def note(self, what: str, text: str) -> None:
        """Say something that people should know before they trust the numbers."""
        if self._quiet:
            return
        line = f"note: {what}: {printable(text)}"
        with self._lock:
            if self._bars is None:
                print(line, file=self._stream, flush=True)
            else:
                self._bars.console.print(line, markup=False, highlight=False)

    def done(
        self, run: str, status: Status, seconds: float, reason: str = "", *, cached: bool = False
    ) -> None:
        """Count a run that has ended, and say how."""
        with self._lock:
            self._count += 1
            if self._quiet:
                return
            word = "restored" if cached else status
            first = f" ({reason.splitlines()[0][:160]})" if reason else ""
            line = f"[{self._count}/{self._total}] {run}: {word}{first}, {seconds:.1f} s"
            if self._bars is None or self._whole is None:
                print(line, file=self._stream, flush=True)
                return
            bar: Any = self._lines.pop(run, None)
            if bar is not None:
                self._bars.remove_task(bar)
            self._bars.advance(self._whole)
            if status is not Status.OK:
                self._bars.console.print(line, style=status.colour, markup=False)
