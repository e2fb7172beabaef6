"""A read index: what tells where a run stands, of many records, without reading each.

``<results>/index/<data set>/<method>.json`` holds of every record its size and times and, in the
record's own form, the little that planning and listing need. A reader still looks at every folder
and at every file's size and times, and reads what the index does not have or has otherwise: the
index is never trusted over the records. It may be deleted at any time; where it cannot be written
(a folder of others, a full disk) it is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from panelbench.records import claims
from panelbench.records.files import write_atomically
from panelbench.records.store import Address, Record, Store, assembled

FOLDER = "index"
"""Folder of the index below the results folder."""
FORMAT = 1
MANY = 2000
"""Runs from which on the index is worth reading; a few are looked up as fast in the records."""
SETTLED = 5.0
"""Seconds for which a file is not indexed: its times could not tell two of its contents apart."""

_PLAIN = ("stage", "question", "status", "reason", "asked", "warnings", "started", "ended")
_UNREAD = ("identity", "cost", "outside", "environment")
_OF_RESULT = ("panel", "selection")
"""What of a result tells whether an evaluation is about the panel that there is now."""

_Entry = list[Any]
"""Stamp of a file and what the index has of its record."""


class Unread(Mapping[str, Any]):
    """A part of a record, read from the record's file when it is asked for."""

    __slots__ = ("_head", "_part", "_read")

    def __init__(
        self, read: Callable[[], Record], part: str, head: Mapping[str, Any] | None = None
    ) -> None:
        self._read, self._part, self._head = read, part, head or {}

    def __getitem__(self, name: str) -> Any:
        return self._head[name] if name in self._head else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = getattr(self._read(), self._part)
        return found


class Snapshot:
    """The records of a store at one look; parts of them are read when they are asked for.

    Use it for many runs at once, and a new one for the next look. At the end of a ``with`` block
    the index is brought up to date.

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
            if self._grouped is not None and self._grouped[0] in self._places:
                self._places.pop(self._grouped[0]).save()
            groups: dict[str, list[Record]] = {}
            for records in self._place(dataset, method).runs():
                for record in records:
                    groups.setdefault(record.question, []).append(record)
            self._grouped = where, groups
        return self._grouped[1]

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

    def whole(self, record: Record) -> Record:
        """A record with all its parts, read from its file if it is known from the index.

        Raises
        ------
        OSError
            When it cannot be read any more.
        """
        if not isinstance(record.result, Unread):
            return record
        return self._read(record.address, record.attempt)

    def _read(self, address: Address, attempt: str) -> Record:
        last = self._last
        if last is None or last.attempt != attempt or last.address != address:
            try:
                self._last = last = self.store.read(address, attempt)
            except ValueError as error:
                raise OSError(f"{attempt}.json: {error}") from error
        return last

    def known(self, brief: dict[str, Any], address: Address, attempt: str) -> Record:
        """The record of which the index has so much."""
        read = partial(self._read, address, attempt)
        unread = {part: Unread(read, part) for part in _UNREAD}
        unread["result"] = Unread(read, "result", brief.get("result"))
        return Record.of(brief, address, attempt, unread)

    def _slim(self, record: Record) -> Record:
        # What stands for a lost attempt has no file.
        if isinstance(record.result, Unread) or not record.identity:
            return record
        return self.known(_brief(record), record.address, record.attempt)

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
    """

    def __init__(self, snapshot: Snapshot, dataset: str, method: str) -> None:
        self._snapshot, self._store = snapshot, snapshot.store
        self._where = dataset, method
        self._path = self._store.root / FOLDER / dataset / f"{method}.json"
        self.keys = self._store.keys(dataset, method)
        self.claimed = set(self.keys)
        self._known = _read(self._path)
        self._seen: dict[str, dict[str, _Entry]] = {}
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
        known = self._known.get(key)
        known = known if isinstance(known, dict) else {}
        seen: dict[str, _Entry] = {}

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
                seen[name] = entry
                return record
            record = self._store.attempt(address, attempt)
            if record is not None and max(stamp[1:]) < self._young * 1e9:
                seen[name] = [stamp, _brief(record)]
                self._changed = True
            return record

        records = assembled(self._store.folder, address, files, read)
        self._changed |= len(seen) < len(known)
        self._seen[key] = seen
        return records

    def _indexed(
        self, entry: Any, stamp: list[int], address: Address, attempt: str
    ) -> Record | None:
        """What the index has of a record; None when that is nothing, garbage or out of date."""
        try:
            if entry is None or entry[0] != stamp:
                return None
            return self._snapshot.known(entry[1], address, attempt)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None

    def save(self) -> None:
        """Replace the index of the place when there is something new in it."""
        if not self._changed:
            return
        keys = {key: self._seen.get(key, self._known.get(key)) for key in sorted(self.keys)}
        content = {"format": FORMAT, "keys": {key: found for key, found in keys.items() if found}}
        # Several that look at once each write their own; the last one stays, and all are right.
        with suppress(OSError):
            text = json.dumps(content, separators=(",", ":"), check_circular=False)
            write_atomically(self._path, text, durable=False)
        self._changed = False


def _read(path: Path) -> dict[str, Any]:
    """Records by key and file name that an index file has; {} for whatever is none."""
    try:
        found = json.loads(path.read_bytes())
        keys = found["keys"] if found["format"] == FORMAT else {}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return keys if isinstance(keys, dict) else {}


def _brief(record: Record) -> dict[str, Any]:
    """The parts of a record that the index has, those that are empty left out."""
    found = {name: getattr(record, name) for name in _PLAIN} | {"warnings": list(record.warnings)}
    found["result"] = {name: record.result[name] for name in _OF_RESULT if name in record.result}
    return {name: value for name, value in found.items() if value}
