"""Runs in their processes: how they end, what they record, what is said of them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panelbench.data.specs import DatasetSpec
from panelbench.errors import Fault, MethodError, NotApplicable
from panelbench.records.cache import Entry, StageCache
from panelbench.records.status import Status
from panelbench.records.store import Address, Store
from panelbench.registry import discover
from panelbench.running import child, processes, supervisor, worker
from panelbench.running.jobs import (
    Attempt,
    Done,
    Exited,
    Order,
    PrepareJob,
    Resources,
    RunJob,
    Started,
    decode_reply,
)
from panelbench.running.progress import Reporter
from panelbench.running.supervisor import Worker
from panelbench.stages.fold import fit_fold
from panelbench.stages.questions import SelectQuestion
from panelbench.stages.toolbox import Toolbox
from tests.lab import Lab, selected

# -- how a run ends ------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no room"), Status.OOM),
        (OutOfMemoryError("CUDA"), Status.OOM),
        (NotApplicable("not for this"), Status.SKIPPED),
        (Fault("the file is gone"), Status.FAULT),
        (OSError(28, "No space left on device"), Status.FAULT),
        (OSError(2, "No such file"), Status.FAILED),
        (MethodError("rubbish"), Status.FAILED),
        (IndexError("out of range"), Status.FAILED),
        (SystemExit(3), Status.FAILED),
    ],
)
def test_an_exception_has_a_status(error: BaseException, status: Status) -> None:
    found, reason = child.classify(error)
    assert found is status and str(error).split("]")[-1].strip() in reason


def test_a_process_that_ends_without_a_word_has_a_status(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("last words")
    ends = {
        Exited(-signal.SIGKILL, memory_ran_out=True): (Status.OOM, "ran out of memory"),
        Exited(-signal.SIGKILL): (Status.FAULT, "killed from outside"),
        Exited(-signal.SIGSEGV): (Status.FAILED, "SIGSEGV\nlast words"),
        Exited(3): (Status.FAILED, "exit code 3"),
    }
    for exited, (status, said) in ends.items():
        found, reason = supervisor._crash(exited, log)
        assert found is status and said in reason


@pytest.mark.parametrize(
    ("held", "time_limit", "status"),
    [(99, None, Status.OOM), (0, 0.0, Status.TIMEOUT), (0, 60.0, Status.FAULT)],
)
def test_what_is_stopped_at_a_limit_says_so_and_not_that_it_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    time_limit: float | None,
    status: Status,
) -> None:
    monkeypatch.setattr(processes, "memory_held", lambda pid, limit: held)
    stopped: list[int] = []
    monkeypatch.setattr(processes, "stop_descendants", stopped.append)
    one = Worker(1)
    one._process = SimpleNamespace(pid=7, poll=lambda: None)  # type: ignore[assignment]
    said: Iterator[list[Any]] = iter([[Started(8)], [], [], [Exited(-signal.SIGKILL)]])
    monkeypatch.setattr(one, "_replies", lambda: next(said))
    monkeypatch.setattr(supervisor, "_stuck", lambda child, over: None)
    job = replace(_job(tmp_path), resources=Resources(1, "cpu", time_limit, 10))
    outcome = one._watch(job, lambda fraction, message: None, tmp_path / "log")
    assert outcome.status is status
    assert stopped == ([] if status is Status.FAULT else [7])


def test_memory_is_that_of_the_family_shared_pages_by_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = [SimpleNamespace(full=70, share=30), SimpleNamespace(full=50, share=20)]
    monkeypatch.setattr(processes, "descendants", lambda pid: family)
    monkeypatch.setattr(processes, "_resident", lambda process: process.full)
    monkeypatch.setattr(processes, "_proportional", lambda process: process.share)
    assert processes.memory_held(1, limit=200) == 120, "the cheap sum will do"
    assert processes.memory_held(1, limit=100) == 50, "the exact one where it matters"
    assert supervisor._over(1, 5.0, None, 49) is not None
    assert supervisor._over(1, 5.0, None, 50) is None


# -- in the process of a run ---------------------------------------------------------------


def _job(results: Path, **changes: Any) -> RunJob:
    given: dict[str, Any] = {
        "question": SelectQuestion("fold", "spy", {}, (), 5, 1),
        "place": Attempt("own", "spy", "k" * 8, "a2"),
        "stage": "select",
        "question_digest": "q",
        "identity": {"source": "s"},
        "asked": {"k": 5},
        "spec": DatasetSpec(id="own", title="own", reader="h5ad"),
        "prepared": results / "own.h5ad",
        "results": results,
        "cache": results / "cache",
        "cache_key": "key-5",
        "resources": Resources(2, "cpu", None, None),
    }
    return RunJob(**(given | changes))


def _do(lab: Lab, results: Path, job: RunJob) -> Any:
    order = Order(job, results / "scratch", results / "log")
    return child.do_run(order, job, [lab.cells.copy()], lambda reply: None)


def _select_job(lab: Lab, results: Path, **changes: Any) -> RunJob:
    source = discover([lab.methods]).source_digest("spy")
    given = {"question": lab.select(), "spec": lab.spec, "methods_dirs": (lab.methods,),
             "identity": {"source": source}}  # fmt: skip
    return _job(results, **(given | changes))


def test_a_run_writes_its_record_where_it_was_told_to(lab: Lab, tmp_path: Path) -> None:
    job = _select_job(lab, tmp_path)
    done = _do(lab, tmp_path, job)
    assert (done.status, done.recorded, done.cached) == (Status.OK, True, False), done
    (record,) = Store(tmp_path)
    assert (record.address, record.attempt) == (Address("own", "spy", "k" * 8), "a2")
    assert record.result["ranking"][0] == "g39" and record.question == "q"
    assert Store(tmp_path).arrays(record)["mark"].tolist() == [0.0]
    assert record.outside["from_cache"] is False and record.started < record.ended


def test_the_cache_answers_for_the_same_key_only(lab: Lab, tmp_path: Path) -> None:
    place = Attempt("own", "spy", "k" * 8, "a3")
    _do(lab, tmp_path, _select_job(lab, tmp_path))
    again = _do(lab, tmp_path, _select_job(lab, tmp_path, place=place))
    other = _do(lab, tmp_path, _select_job(lab, tmp_path, place=place, cache_key="key-9"))
    assert (again.cached, other.cached) == (True, False)


def test_a_run_of_other_code_than_was_planned_is_no_result(lab: Lab, tmp_path: Path) -> None:
    done = _do(lab, tmp_path, _select_job(lab, tmp_path, identity={"source": "of yesterday"}))
    assert done.status is Status.FAULT and "method spy was changed" in done.reason
    stage = {"panelbench.stages.selection": "of yesterday"}
    done = _do(lab, tmp_path, _select_job(lab, tmp_path, code=stage))
    assert done.status is Status.FAULT and "stages.selection was changed" in done.reason


def test_an_evaluation_reads_the_attempt_that_it_is_told_to(lab: Lab, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for attempt, mark in (("a1", 1.0), ("a2", 2.0), ("a3", 3.0)):
        record = selected(attempt, genes=int(mark) + 3)
        store.write(replace(record, address=Address("own", "spy", "s")), {"mark": np.array([mark])})
    wanted = Attempt("own", "spy", "s", "a2")
    job = _job(tmp_path, question=lab.evaluate(), selection=wanted)
    tools = child._toolbox(Order(job, tmp_path, tmp_path), job, [], lambda reply: None)
    assert tools.selection is not None and tools.selection.attempt == "a2"
    assert tools.arrays()["mark"].tolist() == [2.0]
    gone = replace(job, selection=replace(wanted, attempt="a9"))
    with pytest.raises(Fault, match="not there any more"):
        child._toolbox(Order(gone, tmp_path, tmp_path), gone, [], lambda reply: None)


def test_preparing_fits_the_folds_that_are_missing(lab: Lab, tmp_path: Path) -> None:
    job = PrepareJob(
        lab.spec, tmp_path / "p.h5ad", tmp_path / "facts.json", tmp_path / "cache",
        tmp_path / "downloads", (), {"one": 1, "four": 4},
    )  # fmt: skip
    first = child.do_prepare(job, [], lambda reply: None)
    assert (first.status, first.cached) == (Status.OK, False), first
    assert json.loads(job.facts.read_text())["cells"] == 120
    assert child.do_prepare(job, [], lambda reply: None).cached
    tools = Toolbox(lab.spec, [], job.cache)
    assert np.array_equal(tools.fold("one", 1).test, lab.fold.test)
    assert np.array_equal(tools.fold("four", 4).test, fit_fold(lab.cells, lab.spec, 4).test)
    # The matrix is made again when it is gone, whatever the cache says.
    job.prepared.unlink()
    assert not child.do_prepare(job, [], lambda reply: None).cached and job.prepared.exists()


def test_prepared_data_that_cannot_be_read_are_not_held(lab: Lab, tmp_path: Path) -> None:
    held, path = worker._Held(), tmp_path / "p.h5ad"
    path.write_bytes(lab.prepared.read_bytes()[:3000])
    held.read(path)
    assert held.problem and not held.cells
    path.write_bytes(lab.prepared.read_bytes())
    held.read(path)
    assert not held.problem and held.cells[0].n_obs == 120


def test_a_torn_entry_of_the_cache_is_made_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    cache.get("s", "k", lambda: Entry({"made": 1}))
    assert ("s", "k") in cache and cache.get("s", "k", lambda: Entry({"made": 2})).facts[
        "made"
    ] == 1
    (path,) = tmp_path.rglob("output.npz")
    path.write_bytes(path.read_bytes()[:40])
    assert ("s", "k") not in cache
    assert cache.get("s", "k", lambda: Entry({"made": 3})).facts["made"] == 3
    assert cache.get("s", "k", lambda: Entry({"made": 4})).facts["made"] == 3


def test_a_child_tells_that_the_data_are_damaged(tmp_path: Path) -> None:
    held, order = worker._Held(), Order(_job(tmp_path), tmp_path, tmp_path / "log")
    held.read(tmp_path / "there is no such file")
    reading, writing = os.pipe()
    pid, me = 0, os.getpid()
    pid = os.fork()
    if not pid:
        try:
            worker._child(order, held, writing, me)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        started, done = [decode_reply(line) for line in pipe.read().splitlines()]
    assert started == Started(pid)
    assert isinstance(done, Done) and (done.status, done.damaged) == (Status.FAULT, True)


# -- progress ------------------------------------------------------------------------------


def test_a_log_gets_a_line_for_each_run() -> None:
    stream = io.StringIO()
    with Reporter("select", 3, stream) as reporter:
        reporter.update("one", 0.5, "half way")
        reporter.done("one", Status.OK, 1.25)
        reporter.done("two", Status.FAILED, 2.0, "ValueError: sad\nTraceback")
        reporter.done("three", Status.OK, 0.0, cached=True)
    assert stream.getvalue().splitlines() == [
        "[1/3] one: ok, 1.2 s",
        "[2/3] two: failed (ValueError: sad), 2.0 s",
        "[3/3] three: restored, 0.0 s",
    ]


def test_a_terminal_gets_bars_and_lines_of_what_went_wrong() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Reporter("evaluate", 2, stream) as reporter:
        reporter.update("one [b]", 0.5, "epoch [3]")
        assert reporter._bars is not None
        assert [task.description for task in reporter._bars.tasks] == [
            "evaluate", "  one [b] epoch [3]",
        ]  # fmt: skip
        reporter.done("one [b]", Status.OK, 1.0)
        reporter.done("two [b]", Status.TIMEOUT, 3.0, "too long")
        (whole,) = reporter._bars.tasks
        assert (whole.completed, whole.total) == (2, 2)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "[2/2] two [b]: timeout (too long), 3.0 s" in said
    assert "[1/2]" not in said


def test_nothing_is_said_where_nothing_is_to_do_or_nobody_listens() -> None:
    stream = io.StringIO()
    for total, quiet in ((0, False), (1, True)):
        with Reporter("select", total, stream, quiet=quiet) as reporter:
            reporter.done("one", Status.OK, 1.0)
    assert stream.getvalue() == ""
