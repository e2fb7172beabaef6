"""Where runs stand and what is done about it, with a worker that does as the test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.records.claims import Claims, holder
from panelbench.records.index import Snapshot
from panelbench.records.status import Status
from panelbench.records.store import Record, Store
from panelbench.running.executor import Executor
from panelbench.running.jobs import (
    Attempt,
    PrepareJob,
)
from panelbench.running.settings import Settings
from panelbench.running.states import States
from panelbench.running.supervisor import Outcome
from panelbench.stages.panel import panel_digest
from panelbench.suite.request import Request
from panelbench.suite.runs import EvaluateRun, Plan, SelectRun
from tests.lab import SUITE

# -- where runs stand ----------------------------------------------------------------------


def _write(store: Store, run: SelectRun | EvaluateRun, attempt: str, **changes: Any) -> Record:
    ranking = [f"g{i}" for i in range(8)]
    result: dict[str, Any] = {"ranking": ranking}
    if isinstance(run, EvaluateRun):
        result = {"metrics": {}, "panel": panel_digest(ranking[: run.k])}
    given: dict[str, Any] = {
        "stage": run.stage, "address": run.address, "attempt": attempt,
        "question": run.question_digest, "status": Status.OK, "identity": dict(run.identity),
        "asked": run.asked, "result": result,
    }  # fmt: skip
    record = Record(**(given | changes))
    store.write(record)
    return record


def _runs(plan: Plan, method: str = "nested") -> tuple[SelectRun, EvaluateRun]:
    select = next(run for run in plan.selections if run.method == method)
    return select, next(run for run in plan.evaluations if run.select is select)


def test_a_score_of_another_panel_is_stale(planned: Callable[..., Plan], tmp_path: Path) -> None:
    store, (select, evaluate) = Store(tmp_path), _runs(planned())
    states = States(store)
    assert states.of(evaluate).status is Status.WAITING
    _write(store, select, "a1")
    assert (states.of(select).status, states.of(evaluate).due) == (Status.DONE, True)
    _write(store, evaluate, "a1")
    assert (states.of(evaluate).status, states.of(evaluate).due) == (Status.DONE, False)
    _write(store, select, "a2", result={"ranking": [f"g{i}" for i in range(8)][::-1]})
    state = states.of(evaluate)
    assert (state.status, state.due, state.why) == (Status.STALE, True, "the panel has changed")


def test_one_look_reads_a_selection_once(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (select, evaluate) = Store(tmp_path), _runs(planned())
    _write(store, select, "a1")
    states, seen = States(store, snapshot=Snapshot(store)), []
    plain = Snapshot.attempts
    monkeypatch.setattr(Snapshot, "attempts", lambda self, a: seen.append(a) or plain(self, a))
    assert [states.of(run).status for run in (select, evaluate, evaluate)] == [
        Status.DONE, Status.TO_DO, Status.TO_DO,
    ]  # fmt: skip
    assert seen.count(select.address) == 1


def test_failures_stand_until_they_are_to_be_retried(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, evaluate) = Store(tmp_path), _runs(planned())
    _write(store, select, "a1", status=Status.TIMEOUT, reason="too long", result={})
    for retry, due in ((frozenset(), False), ({"failed"}, False), ({"timeout"}, True)):
        states = States(store, frozenset(retry))
        assert (states.of(select).status, states.of(select).due) == (Status.TIMEOUT, due)
        inherited = states.of(evaluate)
        assert inherited.status is (Status.WAITING if due else Status.TIMEOUT)
        assert not inherited.due and inherited.inherited
    # What the machine did to a run is done again without being asked.
    _write(store, select, "a2", status=Status.FAULT, reason="disk full", result={})
    assert States(store).of(select).due
    # One that went well counts, whatever came after it.
    _write(store, select, "a3")
    _write(store, select, "a4", status=Status.FAILED, result={})
    assert States(store, frozenset({"failed"})).of(select).status is Status.DONE


def test_a_shorter_ranking_answers_for_fewer_genes_only(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    _write(store, select, "a1", asked={**select.asked, "k": 4}, result={"ranking": list("abcd")})
    state = States(store).of(select)
    assert (state.status, state.due) == (Status.TO_DO, True) and "fewer than 8" in state.why
    fewer = replace(select, question=replace(select.question, k=4))
    assert States(store).of(fewer).status is Status.DONE


def test_the_newest_of_stale_records_says_what_changed(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    for attempt, key, changes in (
        ("20260101", "a", {"version": 0, "source": "x"}),
        ("20260103", "b", {"source": "x"}),
        ("20260102", "c", {"libraries": {}}),
    ):
        _write(store, select, attempt, address=replace(select.address, key=key),
               identity={**select.identity, **changes})  # fmt: skip
    state = States(store).explain(select)
    assert (state.status, state.due) == (Status.STALE, True)
    assert state.why == "done before; since then changed: source"
    assert state.record is not None and state.record.attempt == "20260103"


def test_a_run_of_another_process_is_left_to_it(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    claims = Claims()
    claims.take(store.folder(select.address), "a1")
    assert States(store).of(select).status is Status.RUNNING
    assert States(store).select(select, claimed=True).due
    claims.close()
    assert States(store).of(select).status is Status.TO_DO
    problems = {select.dataset.file: "the source is gone"}
    state = States(store, problems=problems).of(select)
    assert (state.status, state.due, state.why) == (Status.NO_DATA, False, "the source is gone")


# -- what is done --------------------------------------------------------------------------


class Fake:
    """Stands for a worker: remembers its jobs, and ends them as the test says."""

    def __init__(self, *outcomes: Outcome, does: Callable[[Any], None] = lambda job: None) -> None:
        self.outcomes, self.does = list(outcomes), does
        self.jobs: list[Any] = []

    def run(self, job: Any, progress: Any) -> Outcome:
        self.jobs.append(job)
        self.does(job)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    def close(self) -> None: ...


def _executor(tmp_path: Path, fake: Fake, **settings: Any) -> Executor:
    given = {"results": tmp_path / "results", "cache": tmp_path / "cache", "jobs": 1, "quiet": True}
    executor = Executor(Settings(**(given | settings)))
    executor._all.append(fake)  # type: ignore[arg-type]
    executor._workers.put(fake)  # type: ignore[arg-type]
    return executor


OK = Outcome(Status.OK, recorded=True)


def test_jobs_say_what_their_runs_ask(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan, fake = planned(seeds=[1]), Fake(OK)
    executor = _executor(tmp_path, fake, device="cpu", methods_dirs=(tmp_path,))
    executor.select(plan)
    jobs = {(job.question.method, job.question.k): job for job in fake.jobs}
    assert len(fake.jobs) == len(jobs) == len(plan.selections)
    for run in plan.selections:
        job = jobs[run.method, run.k]
        assert job.question == run.question and job.identity == run.identity
        assert job.place.address == run.address and job.question_digest == run.question_digest
        assert job.asked == run.asked and job.spec == run.dataset.spec
        assert job.cache_key == f"{run.key}-{run.k}", "a longer ranking is another entry"
        assert job.prepared == tmp_path / "cache" / "prepared" / f"{run.dataset.file}.h5ad"
        assert job.code == {"panelbench.stages.selection": run.identity["code"]}
        assert job.methods_dirs == (tmp_path,) and job.resources.device == "cpu"
    exact = jobs["exact", 4].resources
    assert (exact.time_limit, exact.memory_limit) == (7 * 60, 2 * 1024**3), "as declared"
    assert len({job.place.attempt for job in fake.jobs}) == len(fake.jobs)
    limited = _executor(tmp_path / "other", again := Fake(OK), time_limit=5.0, memory_limit=9)
    limited.select(plan)
    assert {(j.resources.time_limit, j.resources.memory_limit) for j in again.jobs} == {(5.0, 9)}


def test_an_evaluation_is_of_the_newest_selection(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan, fake = planned(evaluators=["rf"]), Fake(OK)
    executor = _executor(tmp_path, fake)
    select, evaluate = _runs(plan)
    for attempt in ("a1", "a3", "a2"):
        _write(executor.store, select, attempt)
    executor.evaluate(replace(plan, evaluations=(evaluate,)))
    (job,) = fake.jobs
    assert job.question == evaluate.question and job.place.address == evaluate.address
    place = select.address
    assert job.selection == Attempt(place.dataset, place.method, place.key, "a3")
    panel = panel_digest([f"g{i}" for i in range(8)][: evaluate.k])
    assert job.cache_key == f"{evaluate.key}-{panel}"
    own = replace(evaluate, declared=replace(evaluate.declared, reads="predictor"))
    assert executor._evaluate_job(own, "a9").cache_key == f"{evaluate.key}-a3"


def test_a_run_that_could_not_write_its_record_is_recorded(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    fake = Fake(Outcome(Status.OOM, "too much", seconds=2.0))
    executor = _executor(tmp_path, fake)
    (run,) = plan.selections
    folder, held = executor.store.folder(run.address), []
    fake.does = lambda job: held.append(holder(folder))
    summary = executor.select(plan)
    assert summary.outcomes == {Status.OOM: 1}
    (record,) = executor.store.attempts(run.address)
    assert (record.status, record.reason) == (Status.OOM, "too much")
    assert record.attempt == fake.jobs[0].place.attempt
    assert record.identity == run.identity and record.asked == run.asked
    # The run was claimed while it went on, and is free again.
    assert held[0] is not None and held[0].attempt == record.attempt
    assert holder(folder) is None
    # It stands, until it is to be done again.
    assert executor.select(plan).ran == 0 and len(fake.jobs) == 1
    retry = _executor(tmp_path, again := Fake(OK), retry=frozenset({"oom"}))
    retry.select(plan)
    assert len(again.jobs) == 1


def test_damaged_data_are_made_again_and_the_run_is_done(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[1], evaluators=[])
    damaged = Outcome(Status.FAULT, "cannot be read", damaged=True)
    fake = Fake(damaged, Outcome(Status.OK), OK)
    executor = _executor(tmp_path, fake)
    assert executor.select(plan).outcomes == {Status.OK: 1}
    first, prepare, second = fake.jobs
    (run,) = plan.selections
    assert isinstance(prepare, PrepareJob) and first == second
    assert prepare.folds == {run.dataset.fold_key(1): 1} and prepare.prepared == first.prepared


def test_a_damaged_file_is_made_again_once(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(methods=["nested"], seeds=[1, 2], evaluators=[])
    fake = Fake(Outcome(Status.FAULT, "cut short"), Outcome(Status.OK))
    executor = _executor(tmp_path, fake)
    path = executor.prepared(plan.datasets[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    assert executor.preprocess(plan).outcomes == {Status.OK: 1}
    assert len(fake.jobs) == 2 and not path.exists()
    (dataset,) = plan.datasets
    assert fake.jobs[0].folds == {dataset.fold_key(1): 1, dataset.fold_key(2): 2}


def test_a_failure_overwrites_no_facts(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(seeds=[0])
    executor = _executor(tmp_path, Fake(Outcome(Status.NO_DATA, "the source is gone")))
    path = executor.facts(plan.datasets[0])
    executor.preprocess(plan)
    assert json.loads(path.read_text()) == {"problem": "the source is gone"}
    assert executor.states.problems == {plan.datasets[0].file: "the source is gone"}
    path.write_text('{"cells": 3}')
    executor.preprocess(plan)
    assert json.loads(path.read_text()) == {"cells": 3}


def test_runs_that_were_done_meanwhile_are_not_done_again(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(OK))
    first, second = plan.selections

    def other_process(job: Any) -> None:
        for run in (first, second):
            _write(executor.store, run, "a1")

    fake.does = other_process
    summary = executor.select(plan)
    assert len(fake.jobs) == 1 and (summary.ran, summary.done_before) == (1, 1)
    mine = _executor(tmp_path / "elsewhere", fake := Fake(OK))
    claims = Claims()
    claims.take(mine.store.folder(first.address), "a1")
    summary = mine.select(plan)
    claims.close()
    assert len(fake.jobs) == 1 and (summary.ran, summary.running) == (1, 1)


def test_a_run_that_ends_while_it_is_claimed_is_not_done_again(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(OK))
    (run,) = plan.selections
    take = executor._claims.take

    def late(folder: Path, attempt: str) -> bool:
        _write(executor.store, run, "a1")
        return take(folder, attempt)

    monkeypatch.setattr(executor._claims, "take", late)
    summary = executor.select(plan)
    assert not fake.jobs and (summary.ran, summary.done_before) == (0, 1)


def test_an_attempt_comes_after_those_before_it(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    """After a clock that was hours ahead: a failure is the newest, and stands."""
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(Outcome(Status.FAILED, "no")))
    (run,) = plan.selections
    folder = executor.store.folder(run.address)
    folder.mkdir(parents=True)
    (folder / "20990101T000000.000000Z-host-1-00000000.lost").touch()
    for _ in range(2):
        executor.select(plan)
    assert len(fake.jobs) == 1 and executor.states.of(run).status is Status.FAILED


def test_a_record_is_written_once(planned: Callable[..., Plan], tmp_path: Path) -> None:
    """Whatever a worker says of its end: the record of the run itself stays."""
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(Outcome(Status.FAULT, "the worker was silent")))
    (run,) = plan.selections
    fake.does = lambda job: _write(executor.store, run, job.place.attempt) and None
    executor.select(plan)
    (record,) = executor.store.attempts(run.address)
    assert record.status is Status.OK


def test_limits_that_are_asked_for_go_before_those_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panelbench import api
    from panelbench.running.needs import need_of

    class Stop(Exception): ...

    def stopped(settings: Settings) -> None:
        found.append(settings)
        raise Stop

    found: list[Settings] = []
    monkeypatch.setattr(api, "Executor", stopped)
    suite = {**SUITE, "datasets": ["pbmc68k-reduced"], "methods": ["random"],
             "limits": {"time": "1m", "memory": "1G"}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(suite))
    request = Request(suite=str(tmp_path / "s.yaml"))
    for limits in ({}, {"time_limit": 5.0, "memory_limit": 7}):
        settings = Settings(tmp_path, tmp_path, **limits)  # type: ignore[arg-type]
        with pytest.raises(Stop):
            api.perform(request, settings)
    run = api.plan_for(request, settings).selections[0]
    needs = [need_of(run, settings) for settings in found]
    assert [(need.time, need.memory) for need in needs] == [(60.0, 1024**3), (5.0, 7)]
