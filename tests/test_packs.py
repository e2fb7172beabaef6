"""Packed records: read like others, back byte for byte, and nothing lost at any moment."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.records import claims, index
from panelbench.records.claims import Claims
from panelbench.records.index import Snapshot
from panelbench.records.packing import PackError, pack, unpack
from panelbench.records.status import Status
from panelbench.records.store import Address, Record, Store
from panelbench.records.times import new_attempt
from tests.tools import Bench

KEYS = [f"{number:032x}" for number in range(4)]
PLACE = Address("data", "method", KEYS[0])


def _record(key: str = KEYS[0], **changes: object) -> Record:
    base = Record("select", replace(PLACE, key=key), new_attempt(), f"q{key}", Status.OK,
                  identity={"a": 1}, result={"ranking": ["g1", "g2"]})  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three runs, one with arrays, one with a failure before."""
    store = Store(tmp_path)
    store.write(_record(KEYS[0]), {"w": np.arange(500.0)})
    store.write(_record(KEYS[1], status=Status.FAILED, reason="no", result={}))
    store.write(_record(KEYS[1]))
    store.write(_record(KEYS[2], status=Status.TIMEOUT, result={}))
    for number, path in enumerate(sorted(store.runs.rglob("*.*"))):
        os.utime(path, (1.6e9 + number, 1.6e9 + number))
    return store


def _files(store: Store) -> dict[str, tuple[bytes, int]]:
    """Loose files below the results, with what is in them and their times in seconds."""
    return {
        path.relative_to(store.root).as_posix(): (path.read_bytes(), int(path.stat().st_mtime))
        for path in store.runs.rglob("*") if path.is_file()
    }  # fmt: skip


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _archive(store: Store) -> Path:
    return store.root / "packs" / "all.zip"


def test_what_is_packed_reads_as_before_and_comes_back_byte_for_byte(store: Store) -> None:
    before, files = list(store), _files(store)
    packed = pack(store, "all", before)
    assert (packed.files, packed.bytes) == (5, sum(len(text) for text, _ in files.values()))
    assert not store.runs.exists() and _names(store.packs.folder) == ["all.zip"]
    for found in (store, Store(store.root)):
        assert list(found) == before and found.unreadable == {}
        assert found.newest(replace(PLACE, key=KEYS[1])) == before[2]
        assert found.arrays(before[0])["w"].tolist() == list(range(500))
        assert [a.key for a in found.addresses("0" * 31 + "1")] == [KEYS[1]]
    unpack(store, packed.archive)
    assert _files(store) == files and not packed.archive.parent.exists()
    assert list(store) == list(Store(store.root)) == before


def test_any_zip_program_reads_it(store: Store, tmp_path: Path) -> None:
    files = _files(store)
    pack(store, "all", store)
    with zipfile.ZipFile(_archive(store)) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == {
            name: text for name, (text, _) in files.items()
        }


def test_records_that_come_later_count_by_the_same_rule(store: Store) -> None:
    pack(store, "all", store)
    late = _record(KEYS[0])
    store.write(replace(late, status=Status.FAILED))
    assert store.newest(PLACE).status is Status.OK  # type: ignore[union-attr]
    newer = _record(KEYS[0])
    store.write(newer)
    new_run = _record(KEYS[3])
    store.write(new_run)
    assert store.newest(PLACE) == newer and len(store.attempts(PLACE)) == 3
    assert len(list(store)) == 7
    before = list(store)
    assert pack(store, "all", store).files == 3, "what is packed already is not packed again"
    assert list(Store(store.root)) == before and not store.runs.exists()
    assert pack(store, "all", store).files == 0


def test_only_some_are_packed_and_both_are_read(store: Store) -> None:
    before = list(store)
    pack(store, "one", [r for r in before if r.address.key == KEYS[1]])
    pack(store, "two", [r for r in before if r.address.key == KEYS[0]])
    assert list(store) == before
    assert sorted(path.name for path in store.runs.glob("*/*/*")) == [KEYS[2]]


def test_the_index_knows_what_is_packed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SETTLED", -60.0)

    def look() -> list[Record]:
        return [record for records in Snapshot(store).runs() for record in records]

    before = list(store)
    pack(store, "all", store)
    assert look() == before
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("it is read again"))
    assert [record.attempt for record in look()] == [record.attempt for record in before]


