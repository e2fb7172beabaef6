"""From runs to jobs: together what needs the same, in tasks of about equal length."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from panelbench.cluster.todo import KEY, Todo
from panelbench.running.needs import Need
from panelbench.suite.runs import EvaluateRun

MOST_RUNS = 20_000
"""Runs of one job: its script must stay small enough for the engine."""
MARGIN = 600.0
"""Seconds that a task has beside its runs, to start and to read the data."""


@dataclass(frozen=True)
class Job:
    """A job: one command, or an array of tasks with the same command and other runs.

    Attributes
    ----------
    name
        Name in the queue.
    command
        Arguments of ``panelbench``, without those of `tasks`.
    need
        What one task needs: `time` is that of the whole task, `memory` that of the run.
    tasks
        Runs of each task: key and description. Empty for a job that is no array.
    makes
        What a job without tasks makes: key and description.
    after
        Names of jobs of the same call, or ids in the queue, that must have ended before.
    """

    name: str
    command: tuple[str, ...]
    need: Need
    tasks: tuple[tuple[tuple[str, str], ...], ...] = ()
    makes: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(map(len, self.tasks))


@dataclass(frozen=True, order=True)
class _Group:
    """Runs that can share a job."""

    after: str
    need: Need
    retry: str


def arrays(
    todo: Sequence[Todo],
    name: str,
    command: Callable[[str, Need, str], tuple[str, ...]],
    *,
    pack: float,
    most: int,
    first: str = "",
) -> list[Job]:
    """Jobs of selections and evaluations.

    Parameters
    ----------
    todo
        What is to do.
    name
        Beginning of the jobs' names.
    command
        Gives the arguments of a stage, with limits, and a status to try again.
    pack
        Expected seconds of a task that short runs share.
    most
        Tasks of an array.
    first
        Name of a job that all others wait for, "" for none.
    """
    jobs: list[Job] = []
    holders: dict[str, str] = {}
    for stage in ("select", "evaluate"):
        groups = _grouped((item for item in todo if item.run.stage == stage), holders)
        count = 0
        for group, items in sorted(groups.items(), key=lambda pair: pair[0]):
            for tasks in _split(_packed(items, pack), most):
                count += 1
                title = f"{name}-{stage}-{count}"
                after = tuple(name for name in (group.after or first,) if name)
                jobs.append(_array(title, command(stage, group.need, group.retry), group.need,
                                   tasks, after))  # fmt: skip
                holders |= {item.run.key: title for task in tasks for item in task}
    return jobs


def _grouped(items: Iterable[Todo], holders: Mapping[str, str]) -> dict[_Group, list[Todo]]:
    """Runs that can share a job; evaluations wait for the job that holds their selection."""
    groups: dict[_Group, list[Todo]] = {}
    for item in items:
        after = item.after
        if isinstance(item.run, EvaluateRun):
            after = holders.get(item.run.select.key, after)
        group = _Group(after, replace(item.need, usual=None), item.retry)
        groups.setdefault(group, []).append(item)
    return groups


def _array(
    name: str,
    command: tuple[str, ...],
    need: Need,
    tasks: Sequence[Sequence[Todo]],
    after: tuple[str, ...],
) -> Job:
    # One run may take all of its time; the others are expected to take what they usually do.
    rest = max(sum(i.seconds for i in task) - max(i.seconds for i in task) for task in tasks)
    time = 60.0 * ceil((need.time + 1.5 * rest + MARGIN) / 60)
    listed = tuple(tuple((i.run.key[:KEY], i.run.describe()) for i in task) for task in tasks)
    return Job(name, command, replace(need, time=time), listed, after=after)


def _packed(items: Sequence[Todo], pack: float) -> list[list[Todo]]:
    """Tasks of about equal length: the longest run goes to the task that has the least so far."""
    total = sum(item.seconds for item in items)
    count = min(len(items), max(1, ceil(total / pack)))
    tasks: list[list[Todo]] = [[] for _ in range(count)]
    load = [(0.0, task) for task in range(count)]
    for item in sorted(items, key=lambda item: (-item.seconds, item.run.key)):
        work, task = heapq.heappop(load)
        heapq.heappush(load, (work + item.seconds, task))
        tasks[task].append(item)
    return tasks


def _split(tasks: Sequence[Sequence[Todo]], most: int) -> Iterator[list[Sequence[Todo]]]:
    """Tasks by array: not more than an array may have, and not more runs than a script holds."""
    part: list[Sequence[Todo]] = []
    for task in tasks:
        if part and (len(part) == most or sum(map(len, part)) + len(task) > MOST_RUNS):
            yield part
            part = []
        part.append(task)
    if part:
        yield part
