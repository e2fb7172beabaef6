"""The jobs of a plan: prepare the data, select, evaluate, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from panelbench.cluster import arguments
from panelbench.cluster.jobs import Job, arrays
from panelbench.cluster.todo import KEY, Todo
from panelbench.running.needs import Need, need_of_stage
from panelbench.running.settings import Settings
from panelbench.suite.request import Request
from panelbench.suite.runs import Dataset, Plan

MiB = 1024**2
PACK = 1800.0
"""Expected seconds of a task that short runs share."""


@dataclass(frozen=True)
class Arrangement:
    """How jobs are to be made.

    Attributes
    ----------
    pack
        Expected seconds of a task that short runs share.
    most
        Tasks that an array may have.
    """

    pack: float = PACK
    most: int = 1000


def _size(memory: int) -> str:
    """A size to the byte: a limit in a record is compared with the one that was asked for."""
    return f"{memory // MiB}M" if memory % MiB == 0 else str(memory)


def jobs_of(
    plan: Plan,
    request: Request,
    settings: Settings,
    todo: Sequence[Todo],
    unprepared: Sequence[Dataset],
    queued: Mapping[str, str],
    how: Arrangement,
) -> list[Job]:
    """The jobs that do what is to do, each after those that it waits for.

    Parameters
    ----------
    plan, request, settings
        What is asked for, and how it is done.
    todo
        Runs that are to do; without any there are no jobs.
    unprepared
        Data sets of these runs that are not prepared.
    queued
        Ids of the jobs in the queue, by the keys that they hold.
    how
        Sizes of tasks and arrays.
    """
    if not todo:
        return []
    name = f"panelbench-{plan.suite.name}"
    asked = (*arguments.what(request), *arguments.where(settings))

    def command(stage: str, need: Need, retry: str) -> tuple[str, ...]:
        # One run at a time: what a job asks for is what one run needs.
        how = ("--jobs", "1", "--time-limit", f"{need.time:.15g}s",
               "--memory-limit", _size(need.memory))  # fmt: skip
        device = ("--device", settings.device) if settings.device != "auto" else ()
        if settings.together is not None:
            device = (*device, "--together", str(settings.together))
        # ``select`` knows no panels from files; ``evaluate`` takes those that it is to score in.
        word = "evaluate" if request.panel else stage
        return (word, *asked, *how, *device, *(("--retry", retry) if retry else ()))

    jobs, first = [], ""
    makes = tuple((d.file[:KEY], f"preprocess {d.id}") for d in unprepared)
    held = {queued[key] for key, _ in makes if key in queued}
    if makes and len(held) == 1 and all(key in queued for key, _ in makes):
        (first,) = held
    elif makes:
        first = f"{name}-preprocess"
        data = (*arguments.data(request), *arguments.where(settings))
        jobs.append(Job(first, ("preprocess", *data, "--jobs", "1"),
                        need_of_stage("preprocess", settings), makes=makes))  # fmt: skip
    runs = arrays(todo, name, command, pack=how.pack, most=how.most, first=first)
    jobs += runs
    before = dict.fromkeys((*(job.name for job in runs), *queued.values()))
    jobs.append(
        Job(f"{name}-report", ("report", *asked), need_of_stage("report", settings),
            after=tuple(before))
    )  # fmt: skip
    return jobs