def test_nothing_under_way_is_packed(store: Store) -> None:
    mine, folder = Claims(), store.folder(PLACE)
    assert mine.take(folder, "a2")
    # A record that is none, and arrays whose record is not there yet, stay too.
    (folder / "rubbish.json").write_text("{")
    half = store.folder(replace(PLACE, key=KEYS[3])) / "a3.npz"
    half.parent.mkdir()
    half.touch()
    pack(store, "all", store)
    assert sorted(path.name for path in store.runs.glob("*/*/*")) == [KEYS[0], KEYS[3]]
    assert len(_names(folder)) == 4 and half.exists()
    mine.close()
    pack(store, "all", store)
    assert _names(folder) == ["rubbish.json"]


def test_two_at_once_and_one_after_a_crash(store: Store) -> None:
    other = Claims()
    assert other.take(store.packs.folder, "a1")
    with pytest.raises(PackError, match="another process packs or unpacks"):
        pack(store, "all", store)
    with pytest.raises(PackError, match="another process packs or unpacks"):
        unpack(store, _archive(store))
    other.close()
    files = _files(store)
    # What a killed one left is no hindrance, and is removed.
    store.packs.folder.mkdir(exist_ok=True)
    dead = claims.Holder(socket.gethostname(), 2**22 + 1, 0.0, "a0")
    (store.packs.folder / "claim").write_text(json.dumps(claims.asdict(dead)))
    (store.packs.folder / ".all.zip.0123.tmp").touch()
    assert len(store.leftovers()) == 2
    assert pack(store, "all", store).files == len(files)
    assert _names(store.packs.folder) == ["all.zip"]


def test_who_slept_too_long_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _files(store)
    monkeypatch.setattr(Claims, "holds", lambda self, folder: False)
    with pytest.raises(PackError, match="took over"):
        pack(store, "all", store)
    assert _files(store) == files and not _archive(store).exists()


