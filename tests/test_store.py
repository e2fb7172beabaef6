"""The record store: many writers, kills at any moment, nothing lost, nothing torn."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panelbench.records.files import write_atomically
from panelbench.records.status import Status
from panelbench.records.store import (
    Address,
    Record,
    Store,
    newest,
    ranks_enough,
)
from panelbench.records.times import new_attempt, now

PLACE = Address("data", "method", "0" * 32)


def _record(**changes: object) -> Record:
    base = Record(
        stage="select",
        address=PLACE,
        attempt=new_attempt(),
        question="s",
        status=Status.OK,
        identity={"a": 1},
        result={"ranking": ["g1", "g2"]},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store, record = Store(tmp_path), _record(started=now(), warnings=("w",))
    store.write(record)
    assert store.attempts(PLACE) == [record]


def test_newest_ok_wins_else_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = ["20260101T000000", "20260102T000000", "20260103T000000"]
    for name, status in zip(names, [Status.FAILED, Status.OK, Status.TIMEOUT], strict=True):
        store.write(_record(attempt=name, status=status))
    best = store.newest(PLACE)
    assert best is not None and (best.status, best.attempt) == ("ok", names[1])
    assert newest([_record(attempt=n, status=Status.FAILED) for n in names]).attempt == names[2]  # type: ignore[union-attr]
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


RUBBISH = {
    "cut short": "{",
    "a list": "[]",
    "another shape": '{"status": "ok", "identity": []}',
    "no such status": '{"status": "splendid", "stage": "select", "question": "q"}',
    "nested too deeply": "[" * 100_000,
    "not text": "\udcff",
}


@pytest.mark.parametrize("name", RUBBISH)
def test_a_foreign_file_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    store, record = Store(tmp_path), _record()
    store.write(record)
    path = store.folder(PLACE) / "rubbish.json"
    path.write_bytes(RUBBISH[name].encode(errors="surrogateescape"))
    assert store.attempts(PLACE) == [record]
    assert list(store.unreadable) == [path] and store.unreadable[path]


def test_a_record_belongs_where_it_lies_whatever_it_says(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    victim = tmp_path / "victim" / "k" / "a.json"
    victim.parent.mkdir(parents=True)
    victim.write_text("{}")
    record = _record()
    path = store.write(record)
    said = {"dataset": "..", "method": "..", "key": "../../victim/k"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "address": said, "attempt": "a"}))
    (read,) = store.attempts(PLACE)
    assert (read.address, read.attempt) == (PLACE, record.attempt)
    store.delete(read)
    assert victim.exists() and not path.exists()


def _writer(root: str, count: int) -> None:
    store = Store(Path(root))
    for index in range(count):
        record = _record(result={"ranking": [f"g{index}"] * 2000})
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
        assert all(len(r.result["ranking"]) == 2000 for r in records if r.status is Status.OK)
        assert not any(r.status is Status.LOST for r in records)
        assert len(records) >= seen
        seen = len(records)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    records = store.attempts(PLACE)
    assert len(records) == 160
    assert all(store.arrays(record)["w"].shape == (100,) for record in records)
    assert store.leftovers() == []


def test_attempts_are_unique_and_in_order_of_time() -> None:
    names = [new_attempt() for _ in range(50)]
    time.sleep(0.01)
    assert len(set(names)) == 50
    assert new_attempt() > max(names)


def test_attempts_of_a_run_are_in_order_though_the_clock_is_set_back(tmp_path: Path) -> None:
    """Else a lost attempt of the future would be the newest for hours: done again and again."""
    store, ahead = Store(tmp_path), "20990101T000000.000000Z-other-1-00000000"
    store.folder(PLACE).mkdir(parents=True)
    (store.folder(PLACE) / f"{ahead}.lost").touch()
    last = store.newest(PLACE)
    assert last is not None and last.status is Status.LOST
    for status in (Status.FAILED, Status.TIMEOUT):
        late = _record(attempt=new_attempt(store.files(PLACE)), status=status)
        store.write(late)
        assert store.newest(PLACE) == late
    assert late.attempt.startswith("20990101T000000.000002Z-")
    odd = ["claim", "x.json", "99991231T235959.999999Z-h-1-0.json", "20261399T000000.0Z-h-1.json"]
    assert new_attempt(odd) < "2099" and new_attempt(["20000101T000000.000000Z-h"]) > "2026"


def test_an_uncut_panel_has_no_size_to_compare() -> None:
    assert ranks_enough(_record(asked={"k": None}), 0)
    assert not ranks_enough(_record(asked={"k": 2}, result={"ranking": ["a", "b"]}), 3)
    assert ranks_enough(_record(asked={"k": 2}, result={"ranking": ["a", "b", "c"]}), 3)
