"""Where the runs of a plan stand: done, to do, stale, running, or how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from panelbench.records.keys import changed_fields
from panelbench.records.store import Record, Store, newest, ranks_enough
from panelbench.stages.panel import panel_digest
from panelbench.suite.runs import EvaluateRun, Run, SelectRun

ALWAYS = frozenset({"lost"})
"""Statuses that are done again without being asked for: nothing is known of such a run."""


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes
    ----------
    status
        ``done``, a status of its newest record, ``running``, ``to do``, ``stale`` (done before
        with other code, versions or data), ``no data`` or ``waiting`` (its selection is not
        there).
    due
        Whether the next command will do it.
    why
        Reason, in words.
    record
        The record that counts, if there is one.
    """

    status: str
    due: bool
    why: str = ""
    record: Record | None = None


@dataclass
class Summary:
    """What a stage did."""

    stage: str
    done_before: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    restored: int = 0
    running: int = 0
    waiting: int = 0
    standing: Counter[str] = field(default_factory=Counter)

    @property
    def ran(self) -> int:
        """Number of runs that this call did."""
        return sum(self.outcomes.values())

    def __str__(self) -> str:
        parts = [f"{count} {status}" for status, count in sorted(self.outcomes.items())]
        if self.restored:
            parts.append(f"{self.restored} of them restored from the cache")
        did = f"{self.ran} run ({', '.join(parts)})" if self.ran else "nothing to do"
        before = f"{self.done_before} there already"
        rest = [f"{count} {status} before" for status, count in sorted(self.standing.items())]
        rest += [f"{self.running} running elsewhere"] if self.running else []
        rest += [f"{self.waiting} without a selection"] if self.waiting else []
        return f"{self.stage}: " + ", ".join([did, before, *rest])


class States:
    """Looks runs up in a store.

    Parameters
    ----------
    store
        The records.
    retry
        Statuses that are to be done again.
    problems
        Data sets that cannot be had, by the name of their prepared file, with the reason.
    """

    def __init__(
        self,
        store: Store,
        retry: frozenset[str] = frozenset(),
        problems: Mapping[str, str] | None = None,
    ) -> None:
        self.store, self.retry, self.problems = store, retry, dict(problems or {})

    def of(self, run: Run) -> State:
        """Where a run stands."""
        return self.select(run) if isinstance(run, SelectRun) else self.evaluate(run)

    def select(self, run: SelectRun) -> State:
        """Where a selection stands."""
        records = self.store.attempts(run.address)
        enough = [record for record in records if ranks_enough(record, run.k)]
        if records and not enough:
            return State("to do", True, f"fewer than {run.k} genes are ranked so far")
        return self._state(run, newest(enough))

    def evaluate(self, run: EvaluateRun) -> State:
        """Where an evaluation stands."""
        select = self.select(run.select)
        if select.record is None or select.record.status != "ok":
            first = f": {select.why.splitlines()[0]}" if select.why else ""
            if select.status in ("skipped", "failed", "timeout", "oom", "no data"):
                return State(select.status, False, f"selection {select.status}{first}")
            return State("waiting", False, f"its selection is not there ({select.status})")
        state = self._state(run, newest(self.store.attempts(run.address)))
        if state.status == "done" and state.record is not None:
            wanted = panel_digest(select.record.result["ranking"], run.k)
            if state.record.result.get("panel") != wanted:
                return State("stale", True, "the panel has changed", state.record)
        return state

    def _state(self, run: Run, record: Record | None) -> State:
        if record is not None and record.status == "ok":
            return State("done", False, "", record)
        if self.store.running(run.address):
            return State("running", False, "another process is at it", record)
        problem = self.problems.get(run.dataset.file) or run.dataset.problem
        if problem:
            return State("no data", False, problem, record)
        if record is None:
            return State("to do", True)
        return State(record.status, record.status in ALWAYS | self.retry, record.reason, record)

    def explain(self, run: Run) -> State:
        """Where a run stands; one that was done under another key is called stale, with why."""
        state = self.of(run)
        if state.status != "to do" or state.why:
            return state
        others = self.store.by_slot(run.dataset.id, run.address.method).get(run.slot, [])
        old = newest(others)
        if old is None:
            return state
        fields = ", ".join(changed_fields(old.identity, run.identity))
        return State("stale", True, f"done before; since then changed: {fields}", old)


def exit_code(states: Iterable[State]) -> int:
    """0 when every run is done, 3 when some are, 1 when none is.

    A run that makes no sense (skipped) does not count, unless there is no other; one whose data
    cannot be had does.
    """
    counts = Counter(state.status for state in states)
    if not counts or counts.keys() == {"done"}:
        return 0
    if not counts["done"]:
        return 1
    return 0 if counts.keys() <= {"done", "skipped"} else 3
