"""The read index: what it has is what the records say, whatever happens to it or to them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.records import index
from panelbench.records.claims import Claims
from panelbench.records.index import Snapshot
from panelbench.records.keys import ObjectDigest, digest
from panelbench.records.status import Status
from panelbench.records.store import Address, Record, Store
from panelbench.records.times import new_attempt
from panelbench.report.collect import collect
from panelbench.report.manifest import origin_of
from panelbench.report.results import Results
from panelbench.running.states import States
from panelbench.suite.runs import Plan

KEYS = [f"{number:032x}" for number in range(4)]
PLACE = Address("data", "method", KEYS[0])


def _record(key: str = KEYS[0], **changes: object) -> Record:
    base = Record(
        stage="select",
        address=replace(PLACE, key=key),
        attempt=new_attempt(),
        question=f"q{key}",
        status=Status.OK,
        reason="",
        identity={"a": 1},
        asked={"k": 2, "seed": 0},
        result={"ranking": ["g1", "g2"], "panel": "p"},
        cost={"seconds": 1.5},
        warnings=("w",),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three runs, one of them with two attempts; files are indexed however young they are."""
    monkeypatch.setattr(index, "SETTLED", -60.0)
    store = Store(tmp_path)
    for key in KEYS[:3]:
        store.write(_record(key))
    store.write(_record(KEYS[1], status=Status.FAILED, reason="no\nreason", result={}))
    return store


def _look(store: Store) -> list[Record]:
    """All records, by the index, which is brought up to date."""
    return [record for records in Snapshot(store).runs() for record in records]