def _killed(store: Store, what: str, count: int) -> int:
    """Pack or unpack in a process that ends at once before its n-th change; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def step(plain: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **more: Any) -> Any:
            nonlocal changes
            changes += 1
            return os._exit(9) if changes == count else plain(*args, **more)

        return done

    try:
        for name in ("fsync", "sync", "utime"):
            setattr(os, name, step(getattr(os, name)))
        for name in ("unlink", "rmdir", "replace"):
            setattr(Path, name, step(getattr(Path, name)))
        again = Store(store.root)
        pack(again, "all", list(again)) if what == "pack" else unpack(again, _archive(again))
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("what", ["pack", "unpack"])
def test_a_kill_at_any_moment_loses_nothing(store: Store, what: str) -> None:
    """Before each step that changes something, one after the other, on what the last one left."""
    before, files = list(store), _files(store)
    if what == "unpack":
        pack(store, "all", store)
    killed = 0
    for step in range(1, 60):
        code = _killed(store, what, step)
        again = Store(store.root)
        assert list(again) == before, step
        assert again.arrays(before[0])["w"].shape == (500,), step
        if code == 0:
            break
        assert code == 9
        killed += 1
    assert killed > 5
    if what == "pack":
        assert not store.runs.exists()
        unpack(store, _archive(store))
    # What a killed one was writing is no record, and can be cleaned.
    for path in store.leftovers():
        path.unlink()
    assert _files(store) == files


def test_a_full_disk_leaves_all_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _files(store)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        pack(store, "all", store)
    assert _files(store) == files and not store.packs.folder.exists()


def test_what_is_not_read_back_is_not_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _files(store)
    plain = zipfile.ZipFile.writestr

    def worse(self: zipfile.ZipFile, info: zipfile.ZipInfo, content: bytes) -> None:
        plain(self, info, content[:-1] + b"?")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", worse)
    with pytest.raises(PackError, match="not read back"):
        pack(store, "all", store)
    assert _files(store) == files and not _archive(store).exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _flip(path: Path) -> None:
    """Change a byte of the first record."""
    data = bytearray(path.read_bytes())
    data[data.index(b"runs/") + 200] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip])
def test_a_damaged_archive_is_named_and_the_others_go_on(store: Store, damage: object) -> None:
    before = list(store)
    pack(store, "all", [r for r in before if r.address.key != KEYS[2]])
    damage(_archive(store))  # type: ignore[operator]
    store = Store(store.root)
    found = list(store)
    assert found[-1] == before[-1]
    said = {**store.unreadable, **store.packs.contents.problems}
    assert len(said) == 1 and "damaged archive" in next(iter(said.values()))
    size = _archive(store).stat().st_size
    for call in (lambda: pack(store, "all", store), lambda: unpack(store, _archive(store))):
        with pytest.raises((PackError, OSError), match="damaged archive"):
            call()
    assert _archive(store).stat().st_size == size and store.attempts(before[-1].address)


def test_a_file_that_is_another_than_the_packed_one_stops_it(store: Store) -> None:
    path = next(store.folder(PLACE).glob("*.json"))
    text = path.read_text()
    pack(store, "all", store)
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("g1", "g3"))
    for call in (lambda: pack(store, "all", store), lambda: unpack(store, _archive(store))):
        with pytest.raises(PackError, match="one of the two is damaged"):
            call()
    assert path.exists() and _archive(store).exists()


def test_what_is_no_record_is_not_unpacked(store: Store) -> None:
    pack(store, "all", store)
    for name in ("runs/data/../../../../x.json", "readme"):
        with zipfile.ZipFile(_archive(store), "a") as archive:
            archive.writestr(name, "{}")
        with pytest.raises(PackError, match="is no file of a record"):
            unpack(store, _archive(store))
        assert not store.runs.exists()


def test_whoever_looks_while_others_pack_misses_nothing(store: Store) -> None:
    """Packed and unpacked between the two looks of a reader, whichever comes first."""
    before = list(store)
    plain = os.scandir
    done: list[str] = []
    where = store.root / "packs"

    def scandir(path: object) -> object:
        try:
            return plain(path)  # type: ignore[call-overload]
        finally:
            act(str(path))

    def act(path: str) -> None:
        if path.endswith(KEYS[0]) and not done:
            done.append("packed")
            pack(Store(store.root), "all", before)
        elif path.endswith(KEYS[1]) and len(done) == 1:
            done.append("unpacked")
            unpack(Store(store.root), where / "all.zip")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert list(store) == before
        done.clear()
        assert [r for rs in Snapshot(store).runs() for r in rs] == before
    assert len(done) == 2


@pytest.mark.slow
def test_commands_go_on_with_what_is_packed(bench: Bench) -> None:
    """A selection with its predictor is packed: nothing is done again, and it can be scored."""
    bench.add_predictor("predicts")
    call = bench.own("--method", "predicts", "--method", "random", "--k", "4", "--seed", "0",
                     "--evaluator", "knn")  # fmt: skip
    # A shard makes no report.
    assert bench.call("run", *call, "--shard", "0/1").code == 0
    assert bench.call_here("report", *call).code == 0
    files = {path: path.read_bytes() for path in bench.results.rglob("runs/**/*.*")}
    assert any(path.suffix == ".npz" for path in files)
    listed = bench.call_here("list", "runs", "--output", "json").json
    (report,) = bench.results.glob("reports/*")
    # The manifest names the files of the records, to notice when one is another.
    files_of = [path for path in report.rglob("*.*") if path.name != "manifest.json"]
    shown = {path: path.read_bytes() for path in files_of}
    said = bench.call_here("pack")
    assert said.code == 0 and f"packed {len(files)} files" in said.out
    assert not (bench.results / "runs").exists()
    assert bench.call_here("list", "runs", "--output", "json").json == listed
    assert bench.call_here("report", *call).code == 0
    assert {path: path.read_bytes() for path in shown} == shown
    again = bench.call("run", *call, "--evaluator", "builtin", "--shard", "0/1")
    assert again.code == 0, again.err
    assert "select: nothing to do, 2 there already" in again.err
    assert "1 run (1 ok), 2 there already" in again.err
    assert {path.suffix for path in bench.results.rglob("runs/**/*.*")} == {".json"}
    refused = bench.call_here("clean", "runs", "--method", "random", "--yes")
    assert refused.code == 2 and "unpack" in refused.err
    assert bench.call_here("unpack").code == 0
    assert {path: path.read_bytes() for path in files} == files
    assert bench.call_here("unpack").code == 2


def test_a_suite_is_packed_by_its_name(bench: Bench) -> None:
    store = Store(bench.results)
    from panelbench.api import plan_for
    from panelbench.running.settings import Settings
    from panelbench.suite.request import Request

    plan = plan_for(Request(suite="demo"), Settings(bench.results, bench.folder / "cache"))
    run = plan.selections[0]
    other_code = replace(run.address, key=KEYS[3])
    for place, question in ((run.address, run.question_digest), (other_code, run.question_digest),
                            (PLACE, "another")):  # fmt: skip
        store.write(_record(question=question, address=place))
    assert "packed 2 files" in bench.call_here("pack", "--suite", "demo").out
    assert _names(store.packs.folder) == ["demo.zip"]
    assert [path.parent.name for path in bench.records()] == [KEYS[0]]
    assert len(list(store)) == 3
    assert "unpacked 2 files" in bench.call_here("unpack", "--suite", "demo").out
    assert len(bench.records()) == 3
