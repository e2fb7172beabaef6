"""What the stages share in the process of a run: the fold, its training cells, a meter."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.specs import DatasetSpec
from panelbench.errors import Fault
from panelbench.method import no_progress
from panelbench.records.cache import Entry, StageCache
from panelbench.records.store import Record
from panelbench.stages.fold import Fold, fit_fold

if TYPE_CHECKING:
    from anndata import AnnData

OUTSIDE: dict[str, str] = {
    "spec": "the data set's entry; what a fold takes from it is in the fold's key",
    "cells": "the prepared cells; the fold's key says which",
    "n_jobs": "threads change the time, not the result",
    "device": "the device is recorded; results on it may differ in the last bits",
    "memory_limit": "a limit ends a run, it does not change it",
    "scratch": "an empty folder of the run's own",
    "methods_dirs": "where methods are looked for; the code that is found is in the key",
    "evaluators_dirs": "where evaluators are looked for; the code that is found is in the key",
    "cache": "keeps what was computed, by key, and environments, by requirements",
    "send": "takes messages about progress",
    "selection": "the record of the selection that the key names",
    "arrays": "the arrays of that record",
}
"""What a stage may read beside its question, each with the reason why it is in no key."""


@dataclass(frozen=True)
class Measured:
    """A stage's result, the arrays beside it, and what it cost."""

    result: dict[str, Any]
    arrays: dict[str, np.ndarray]
    cost: dict[str, Any]


@dataclass
class Meter:
    """Wall time, CPU time and peak memory of one piece of work."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def measured(self, result: dict[str, Any], arrays: dict[str, np.ndarray]) -> Measured:
        """Join a result with what it cost so far."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        unit = 1024**2 if sys.platform == "darwin" else 1024
        cost = {
            "seconds": round(self.seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
            "peak_memory_mb": round((own + largest_child) / unit, 1),
            "gpu_memory_mb": _gpu_peak(),
        }
        return Measured(result, arrays, cost)


def _gpu_peak() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    peak: int = torch.cuda.max_memory_allocated()
    return round(peak / 1024**2, 1)


def _cpu() -> float:
    usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, usages))


@dataclass
class Toolbox:
    """What a stage may use beside its question; `OUTSIDE` says why none of it is in a key.

    Attributes
    ----------
    spec
        Entry of the data set.
    cells
        The prepared data set, in a list so that it can be let go of.
    cache
        Folder of the stage cache.
    n_jobs, device, memory_limit, scratch
        As in `panelbench.method.Task`.
    methods_dirs, evaluators_dirs
        Folders with further methods and evaluators.
    selection, arrays
        Record of the selection that is evaluated, and how to read its arrays.
    send
        Takes progress: a fraction and a message.
    """

    spec: DatasetSpec
    cells: list[AnnData]
    cache: Path
    n_jobs: int = 1
    device: str = "cpu"
    memory_limit: int | None = None
    scratch: Path = field(default_factory=Path)
    methods_dirs: tuple[Path, ...] = ()
    evaluators_dirs: tuple[Path, ...] = ()
    selection: Record | None = None
    arrays: Callable[[], Mapping[str, np.ndarray]] = dict
    send: Callable[[float, str], None] = no_progress
    _last: float = 0.0

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, at most five times a second."""
        if time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self.send(round(float(fraction), 4), str(message)[:200])

    @contextlib.contextmanager
    def meter(self) -> Iterator[Meter]:
        """Measure the time of a block."""
        meter = Meter()
        wall, cpu = time.perf_counter(), _cpu()
        yield meter
        meter.seconds, meter.cpu_seconds = time.perf_counter() - wall, _cpu() - cpu

    def prepared(self) -> AnnData:
        """The prepared data set.

        Raises
        ------
        Fault
            When it could not be read.
        """
        if not self.cells:
            raise Fault("the prepared data are not there any more")
        return self.cells[0]

    def fold(self, key: str, seed: int) -> Fold:
        """The split of a seed and what was fitted on its training cells."""
        stored = StageCache(self.cache).get(
            "fold", key, lambda: Entry(arrays=fit_fold(self.prepared(), self.spec, seed).arrays())
        )
        return Fold.from_arrays(stored.arrays)

    def training_cells(self, key: str, seed: int) -> tuple[AnnData, np.ndarray | None]:
        """Cells that a method may see, and which of them are for validation.

        The whole data set is let go of: from here on this process holds no test cell.
        """
        return self.several_training_cells([(key, seed)])[key]

    def several_training_cells(
        self, folds: Iterable[tuple[str, int]]
    ) -> dict[str, tuple[AnnData, np.ndarray | None]]:
        """The same for several folds by key; a cell may be for training in one, a test in another.

        Each fold's cells are a copy of their own, and hold no test cell of the fold.
        """
        found = {}
        for key, seed in dict(folds).items():
            fold = self.fold(key, seed)
            rows = np.sort(np.concatenate([fold.train, fold.validation]))
            mask = np.isin(rows, fold.validation) if len(fold.validation) else None
            found[key] = fold.take(self.prepared(), rows), mask
        self.cells.clear()
        gc.collect()
        return found
