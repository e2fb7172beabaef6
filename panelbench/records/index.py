"""A read index: what planning, listing and a report need of many records, without reading each.

``<results>/index/<data set>/<method>.json`` holds a line of JSON for every record: its run and
file name, its size and times, and the little that is needed, in the record's own form. Lines are
parsed when their run is asked for. A reader still looks at the run's folder and at every file's
size and times, and reads what the index does not have or has otherwise: the index is never trusted
over the records. It may be deleted at any time; where it cannot be written (a folder of others, a
full disk) it is not.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from panelbench.records import claims
from panelbench.records.files import write_atomically
from panelbench.records.lazy import Details, Unread
from panelbench.records.store import Address, Record, Store, assembled

FOLDER = "index"
"""Folder of the index below the results folder."""
FORMAT = 3
MANY = 2000
"""Runs from which on the index is worth reading; a few are looked up as fast in the records."""
SETTLED = 5.0
"""Seconds for which a file is not indexed: its times could not tell two of its contents apart."""

CLASSES = 30
"""Classes up to which the index has the F1 of each."""

_HEAD = ("stage", "question", "status", "reason", "asked", "warnings", "started", "ended")
"""What the index has of every record for those that plan and list."""
_OF_RESULT = ("panel", "selection")
"""What of a result tells whether an evaluation is about the panel that there is now."""
_DETAILS: dict[str, tuple[str, ...]] = {
    "result": ("panel_size", "genes_read", "metrics", "per_class_f1", "notes", "info"),
    "identity": ("source",),
    "outside": (),
    "environment": (),
}
"""What it has of the large parts for a report; the rest is read when it is asked for."""
_DETAILS_OF_SELECTION = {**_DETAILS, "environment": ("host", "versions")}

_Entry = tuple[list[int], dict[str, Any], str, str]
"""Size and times of a file, head and details of its record, and the line that says so."""


class Snapshot:
    """The records of a store at one look; parts of them are read when they are asked for.

    Use it for many runs at once, and a new one for the next look. At the end of a ``with`` block
    the index is brought up to date, and that of a place when it is left.

    Parameters
    ----------
    store
        The records.
    runs
        About how many runs are looked up.
    """

    def __init__(self, store: Store, runs: int = MANY) -> None:
        self.store = store
        self._indexed = runs >= MANY
        self._places: dict[tuple[str, str], _Place] = {}
        self._grouped: tuple[tuple[str, str], dict[str, list[Record]]] | None = None
        self._last: Record | None = None

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for place in self._places.values():
                place.save()

    def attempts(self, address: Address) -> list[Record]:
        """All records of a run, oldest first, as `Store.attempts`."""
        if not self._indexed:
            return self.store.attempts(address)
        found = self._place(address.dataset, address.method).attempts(address)
        # All of hundreds of thousands would take gigabytes.
        return [self._slim(record) for record in found]

    def by_question(self, dataset: str, method: str) -> dict[str, list[Record]]:
        """All records of a method on a data set, grouped by what was asked for.

        They are kept until another place is asked for: ask for one place after the other.
        """
        where = dataset, method
        if self._grouped is None or self._grouped[0] != where:
            if self._grouped is not None:
                self.leave(*self._grouped[0])
            groups: dict[str, list[Record]] = {}
            for records in self._place(dataset, method).runs():
                for record in records:
                    groups.setdefault(record.question, []).append(record)
            self._grouped = where, groups
        return self._grouped[1]

    def leave(self, dataset: str, method: str) -> None:
        """Forget the records of a method on a data set; the next look at them is a new one."""
        place = self._places.pop((dataset, method), None)
        if place is not None:
            place.save()
        if self._grouped is not None and self._grouped[0] == (dataset, method):
            self._grouped = None

    def version(self, record: Record) -> str:
        """What is another text when what is known of a record is other; "" for one without a file.

        Times of files do not count: they change when records are copied or packed. Only while the
        place of the record has not been left.
        """
        place = self._places.get((record.address.dataset, record.address.method))
        found = place and place.files.get((record.address.key, record.attempt))
        if not found:
            return ""
        size, line, arrays = found
        return f"{size} {zlib.crc32(line.partition('],')[2].encode())} {arrays}"

    def free(self, address: Address) -> bool:
        """Whether no process can be at a run: there was no claim in its folder."""
        place = self._places.get((address.dataset, address.method))
        return place is not None and address.key not in place.claimed

    def runs(self) -> Iterator[list[Record]]:
        """The records of every run that has any, in the order of the folders' names."""
        for dataset, method in self.store.places():
            place = _Place(self, dataset, method)
            yield from place.runs()
            place.save()

    def _read(self, address: Address, attempt: str) -> Record:
        last = self._last
        if last is None or last.attempt != attempt or last.address != address:
            try:
                self._last = last = self.store.read(address, attempt)
            except ValueError as error:
                raise OSError(f"{attempt}.json: {error}") from error
        return last

    def known(
        self, head: dict[str, Any], details: str | dict[str, Any], address: Address, attempt: str
    ) -> Record:
        """The record of which the index has so much."""
        if not isinstance(head.get("result", {}), dict):
            raise ValueError("a result that is none")
        more = Details(details, partial(self._read, address, attempt))
        parts = {name: Unread(more, name) for name in ("cost", *_DETAILS)}
        parts["result"] = Unread(more, "result", head.get("result"))
        return Record.of(head, address, attempt, parts)

    def _slim(self, record: Record) -> Record:
        # What stands for a lost attempt has no file.
        if isinstance(record.identity, Unread) or not record.identity:
            return record
        return self.known(_head(record), _details(record), record.address, record.attempt)

    def _place(self, dataset: str, method: str) -> _Place:
        where = dataset, method
        if where not in self._places:
            self._places[where] = _Place(self, dataset, method)
        return self._places[where]


