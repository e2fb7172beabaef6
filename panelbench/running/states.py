"""Where the runs of a plan stand: done, to do, stale, running, or how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from panelbench.records import claims
from panelbench.records.bulk import many_objects
from panelbench.records.index import Snapshot
from panelbench.records.keys import changed_fields
from panelbench.records.status import Status
from panelbench.records.store import Record, Store, newest, ranks_enough
from panelbench.stages.panel import panel_digest, panel_of
from panelbench.suite.runs import EvaluateRun, Run, SelectRun


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes
    ----------
    status
        A status of its newest record, or ``done``, ``running``, ``to do``, ``stale`` (done before
        with other code, versions or data), ``no data`` or ``waiting`` (its selection is not
        there).
    due
        Whether the next command will do it.
    why
        Reason, in words.
    record
        The record that counts, if there is one.
    inherited
        The reason is that of its selection.
    """

    status: Status
    due: bool
    why: str = ""
    record: Record | None = None
    inherited: bool = False


@dataclass
class StageSummary:
    """What a stage did."""

    stage: str
    done_before: int = 0
    outcomes: Counter[Status] = field(default_factory=Counter)
    restored: int = 0
    running: int = 0
    waiting: int = 0
    standing: Counter[Status] = field(default_factory=Counter)

    @property
    def ran(self) -> int:
        """Number of runs that this call did."""
        return sum(self.outcomes.values())

    def count(self, state: State) -> None:
        """Count a run that is not done now."""
        if state.status is Status.DONE:
            self.done_before += 1
        elif state.status is Status.RUNNING:
            self.running += 1
        elif state.status is Status.WAITING:
            self.waiting += 1
        else:
            self.standing[state.status] += 1

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
        Data sets that are not available, by the name of their prepared file, with the reason.
    snapshot
        For one look at many runs: what is there is looked up in it, each selection that is done
        once.
    """

    def __init__(
        self,
        store: Store,
        retry: frozenset[str] = frozenset(),
        problems: Mapping[str, str] | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.store, self.retry, self.problems = store, retry, dict(problems or {})
        self.snapshot = snapshot
        self._records = snapshot or store
        self.unrecorded: dict[str, State] = {}
        """Runs of this call whose end could not be written down, by key."""
        self._selected: dict[str, State] = {}

    @contextmanager
    def one_look(self, runs: int) -> Iterator[States]:
        """The same for one look at about so many runs."""
        with many_objects(), Snapshot(self.store, runs) as snapshot:
            states = States(self.store, self.retry, self.problems, snapshot)
            states.unrecorded = self.unrecorded
            yield states

    def of(self, run: Run, *, claimed: bool = False) -> State:
        """Where a run stands; `claimed` says that this process holds it."""
        if isinstance(run, SelectRun):
            return self.select(run, claimed=claimed)
        return self.evaluate(run, claimed=claimed)

    def select(self, run: SelectRun, *, claimed: bool = False) -> State:
        """Where a selection stands."""
        if self.snapshot is None:
            return self._look_up(run, claimed)
        known = self._selected.get(run.key)
        if known is not None and known.record is not None and ranks_enough(known.record, run.k):
            return known
        state = self._look_up(run, claimed)
        if state.status is Status.DONE:
            self._selected[run.key] = state
        return state

    def _look_up(self, run: SelectRun, claimed: bool) -> State:
        records = self._records.attempts(run.address)
        enough = [record for record in records if ranks_enough(record, run.k)]
        if records and not enough and not self._elsewhere(run, claimed):
            return State(Status.TO_DO, True, f"fewer than {run.k} genes are ranked so far")
        return self._state(run, newest(enough), claimed)

    def evaluate(self, run: EvaluateRun, *, claimed: bool = False) -> State:
        """Where an evaluation stands."""
        select = self.select(run.select)
        if select.record is None or select.record.status is not Status.OK:
            first = f": {select.why.splitlines()[0]}" if select.why else ""
            ended = select.status.recorded or select.status is Status.NO_DATA
            if ended and not select.due:
                why = f"selection {select.status}{first}"
                return State(select.status, False, why, inherited=True)
            why = f"its selection is not there ({select.status})"
            return State(Status.WAITING, False, why, inherited=True)
        state = self._state(run, newest(self._records.attempts(run.address)), claimed)
        score = state.record
        if (
            state.status is Status.DONE
            and score is not None
            and not _same_panel(score, select.record, run.k)
        ):
            return State(Status.STALE, True, "the panel has changed", score)
        return state

    def _elsewhere(self, run: Run, claimed: bool) -> bool:
        if claimed or (self.snapshot is not None and self.snapshot.free(run.address)):
            return False
        return claims.holder(self.store.folder(run.address)) is not None

    def _state(self, run: Run, record: Record | None, claimed: bool) -> State:
        if record is not None and record.status is Status.OK:
            return State(Status.DONE, False, "", record)
        if self._elsewhere(run, claimed):
            return State(Status.RUNNING, False, "another process is at it", record)
        problem = self.problems.get(run.dataset.file) or run.dataset.problem
        if problem:
            return State(Status.NO_DATA, False, problem, record)
        if run.key in self.unrecorded:
            return self.unrecorded[run.key]
        if record is None:
            return State(Status.TO_DO, True)
        due = record.status.redone or record.status in self.retry
        return State(record.status, due, record.reason, record)

    def explain(self, run: Run) -> State:
        """Where a run stands; one that was done under another key is called stale, with why."""
        state = self.of(run)
        if state.status is not Status.TO_DO or state.why:
            return state
        snapshot = self.snapshot or Snapshot(self.store)
        others = snapshot.by_question(run.dataset.id, run.address.method)
        old = newest(others.get(run.question_digest, []))
        if old is None:
            return state
        fields = ", ".join(changed_fields(old.identity, run.identity))
        return State(Status.STALE, True, f"done before; since then changed: {fields}", old)


def _same_panel(score: Record, selection: Record, k: int | None) -> bool:
    """Whether a score is of the panel that a selection gives."""
    # A record is never changed: a score of this very attempt is of its panel.
    if score.result.get("selection") == selection.attempt:
        return True
    return bool(score.result.get("panel") == panel_digest(panel_of(selection.result, k)))
