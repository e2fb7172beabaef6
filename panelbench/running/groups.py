"""Runs that a method does together: which, how many at once, and what becomes of each.

A method may declare that it answers several runs on one data set at once (`Method.together`).
Such runs go to one process, with limits that are the sum of theirs. Each is claimed, recorded and
found again under its own key, as if it had been alone. What does not end well in a group is done
again in two halves, and in the end alone: one bad run spoils no other, and only a run that was
alone is recorded as failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from panelbench.records.facts import read_facts
from panelbench.records.keys import digest
from panelbench.records.status import Status
from panelbench.records.store import Store
from panelbench.running.jobs import GroupJob, RunJob
from panelbench.running.needs import allowed
from panelbench.running.settings import Settings
from panelbench.running.supervisor import Outcome
from panelbench.suite.runs import Dataset, Run, SelectRun

Ended: TypeAlias = tuple[Run, Outcome | None]
"""A run and how it ended; None when another process is at it or has done it."""
_MOST = 64
"""Runs of a group at most, where nobody says how many."""
_COPIES = 4
"""Times that a run on a GPU may hold its training cells as float32: the matrix, and batches."""
_DIVIDED = {Status.OK, Status.FAILED, Status.TIMEOUT, Status.OOM, Status.SKIPPED}
"""Ends of a group after which what is not recorded is done again in halves."""


def groups_of(
    runs: Sequence[Run], settings: Settings, facts: Callable[[Dataset], Path]
) -> list[list[Run]]:
    """Divide runs into groups that are done together, in the order of their first runs.

    Parameters
    ----------
    runs
        What is due.
    settings
        `Settings.together` says how many at most. On a CPU they are spread over the workers, and
        alone by default, since together they take as long. On a GPU a group by default holds
        what half of its memory has room for.
    facts
        Where the size of a data set is written down.
    """
    found: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        found.setdefault(alike(run) or number, []).append(run)
    several = any(len(group) > 1 for group in found.values())
    room = gpu_memory() if several and settings.device != "cpu" else None
    groups = []
    for group in found.values():
        parts = -(-len(group) // _size(group, settings, room, facts))
        bounds = [len(group) * part // parts for part in range(parts + 1)]
        groups += [group[a:b] for a, b in pairwise(bounds)]
    return groups


def alike(run: Run) -> str | None:
    """What runs of a group have in common; None for a run that is done alone."""
    method = run.declared
    if not isinstance(run, SelectRun) or getattr(method, "together", None) is None:
        return None
    differ = getattr(method, "differ", ())
    params = {name: value for name, value in run.question.params.items() if name not in differ}
    return digest({"data": run.dataset.file, "method": run.method, "params": params})


def _size(
    group: Sequence[Run], settings: Settings, room: int | None, facts: Callable[[Dataset], Path]
) -> int:
    """Runs of a group at most."""
    if len(group) == 1:
        return 1
    if room is None or getattr(group[0].declared, "gpu", "no") == "no":
        return min(settings.together or 1, -(-len(group) // settings.n_workers))
    if settings.together is not None:
        return settings.together
    known = read_facts(facts(group[0].dataset))
    one = 4 * _COPIES * max(1, int(known.get("cells", 0))) * max(1, int(known.get("genes", 0)))
    return max(1, min(_MOST, room // 2 // one))


def gpu_memory() -> int | None:
    """Bytes of this machine's smallest GPU, None where there is none (that may be used)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(int(line) for line in said.split()) * 1024**2
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def group_job(jobs: Sequence[RunJob]) -> RunJob | GroupJob:
    """A job of several runs, with their limits together; that of a single one as it is."""
    alone, count = jobs[0].resources, len(jobs)
    if count == 1:
        return jobs[0]
    time, memory = alone.time_limit, alone.memory_limit
    together = replace(
        alone,
        time_limit=None if time is None else count * time,
        memory_limit=None if memory is None else allowed(count * memory),
    )
    return GroupJob(tuple(jobs), together)


def do_in_groups(runs: Sequence[Run], some: Callable[[Sequence[Run]], list[Ended]]) -> list[Ended]:
    """Do runs together, and what does not end well in halves.

    Parameters
    ----------
    runs
        One or several.
    some
        Does them at once, and gives those that have ended: a run that is alone always has.
    """
    ended: list[Ended] = []
    waiting = [list(runs)]
    while waiting:
        part = waiting.pop(0)
        done = some(part)
        ended += done
        over = {run.key for run, _ in done}
        left = [run for run in part if run.key not in over]
        half = -(-len(left) // 2)
        waiting[:0] = [each for each in (left[:half], left[half:]) if each]
    return ended


def in_group(store: Store, job: RunJob, outcome: Outcome) -> Outcome | None:
    """How a run of a group ended, by its record; None when it is to be done in a smaller one."""
    record = store.attempt(job.place.address, job.place.attempt)
    if record is None:
        return None if outcome.status in _DIVIDED else outcome
    cached, seconds = bool(record.outside.get("from_cache")), record.cost.get("seconds", 0.0)
    return Outcome(record.status, record.reason, True, cached, seconds=seconds)