class _Place:
    """The records of one method on one data set, with what the index has of them.

    Attributes
    ----------
    keys
        Runs that have a folder.
    claimed
        Runs whose folder had a claim when it was looked at, or was not looked at.
    files
        Size of the files that were looked at, their lines, and whether arrays lie beside them, by
        key and attempt.
    """

    def __init__(self, snapshot: Snapshot, dataset: str, method: str) -> None:
        self._snapshot, self._store = snapshot, snapshot.store
        self._where = dataset, method
        self._path = self._store.root / FOLDER / dataset / f"{method}.json"
        self.keys = self._store.keys(dataset, method)
        self.claimed = set(self.keys)
        self.files: dict[tuple[str, str], tuple[int, str, bool]] = {}
        self._known = _read(self._path)
        self._seen: dict[str, list[str]] = {}
        self._changed = False
        self._young = time.time() - SETTLED

    def runs(self) -> Iterator[list[Record]]:
        """The records of every run, in the order of the folders' names."""
        for key in sorted(self.keys):
            records = self.attempts(Address(*self._where, key))
            if records:
                yield records

    def attempts(self, address: Address) -> list[Record]:
        """All records of a run, oldest first."""
        key = address.key
        if key not in self.keys:
            return []
        files = self._store.files(address)
        if claims.CLAIM not in files:
            self.claimed.discard(key)
        lines = self._known.get(key, ())
        known = _entries(lines)
        seen: list[str] = []

        def read(attempt: str) -> Record | None:
            name = f"{attempt}.json"
            try:
                stat = files[name].stat()
            except OSError:
                # It is gone, or was packed at this moment.
                return self._store.attempt(address, attempt)
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = known.get(name)
            record = self._indexed(entry, stamp, address, attempt)
            if record is not None and entry is not None:
                line = entry[3]
                seen.append(line)
            else:
                record = self._store.attempt(address, attempt)
                if record is None:
                    return None
                line = _line(key, name, stamp, record)
                if max(stamp[1:]) < self._young * 1e9:
                    seen.append(line)
                    self._changed = True
            self.files[key, attempt] = stat.st_size, line, f"{attempt}.npz" in files
            return record

        records = assembled(self._store.folder, address, files, read)
        self._changed |= len(seen) < len(lines)
        self._seen[key] = seen
        return records

    def _indexed(
        self, entry: _Entry | None, stamp: list[int], address: Address, attempt: str
    ) -> Record | None:
        """What the index has of a record; None when that is nothing, garbage or out of date."""
        if entry is None or entry[0] != stamp:
            return None
        try:
            return self._snapshot.known(entry[1], entry[2], address, attempt)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None

    def save(self) -> None:
        """Replace the index of the place when there is something new in it."""
        if not self._changed:
            return
        found = [self._seen.get(key, self._known.get(key, [])) for key in sorted(self.keys)]
        text = "\n".join([_HEADER, *(line for lines in found for line in lines), ""])
        # Several that look at once each write their own; the last one stays, and all are right.
        with suppress(OSError):
            write_atomically(self._path, text, durable=False)
        self._changed = False


_HEADER = json.dumps({"format": FORMAT})


def _read(path: Path) -> dict[str, list[str]]:
    """Lines of an index file by the run that they are about; {} for whatever is none."""
    found: dict[str, list[str]] = {}
    try:
        header, *lines = path.read_text("utf-8").split("\n")
    except (OSError, ValueError):
        return {}
    for line in lines if header == _HEADER else ():
        # A line begins with the key: ["0123...","...
        key = line[2 : line.find('"', 2)]
        found.setdefault(key, []).append(line)
    return found


def _line(key: str, name: str, stamp: list[int], record: Record) -> str:
    """The line of a record; its details are a text in it, which is parsed by whoever asks."""
    return _text([key, name, stamp, _head(record), _text(_details(record))])


def _text(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), check_circular=False)


def _entries(lines: Iterable[str]) -> dict[str, _Entry]:
    """What lines say, by the names of the files; what is no such line is left out."""
    found: dict[str, _Entry] = {}
    for line in lines:
        with suppress(ValueError, TypeError, RecursionError):
            _, name, stamp, head, details = json.loads(line)
            found[name] = stamp, head, details, line
    return found


def _head(record: Record) -> dict[str, Any]:
    """What planning and listing need of a record, what is empty left out."""
    found = {name: getattr(record, name) for name in _HEAD} | {"warnings": list(record.warnings)}
    found["result"] = {name: record.result[name] for name in _OF_RESULT if name in record.result}
    return {name: value for name, value in found.items() if value}


def _details(record: Record) -> dict[str, Any]:
    """What a report needs beside."""
    found: dict[str, Any] = {"cost": dict(record.cost)}
    of = _DETAILS_OF_SELECTION if record.stage == "select" else _DETAILS
    by_class = record.result.get("per_class_f1")
    large = {"per_class_f1"} if isinstance(by_class, dict) and len(by_class) > CLASSES else set()
    for part, names in of.items():
        whole = getattr(record, part)
        known = {name: whole[name] for name in names if name in whole and name not in large}
        # A part that is empty is known to be so.
        if known or not whole:
            found[part] = known
    ranking = record.result.get("ranking")
    if isinstance(ranking, list):
        found["leading"] = ranking[: _asked_size(record)], len(ranking)
    return found


def _asked_size(record: Record) -> int:
    """Genes that a selection was asked for: those of its ranking that are shown."""
    k = record.asked.get("k")
    return k if isinstance(k, int) else 0
