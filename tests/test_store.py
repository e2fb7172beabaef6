"""The record store: many writers, kills at any moment, nothing lost, nothing torn."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panelbench.errors import DataError
from panelbench.records.store import (
    Address,
    Record,
    Store,
    new_attempt,
    newest,
    now,
    write_atomically,
)

PLACE = Address("data", "method", "0" * 32)


def _record(**changes: object) -> Record:
    base = Record(
        stage="select",
        address=PLACE,
        attempt=new_attempt(),
        slot="s",
        status="ok",
        identity={"a": 1},
        result={"ranking": ["g1", "g2"]},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store, record = Store(tmp_path), _record(started=now(), warnings=["w"])
    store.write(record)
    assert Record.from_json(record.to_json()) == store.attempts(PLACE)[0]


def test_newest_ok_wins_else_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = ["20260101T000000", "20260102T000000", "20260103T000000"]
    for name, status in zip(names, ["failed", "ok", "timeout"], strict=True):
        store.write(_record(attempt=name, status=status))
    best = store.newest(PLACE)
    assert best is not None and (best.status, best.attempt) == ("ok", names[1])
    assert newest([_record(attempt=n, status="failed") for n in names]).attempt == names[2]  # type: ignore[union-attr]
    assert newest([]) is None


def test_arrays_come_back_and_pickles_are_refused(tmp_path: Path) -> None:
    store, record = Store(tmp_path), _record()
    store.write(record, {"w": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])})
    found = store.arrays(record)
    assert np.array_equal(found["w"], np.arange(6.0).reshape(2, 3))
    assert found["names"].tolist() == ["a", "b"]
    with pytest.raises(TypeError, match="Python objects"):
        store.write(_record(), {"o": np.array([{}], dtype=object)})


def test_nan_never_gets_into_a_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).write(_record(result={"x": float("nan")}))
    assert not list(tmp_path.rglob("*.json"))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_atomically(tmp_path / "x.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Path, target: Path) -> Path:
        assert self.parent == target.parent and self.read_text() == "whole"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x.json", "whole")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(_record())
    path = store.folder(PLACE) / "rubbish.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"rubbish\.json"):
        store.attempts(PLACE)


def _writer(root: str, count: int) -> None:
    store = Store(Path(root))
    for index in range(count):
        record = _record(result={"ranking": [f"g{index}"] * 2000})
        store.begin(PLACE, record.attempt, 60)
        store.write(record, {"w": np.full(100, index)})


def test_many_writers_lose_nothing_and_readers_see_no_torn_record(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writer, args=(str(tmp_path), 20)) for _ in range(8)]
    for writer in writers:
        writer.start()
    store = Store(tmp_path)
    seen = 0
    while any(writer.is_alive() for writer in writers):
        records = store.attempts(PLACE)
        assert all(len(r.result["ranking"]) == 2000 for r in records if r.status == "ok")
        assert not any(r.status == "lost" for r in records)
        assert len(records) >= seen
        seen = len(records)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    records = store.attempts(PLACE)
    assert len(records) == 160
    assert all(store.arrays(record)["w"].shape == (100,) for record in records)
    assert store.leftovers() == []


def test_a_mark_is_running_while_its_process_lives_and_lost_afterwards(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from panelbench.records.store import *\n"
        "Store(Path(sys.argv[1])).begin(Address('data', 'method', '0' * 32), 'a1', 60)\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"
    store = Store(tmp_path)
    assert store.running(PLACE)
    assert store.attempts(PLACE) == []
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not store.running(PLACE), "a zombie runs nothing"
    child.wait()
    child.stdout.close()
    assert not store.running(PLACE)
    (lost,) = store.attempts(PLACE)
    assert lost.status == "lost" and lost.attempt == "a1"
    assert [path.name for path in store.leftovers()] == ["a1.started"]


def test_a_mark_of_another_machine_counts_until_its_time_is_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.folder(PLACE) / "a1.started"
    mark = {"host": socket.gethostname() + "x", "pid": 1, "born": 0.0, "limit": 10.0}
    write_atomically(path, json.dumps({**mark, "started": now()}))
    assert store.running(PLACE)
    write_atomically(path, json.dumps({**mark, "started": "2020-01-01T00:00:00+00:00"}))
    assert not store.running(PLACE)
    assert store.attempts(PLACE)[0].status == "lost"


def test_attempts_are_unique_and_in_order_of_time() -> None:
    names = [new_attempt() for _ in range(50)]
    time.sleep(0.01)
    assert len(set(names)) == 50
    assert new_attempt() > max(names)
