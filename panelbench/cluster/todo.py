"""What is to do, and with which limits: more than before where a run was stopped at one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from panelbench.records.status import RETRIED, Status
from panelbench.running.needs import Need, need_of
from panelbench.running.settings import Settings
from panelbench.running.states import State, States
from panelbench.suite.runs import EvaluateRun, Plan, Run, SelectRun

KEY = 12
"""Digits of a key that a job names."""
DOUBLINGS = 2
"""How often a limit that a run has hit is doubled."""
_UNKNOWN = 0.1
"""Share of its time limit that a run is taken to need while none like it has been done."""
_ENOUGH = 10
"""Runs of a kind that tell how long the others take."""


@dataclass(frozen=True)
class Todo:
    """A run that is to do.

    Attributes
    ----------
    run
        The run.
    need
        What it needs.
    retry
        The status that it has and that is to be tried again, "" otherwise.
    seconds
        How long it is expected to take.
    after
        The selection in the queue that it waits for: id of its job, "" when there is none.
    """

    run: Run
    need: Need
    retry: str
    seconds: float
    after: str = ""


@dataclass(frozen=True)
class Standing:
    """The runs of a plan: those to do, how many are queued, and where each stands."""

    todo: list[Todo]
    queued: int
    states: list[tuple[Run, State]]


def standing(plan: Plan, states: States, settings: Settings, queued: Mapping[str, str]) -> Standing:
    """Find out what is to do.

    Parameters
    ----------
    plan, states, settings
        The runs, where they stand, and how they are done.
    queued
        Ids of the jobs that hold runs, by the first `KEY` digits of their keys.
    """
    runs: list[Run] = [*plan.selections, *plan.evaluations]
    found = [(run, states.of(run)) for run in runs]
    usual = _usual(found)
    todo: dict[str, Todo] = {}
    waiting = 0
    for run, state in found:
        if run.key[:KEY] in queued:
            waiting += state.status is not Status.DONE
            continue
        need = again(state, need_of(run, settings))
        first = run.select.key if isinstance(run, EvaluateRun) else ""
        if need is None and (state.due or first in todo or _waits(state, first, queued)):
            need = need_of(run, settings)
        if need is not None:
            retry = str(state.status) if state.status in RETRIED and not state.inherited else ""
            seconds = need.usual or usual.get(_like(run)) or _UNKNOWN * need.time
            seconds = min(seconds, need.time)
            todo[run.key] = Todo(run, need, retry, seconds, queued.get(first[:KEY], ""))
    return Standing(list(todo.values()), waiting, found)


def _waits(state: State, first: str, queued: Mapping[str, str]) -> bool:
    return state.status is not Status.DONE and first[:KEY] in queued


def again(state: State, need: Need) -> Need | None:
    """What a run needs that was stopped at a limit; None when it was not, or often enough.

    The limit that it had stands in its record: it is raised to the need, or doubled, as long as
    it is not beyond `DOUBLINGS` doublings of the need. The other limit stays as it was.
    """
    record = state.record
    if record is None or state.inherited or state.status not in (Status.OOM, Status.TIMEOUT):
        return None
    had = Need(_number(record.outside.get("time_limit")),
               int(_number(record.outside.get("memory_limit"))))  # fmt: skip
    most = 2**DOUBLINGS
    more = replace(need, time=max(need.time, had.time), memory=max(need.memory, had.memory))
    if state.status is Status.OOM:
        memory = need.memory if need.memory > had.memory else 2 * had.memory
        return replace(more, memory=memory) if memory <= most * need.memory else None
    time = need.time if need.time > had.time else 2 * had.time
    return replace(more, time=time) if time <= most * need.time else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _usual(found: list[tuple[Run, State]]) -> dict[tuple[str, ...], float]:
    """Seconds of the slowest run of each kind, among a few that are done."""
    usual: dict[tuple[str, ...], list[float]] = {}
    for run, state in found:
        if state.status is Status.DONE and state.record is not None:
            known = usual.setdefault(_like(run), [])
            # Each look at a cost reads a record.
            if len(known) < _ENOUGH:
                known.append(_number(state.record.cost.get("seconds")))
    return {kind: max(seconds) for kind, seconds in usual.items()}


def _like(run: Run) -> tuple[str, ...]:
    """What runs have in common that take about as long as each other."""
    who = (run.dataset.id, run.row.variant)
    return who if isinstance(run, SelectRun) else (*who, run.evaluator_variant)
