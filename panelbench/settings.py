"""Where and how runs are done. None of it is in a key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from panelbench.provenance import usable_cores


@dataclass(frozen=True)
class Settings:
    """Where and how runs are done.

    Attributes
    ----------
    results, cache
        Folders of the records and of what can be computed again.
    mirrors
        Folders in which files are looked for before they are downloaded.
    methods_dirs
        Folders with further methods.
    jobs
        Runs at a time; None means one per usable core.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    retry
        Statuses to do again (``failed``, ``timeout``, ``oom``, ``skipped``).
    time_limit, memory_limit
        Seconds and bytes; None means what the method declares.
    quiet
        No progress.
    """

    results: Path
    cache: Path
    mirrors: tuple[Path, ...] = ()
    methods_dirs: tuple[Path, ...] = ()
    jobs: int | None = None
    device: str = "auto"
    retry: frozenset[str] = frozenset()
    time_limit: float | None = None
    memory_limit: int | None = None
    quiet: bool = False

    @property
    def n_workers(self) -> int:
        """Runs at a time."""
        return self.jobs or usable_cores()

    @property
    def n_jobs(self) -> int:
        """Threads of one run."""
        return max(1, usable_cores() // self.n_workers)


def default_cache() -> Path:
    """``$PANELBENCH_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("PANELBENCH_CACHE") or platformdirs.user_cache_dir("panelbench"))


def default_mirrors() -> tuple[Path, ...]:
    """Folders in ``$PANELBENCH_MIRROR``, separated as in ``$PATH``."""
    folders = os.environ.get("PANELBENCH_MIRROR", "").split(os.pathsep)
    return tuple(Path(folder) for folder in folders if folder)
