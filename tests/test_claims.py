"""Claims: one process at a run at a time, and nothing locked by the dead."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panelbench.records import claims
from panelbench.records.claims import CLAIM, Claims, holder
from panelbench.records.status import Status
from panelbench.records.store import Address, Record, Store
from panelbench.records.times import new_attempt

PLACE = Address("data", "method", "0" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Store(tmp_path).folder(PLACE)


def _foreign(folder: Path, attempt: str = "a1", age: float = 0.0) -> Path:
    """A claim of another machine, last renewed some seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": 0.0, "attempt": attempt}))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_run_is_claimed_once_and_free_again_afterwards(folder: Path) -> None:
    first, second = Claims(), Claims()
    assert first.take(folder, "a1")
    assert holder(folder) is not None
    assert not second.take(folder, "a2")
    first.release(folder)
    assert holder(folder) is None and list(folder.iterdir()) == []
    assert second.take(folder, "a2")
    second.close()
    assert list(folder.iterdir()) == []


def test_a_claim_of_another_machine_counts_while_it_is_renewed(folder: Path) -> None:
    _foreign(folder)
    mine = Claims()
    assert not mine.take(folder, "a2")
    _foreign(folder, age=claims.STALE + 5)
    assert holder(folder) is None
    assert mine.take(folder, "a2")
    # The attempt that nobody stands behind any more was lost.
    lost = [r for r in Store(folder.parents[3]).attempts(PLACE) if r.status is Status.LOST]
    assert [record.attempt for record in lost] == ["a1"]
    mine.close()


def test_claims_are_renewed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED", 0.05)
    mine = Claims()
    mine.take(folder, "a1")
    os.utime(folder / CLAIM, (0, 0))
    for _ in range(100):
        if (folder / CLAIM).stat().st_mtime > time.time() - 60:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("nobody renewed the claim")
    mine.close()


def test_the_clock_of_this_machine_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _foreign(folder)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert holder(folder) is not None


def test_a_clock_that_is_set_gives_up_nobody_and_holds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and back by hours, on this machine and on the file server."""
    import psutil

    mine, plain = Claims(), psutil.Process.create_time
    assert mine.take(folder, "a1")
    for hours in (5, -5):
        # The start of a process is told as a time of the day, which moves with the clock.
        shift = 3600.0 * hours
        monkeypatch.setattr(psutil.Process, "create_time", lambda self, s=shift: plain(self) + s)
        os.utime(folder / CLAIM, (time.time() + shift, time.time() + shift))
        assert holder(folder) is not None and mine.holds(folder)
        assert not Claims().take(folder, "a2")
    mine.close()
    # Of another machine, nobody renews it; a time of the future does not keep it.
    _foreign(folder, age=-5 * 3600)
    assert holder(folder) is None
    other = Claims()
    assert other.take(folder, "a3")
    other.close()
    assert [p.name for p in folder.iterdir()] == ["a1.lost"]


def test_a_claim_of_an_earlier_start_of_the_machine_is_stale(folder: Path) -> None:
    mine = Claims()
    assert mine.take(folder, "a1")
    said = json.loads((folder / CLAIM).read_text())
    if not said["boot"]:
        pytest.skip("needs a system that says when it started")
    (folder / CLAIM).write_text(json.dumps({**said, "boot": "another"}))
    assert holder(folder) is None and not mine.holds(folder)
    # One that an older version wrote says the time of the day.
    import psutil

    old = {k: v for k, v in said.items() if k != "boot"} | {"born": psutil.Process().create_time()}
    (folder / CLAIM).write_text(json.dumps(old))
    assert holder(folder) is not None
    mine.close()


def test_a_claim_of_a_killed_process_is_stale_at_once(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from panelbench.records.claims import Claims\n"
        "mine = Claims(); mine.take(Path(sys.argv[1]), 'a1')\n"
        "print('taken', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"taken\n"
    assert holder(folder) is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holder(folder) is None, "a zombie runs nothing"
    child.wait()
    child.stdout.close()
    store = Store(tmp_path)
    (lost,) = store.attempts(PLACE)
    assert (lost.status, lost.attempt) == (Status.LOST, "a1")
    assert [path.name for path in store.leftovers()] == [CLAIM]


def test_traces_of_lost_attempts_go_when_the_run_is_done(folder: Path, tmp_path: Path) -> None:
    _foreign(folder, age=claims.STALE + 5)
    mine, store = Claims(), Store(tmp_path)
    attempt = new_attempt()
    assert mine.take(folder, attempt)
    assert store.leftovers()
    store.write(Record("select", PLACE, attempt, "q", Status.OK))
    mine.close()
    assert store.leftovers() == []
    assert [record.status for record in store.attempts(PLACE)] == [Status.OK]


def test_a_lost_attempt_answers_the_question_of_its_neighbours(
    folder: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    failed = Record("select", PLACE, "a0", "q", Status.FAILED)
    store.write(failed)
    _foreign(folder, age=claims.STALE + 5)
    records = store.attempts(PLACE)
    assert [(r.attempt, r.status, r.question) for r in records] == [
        ("a0", Status.FAILED, "q"),
        ("a1", Status.LOST, "q"),
    ]
    assert failed == records[0]


def test_garbage_in_the_place_of_a_claim_is_in_nobodys_way(folder: Path) -> None:
    path = _foreign(folder)
    outside = '{"host": "h", "pid": 1, "born": 0, "attempt": "../x"}'
    for content in ("", "[]", '{"host": 3}', outside):
        path.write_text(content)
        assert holder(folder) is not None, "it may be a claim that is being written"
        os.utime(path, (0, 0))
        assert holder(folder) is None
    mine = Claims()
    assert mine.take(folder, "a2")
    mine.close()
    assert list(folder.iterdir()) == []


def _grab(root: str, barrier: object, won: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    mine = Claims()
    if mine.take(Path(root), f"a{os.getpid()}"):
        won.put(os.getpid())  # type: ignore[attr-defined]
    barrier.wait()  # type: ignore[attr-defined]
    mine.close()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_the_run(folder: Path, stale: bool) -> None:
    folder.mkdir(parents=True)
    if stale:
        _foreign(folder, age=claims.STALE + 5)
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(6), context.Queue()
    crowd = [context.Process(target=_grab, args=(str(folder), barrier, won)) for _ in range(6)]
    for one in crowd:
        one.start()
    winners = [won.get(timeout=60)]
    for one in crowd:
        one.join()
        assert one.exitcode == 0
    while not won.empty():
        winners.append(won.get())
    assert len(winners) == 1