def _opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Attempts whose files the next look reads; what it finds is compared with the records."""
    seen: list[str] = []
    plain = Store.read
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read", lambda self, a, n: seen.append(n) or plain(self, a, n))
        found = _look(store)
        opened = list(seen)
        assert found == list(Store(store.root))
    return opened


def test_a_second_look_reads_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(_opened(store, monkeypatch)) == 4
    assert _opened(store, monkeypatch) == []
    first, *_ = _look(store)
    assert dict(first.result) == {"ranking": ["g1", "g2"], "panel": "p"}
    assert (first.cost["seconds"], first.warnings, first.status) == (1.5, ("w",), Status.OK)


def _added(store: Store, path: Path) -> None:
    store.write(_record(KEYS[3]))


def _another_attempt(store: Store, path: Path) -> None:
    store.write(_record(KEYS[0], status=Status.TIMEOUT, reason="late"))


def _deleted(store: Store, path: Path) -> None:
    path.unlink()


def _run_deleted(store: Store, path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _replaced(store: Store, path: Path) -> None:
    other = path.with_name("other")
    other.write_text(path.read_text().replace('"ok"', '"oom"'))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def _replaced_by_one_of_the_same_size_and_time(store: Store, path: Path) -> None:
    stat, other = path.stat(), path.with_name("other")
    other.write_text(path.read_text().replace('"g1"', '"g3"').replace('"w"', '"v"'))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert other.stat().st_size == stat.st_size
    other.replace(path)


def _cut_short(store: Store, path: Path) -> None:
    path.write_text(path.read_text()[:50])


@pytest.mark.parametrize(
    "change",
    [_added, _another_attempt, _deleted, _run_deleted, _replaced, _cut_short,
     _replaced_by_one_of_the_same_size_and_time],
)  # fmt: skip
def test_a_change_of_the_records_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch, change: Callable[[Store, Path], None]
) -> None:
    before = _look(store)
    change(store, next(store.folder(PLACE).glob("*.json")))
    assert len(_opened(store, monkeypatch)) <= 1
    assert _look(store) != before


def _lines(change: Callable[[list[Any]], Any]) -> Callable[[bytes], bytes]:
    """A change of the line of every record: key, file name, stamp, what the index has of it."""

    def changed(text: bytes) -> bytes:
        header, *lines = text.decode().splitlines()
        return "\n".join([header, *(json.dumps(change(json.loads(x))) for x in lines)]).encode()

    return changed


def _briefs(**changes: Any) -> Callable[[bytes], bytes]:
    return _lines(lambda line: [*line[:3], {**line[3], **changes}, line[4]])


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "not text": lambda text: b"\xff\xfe",
    "a list": lambda text: b"[]",
    "of another form": lambda text: text.replace(b'"format": 3', b'"format": 2'),
    "of the first form": lambda text: b'{"format":1,"keys":{}}',
    "only the first line": lambda text: text.splitlines()[0],
    "lines cut short": lambda text: b"\n".join(line[:-9] for line in text.splitlines()),
    "nested too deeply": lambda text: text.replace(b'["0', b'["0' + b"[" * 100_000),
    "lines are numbers": _lines(lambda line: 1),
    "no content": _lines(lambda line: line[:3]),
    "content is a list": _lines(lambda line: [*line[:3], [], line[4]]),
    "content is a number": _lines(lambda line: [*line[:3], 1, line[4]]),
    "names are lists": _lines(lambda line: [line[0], [], *line[2:]]),
    "no such status": _briefs(status="splendid"),
    "asked is a text": _briefs(asked="k"),
    "the result is a number": _briefs(result=1),
    "of other times": _lines(
        lambda line: [*line[:2], [1, 2, 3], {**line[3], "stage": "evaluate"}, line[4]]
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_an_index_that_is_none_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _look(store)
    (path,) = store.root.glob("index/*/*.json")
    path.write_bytes(GARBAGE[name](path.read_bytes()))
    assert len(_opened(store, monkeypatch)) == 4
    assert _opened(store, monkeypatch) == []


@pytest.mark.parametrize(
    "details",
    ["", "no JSON", "[]", "1", '{"leading": 1}', '{"identity": 1}', 7],
)
def test_details_that_are_none_are_read_from_the_records(store: Store, details: Any) -> None:
    before = _look(store)
    (path,) = store.root.glob("index/*/*.json")
    path.write_bytes(_lines(lambda line: [*line[:4], details])(path.read_bytes()))
    for mine, theirs in zip(_look(store), before, strict=True):
        assert dict(mine.identity) == dict(theirs.identity)
        assert dict(mine.cost) == dict(theirs.cost)
        assert mine.result.get("ranking") == theirs.result.get("ranking")


def test_lines_that_are_whole_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _look(store)
    (path,) = store.root.glob("index/*/*.json")
    text = path.read_bytes()
    path.write_bytes(text[: text.rindex(b"[", 0, len(text) - 200)])
    assert 0 < len(_opened(store, monkeypatch)) < 4
    assert _opened(store, monkeypatch) == []


def test_the_first_genes_of_a_ranking_are_known(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = [f"g{number}" for number in range(9)]
    store.write(_record(KEYS[3], result={"ranking": ranking, "scores": [0.5] * 9}))
    _look(store)
    found = Snapshot(store).attempts(replace(PLACE, key=KEYS[3]))[0].result["ranking"]
    with monkeypatch.context() as patch:
        patch.delattr(Store, "read")
        assert (len(found), found[:2], found[1], found[:0]) == (9, ["g0", "g1"], "g1", [])
    for place in (slice(None), slice(3), slice(-7, 2), slice(-8, None), slice(0, 99)):
        assert found[place] == ranking[place], place
    assert (found[2], found[-1], list(found)) == ("g2", "g8", ranking)


@pytest.mark.parametrize(("classes", "opened"), [(index.CLASSES, 0), (index.CLASSES + 1, 1)])
def test_scores_of_few_classes_are_known(
    store: Store, monkeypatch: pytest.MonkeyPatch, classes: int, opened: int
) -> None:
    scores = {f"class {number}": 0.5 for number in range(classes)}
    store.write(_record(KEYS[3], stage="evaluate", result={"per_class_f1": scores}))
    _look(store)
    seen: list[str] = []
    plain = Store.read
    monkeypatch.setattr(Store, "read", lambda self, a, n: seen.append(n) or plain(self, a, n))
    (found,) = Snapshot(store).attempts(replace(PLACE, key=KEYS[3]))
    assert found.result["per_class_f1"] == scores and len(seen) == opened


def test_the_index_may_be_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _look(store)
    (path,) = store.root.glob("index/*/*.json")
    path.unlink()
    path.parent.rmdir()
    assert len(_opened(store, monkeypatch)) == 4


def test_what_a_killed_writer_left_can_be_cleaned(store: Store) -> None:
    _look(store)
    (path,) = store.root.glob("index/*/*.json")
    left = path.with_name(f".{path.name}.0123.tmp")
    left.touch()
    assert store.leftovers() == [left]


def test_where_it_cannot_be_written_it_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "index").write_text("a file in its place")
    assert len(_opened(store, monkeypatch)) == 4
    assert len(_opened(store, monkeypatch)) == 4

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (store.root / "index").unlink()
    monkeypatch.setattr(index, "write_atomically", full)
    assert len(_look(store)) == 4 and not (store.root / "index").exists()


def test_a_file_that_was_just_written_is_not_indexed_yet(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED", 60.0)
    assert len(_opened(store, monkeypatch)) == 4
    assert len(_opened(store, monkeypatch)) == 4


def test_what_is_no_record_is_named_at_every_look(store: Store) -> None:
    path = store.folder(PLACE) / "rubbish.json"
    path.write_text("{")
    for _ in range(2):
        again = Store(store.root)
        assert len(_look(again)) == 4
        assert list(again.unreadable) == [path]


def test_a_part_of_a_record_that_is_gone_is_an_error(store: Store) -> None:
    _look(store)
    first, *_ = _look(store)
    next(store.folder(PLACE).glob("*.json")).unlink()
    with pytest.raises(OSError, match=first.attempt):
        first.identity["a"]
    assert first.result["panel"] == "p"


def test_a_claim_and_a_lost_attempt_are_seen_through_the_index(store: Store) -> None:
    _look(store)
    mine, folder = Claims(), store.folder(PLACE)
    assert mine.take(folder, "a1")
    snapshot = Snapshot(store)
    snapshot.attempts(PLACE), snapshot.attempts(replace(PLACE, key=KEYS[1]))
    assert not snapshot.free(PLACE) and snapshot.free(replace(PLACE, key=KEYS[1]))
    mine.release(folder)
    (folder / "20000101T000000.lost").touch()
    assert [r.status for r in Snapshot(store).attempts(PLACE)] == [Status.LOST, Status.OK]


def test_a_look_at_some_runs_keeps_what_the_index_has_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _look(store)
    store.write(_record(KEYS[0], status=Status.OOM))
    with Snapshot(store) as snapshot:
        assert len(snapshot.attempts(PLACE)) == 2
        assert snapshot.attempts(replace(PLACE, key="f" * 32)) == []
    assert _opened(store, monkeypatch) == []


def test_a_few_runs_are_looked_up_in_the_records(store: Store) -> None:
    with Snapshot(store, runs=3) as snapshot:
        assert snapshot.attempts(PLACE) == store.attempts(PLACE)
    assert not (store.root / "index").exists()


def _write_many(root: str) -> None:
    for number in range(30):
        Store(Path(root)).write(_record(f"{number:032x}"))


def _look_many(root: str) -> None:
    index.SETTLED = -60.0
    for _ in range(10):
        for record in _look(Store(Path(root))):
            assert record.result.get("ranking", ["g1", "g2"]) == ["g1", "g2"]


def test_many_look_while_many_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    work = [_write_many, _look_many] * 3
    processes = [context.Process(target=each, args=(str(store.root),)) for each in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    _opened(store, monkeypatch)
    assert len(_look(store)) == 4 + 3 * 30 and _opened(store, monkeypatch) == []
    assert {path.name for path in store.root.glob("index/*/*")} == {"method.json"}


# -- what is looked up through it ----------------------------------------------------------


def _filled(store: Store, plan: Plan) -> None:
    for number, run in enumerate((*plan.selections, *plan.evaluations)):
        status = [Status.OK, Status.FAILED, Status.OK][number % 3]
        result = {
            "ranking": [f"g{i}" for i in range(8)], "metrics": {"f1_macro": 0.5}, "info": {},
            "genes_read": 8, "panel_size": 8, "notes": [], "confusion": [[1, 0], [0, 1]],
        }  # fmt: skip
        record = _record(
            stage=run.stage, address=run.address, question=run.question_digest, status=status,
            asked=run.asked, result=result if status is Status.OK else {}, reason="no",
            identity=run.identity,
        )  # fmt: skip
        if number % 7:
            store.write(record)


def _bare(results: Results) -> list[str]:
    """Lines of scores without what is read from files."""
    return [repr(replace(line, details={})) for line in results.scores]


def test_states_and_lines_are_the_same_with_and_without_an_index(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED", -60.0)
    store, plan = Store(tmp_path), planned()
    _filled(store, plan)
    runs = [*plan.selections, *plan.evaluations]
    plain = [States(store).explain(run) for run in runs]
    lines = collect(plan, store)
    monkeypatch.setattr(index, "MANY", 0)
    for _ in range(2):
        with States(store).one_look(len(runs)) as states:
            found = [states.explain(run) for run in runs]
        assert [(s.status, s.due, s.why) for s in found] == [
            (s.status, s.due, s.why) for s in plain
        ]
        assert [s.record and s.record.attempt for s in found] == [
            s.record and s.record.attempt for s in plain
        ]
        again = collect(plan, store)
        assert repr(again.selections) == repr(lines.selections)
        assert _bare(again) == _bare(lines)
        assert [line.details for line in again.scores] == [line.details for line in lines.scores]
    assert len({state.status for state in plain}) > 3


def test_a_report_reads_files_for_classes_alone(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED", -60.0)
    store, plan = Store(tmp_path), planned()
    _filled(store, plan)
    first = collect(plan, store)
    with monkeypatch.context() as patch:
        patch.delattr(Store, "read")
        again = collect(plan, store)
    assert _bare(again) == _bare(first) and again.stale == 0
    done = next(line for line in again.scores if line.status == "ok")
    assert done.confusion == [[1, 0], [0, 1]]


def test_a_record_that_was_changed_or_lost_its_arrays_makes_another_report(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, plan = Store(tmp_path), planned()
    _filled(store, plan)
    run = next(run for run in plan.evaluations if store.attempts(run.address))
    path = next(store.folder(run.address).glob("*.json"))
    origins = []
    for change in (
        lambda: path.with_suffix(".npz").touch(),
        lambda: path.with_suffix(".npz").unlink(),
        lambda: path.write_text(path.read_text().replace("0.5", "0.25")),
    ):
        origins.append(origin_of(collect(plan, store), None))
        assert origin_of(collect(plan, store), None) == origins[-1]
        change()
    origins.append(origin_of(collect(plan, store), None))
    assert len(set(origins)) == 3 and origins[0] == origins[2]


def test_what_is_there_under_another_key_is_found_when_nothing_else_is(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, plan = Store(tmp_path), planned()
    run = plan.selections[0]
    whole = {"address": run.address, "question": run.question_digest, "identity": run.identity}
    mine = _record(**whole, result={"ranking": [f"g{i}" for i in range(run.k)], "info": {}})
    store.write(replace(mine, address=replace(run.address, key="f" * 32), attempt="2"))
    found = collect(plan, store)
    assert (found.stale, found.selections[0].key, found.selections[0].status) == (1, "f" * 32, "ok")
    store.write(replace(mine, attempt="1", status=Status.FAILED, result={}))
    found = collect(plan, store)
    assert (found.stale, found.selections[0].key) == (0, run.key)


def test_keys_are_the_digests_of_identities(planned: Callable[..., Plan]) -> None:
    plan = planned()
    for run in (*plan.selections, *plan.evaluations):
        assert run.key == digest(run.identity)
        assert run.question.identity().items() <= run.identity.items()
    for run in plan.evaluations:
        asked = {**run.question.identity(), "select": None, "fold": None}
        assert run.question_digest == digest([run.select.question_digest, asked])


def test_what_is_written_once_has_the_same_digest() -> None:
    like: dict[str, Any] = {"b": {"x": [1.5, None]}, "c": "", "a": "", "d": "ü\0"}
    made = ObjectDigest(like, ("c", "a"))
    for a, c in (("", ""), ('"', "\0"), ("ä", "c")):
        assert made(a, c) == digest({**like, "a": a, "c": c})
