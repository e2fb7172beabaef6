"""Packing the records of a suite into one file, and back."""

from __future__ import annotations

import sys

from panelbench.api import plan_for
from panelbench.commands.output import short_path
from panelbench.errors import ConfigError
from panelbench.records.bulk import many_objects
from panelbench.records.index import Snapshot
from panelbench.records.packing import Packed
from panelbench.records.packing import pack as pack_records
from panelbench.records.packing import unpack as unpack_records
from panelbench.records.packs import SUFFIX
from panelbench.records.store import Record, Store
from panelbench.running.settings import Settings
from panelbench.suite.request import Request
from panelbench.suite.runs import Run

ALL = "all"
"""Name of the archive of records of whatever suite."""


def pack(suite: str | None, settings: Settings) -> int:
    """Pack the finished records of a suite, or all.

    Returns
    -------
    Exit code.
    """
    store = Store(settings.results)
    questions, name = None, ALL
    if suite is not None:
        plan = plan_for(Request(suite=suite), settings, download=False)
        runs: list[Run] = [*plan.selections, *plan.evaluations]
        questions = {run.question_digest for run in runs}
        name = plan.suite.name
    with many_objects(), Snapshot(store) as snapshot:
        chosen: list[Record] = [
            record
            for records in snapshot.runs()
            for record in records
            if questions is None or record.question in questions
        ]
    _say("packed", "into", pack_records(store, name, chosen))
    return 0


def unpack(suite: str | None, settings: Settings) -> int:
    """Put the records of one archive back, or of all.

    Returns
    -------
    Exit code.

    Raises
    ------
    ConfigError
        When nothing is packed, or nothing of that suite.
    """
    store = Store(settings.results)
    there = sorted(store.packs.folder.glob(f"*{SUFFIX}"))
    if suite is not None:
        name = Request(suite=suite).resolve().name if suite != ALL else ALL
        there = [path for path in there if path.stem == name]
    if not there:
        of = "" if suite is None else f" of suite {suite}"
        raise ConfigError(f"no archive{of} in {store.packs.folder}: nothing to unpack")
    for path in there:
        _say("unpacked", "from", unpack_records(store, path))
    return 0


def _say(done: str, where: str, found: Packed) -> None:
    size = f"{found.bytes / 1e6:.1f} MB"
    print(f"{done} {found.files} files ({size}) {where} {short_path(found.archive)}")


def say_damaged(store: Store) -> None:
    """Say which archives cannot be read, where records are shown."""
    for path, why in store.packs.contents.problems.items():
        print(f"note: {short_path(path)}: {why}", file=sys.stderr)
