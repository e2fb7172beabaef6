"""Where and how runs are done. None of it is in a key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from panelbench.errors import ConfigError, UnknownName
from panelbench.records.grant import usable_cores
from panelbench.records.status import RETRIED
from panelbench.suite.specs import Limits, Needs


@dataclass(frozen=True)
class Settings:
    """Where and how runs are done.

    Attributes
    ----------
    results, cache
        Folders of the records and of what can be computed again.
    mirrors
        Folders in which files are looked for before they are downloaded.
    methods_dirs, evaluators_dirs
        Folders with further methods and evaluators.
    jobs
        Runs at a time; None means one per usable core.
    together
        Runs at most that a method does together, where it can (1: each alone); None means what
        `panelbench.running.groups` finds good.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    retry
        Statuses to do again (``failed``, ``timeout``, ``oom``, ``skipped``).
    time_limit, memory_limit
        Of every run, seconds and bytes; None means what suite or method say.
    limits, needs
        What the suite says of all runs, and what suite or options say of single methods and
        evaluators (`panelbench.running.needs`).
    quiet
        No progress.
    """

    results: Path
    cache: Path
    mirrors: tuple[Path, ...] = ()
    methods_dirs: tuple[Path, ...] = ()
    evaluators_dirs: tuple[Path, ...] = ()
    jobs: int | None = None
    together: int | None = None
    device: str = "auto"
    retry: frozenset[str] = frozenset()
    time_limit: float | None = None
    memory_limit: int | None = None
    limits: Limits = field(default_factory=Limits)
    needs: Mapping[str, Needs] = field(default_factory=dict)
    quiet: bool = False

    @property
    def n_workers(self) -> int:
        """Runs at a time."""
        return self.jobs or usable_cores()

    @property
    def n_jobs(self) -> int:
        """Threads of one run."""
        return max(1, usable_cores() // self.n_workers)


def default_mirrors() -> tuple[Path, ...]:
    """Folders in ``$PANELBENCH_MIRROR``, separated as in ``$PATH``."""
    folders = os.environ.get("PANELBENCH_MIRROR", "").split(os.pathsep)
    return tuple(Path(folder) for folder in folders if folder)


def parse_retry(text: str | None) -> frozenset[str]:
    """Statuses in ``failed,timeout``.

    Raises
    ------
    UnknownName
        For a status that does not exist.
    """
    names = [part.strip() for part in (text or "").split(",") if part.strip()]
    for name in names:
        if name not in RETRIED:
            raise UnknownName("status", name, RETRIED, "--retry")
    return frozenset(names)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Index and number of shards in ``0/4``.

    Raises
    ------
    ConfigError
        When it is not of this form, or the index is not below the number.
    """
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()) or int(index) >= int(count):
        raise ConfigError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")
    return int(index), int(count)
