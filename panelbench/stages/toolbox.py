"""What the stages share in the process of a run: the fold, its training cells, a meter."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from panelbench.stages.fold import Fold


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
    """What a stage may use in the child: cells, progress, a meter.

    Attributes
    ----------
    job
        The job.
    loaded
        The prepared data set, in a list so that it can be let go of.
    send
        Sends a message to the process that gave the job.
    """

    job: Mapping[str, Any]
    loaded: list[AnnData]
    send: Callable[[dict[str, Any]], None]
    _last: float = field(default=0.0)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, at most five times a second."""
        if time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self.send({"progress": [round(float(fraction), 4), str(message)[:200]]})

    @contextlib.contextmanager
    def meter(self) -> Iterator[Meter]:
        """Measure the time of a block."""
        meter = Meter()
        wall, cpu = time.perf_counter(), _cpu()
        yield meter
        meter.seconds, meter.cpu_seconds = time.perf_counter() - wall, _cpu() - cpu

    def fold(self) -> Fold:
        """The split of this run and what was fitted on its training cells."""
        from panelbench.data.specs import DatasetSpec
        from panelbench.records.cache import StageCache
        from panelbench.stages.fold import Fold, fit_fold

        cells = self.loaded[0]
        spec = DatasetSpec.model_validate(self.job["spec"])
        stored = StageCache(Path(self.job["cache"])).get(
            "fold", self.job["split_key"], lambda: fit_fold(cells, spec, self.job["seed"]).arrays()
        )
        return Fold.from_arrays(stored)

    def training_cells(self) -> tuple[AnnData, np.ndarray | None]:
        """Cells that a method may see, and which of them are for validation.

        The whole data set is let go of: from here on this process holds no test cell.
        """
        import numpy as np

        fold = self.fold()
        rows = np.sort(np.concatenate([fold.train, fold.validation]))
        mask = np.isin(rows, fold.validation) if len(fold.validation) else None
        cells = fold.take(self.loaded[0], rows)
        self.loaded.clear()
        gc.collect()
        return cells, mask
