"""Deleting what may be deleted: leftovers of killed runs, the cache, records one names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from panelbench.errors import ConfigError, UnknownName
from panelbench.records.cache import FOLDER
from panelbench.records.status import RECORDED, Status
from panelbench.records.store import Store
from panelbench.running.settings import Settings


def clean(
    what: str,
    settings: Settings,
    *,
    dataset: str | None = None,
    method: str | None = None,
    status: str | None = None,
    yes: bool = False,
) -> int:
    """Delete leftovers, the cache or records; records only after a yes.

    Returns
    -------
    Exit code.

    Raises
    ------
    ConfigError
        For anything else, or options that do not go with it.
    """
    if status is not None and status not in RECORDED:
        raise UnknownName("status", status, RECORDED, "--status")
    if what != "runs" and (dataset or method or status):
        raise ConfigError("--dataset, --method and --status choose runs: panelbench clean runs")
    if what == "leftovers":
        for path in Store(settings.results).leftovers():
            path.unlink(missing_ok=True)
            print(f"deleted {path}")
        return 0
    if what == "cache":
        return _clean_cache(settings.cache)
    if what == "runs":
        return _clean_runs(settings, dataset, method, status, yes=yes)
    raise UnknownName("thing to clean", what, ["leftovers", "cache", "runs"])


def _clean_cache(cache: Path) -> int:
    # Downloads stay: they are not computed, and some machines cannot fetch them again.
    for name in (FOLDER, "prepared"):
        if (cache / name).exists():
            shutil.rmtree(cache / name)
            print(f"deleted {cache / name}")
    return 0


def _clean_runs(
    settings: Settings, dataset: str | None, method: str | None, status: str | None, *, yes: bool
) -> int:
    store = Store(settings.results)
    chosen = [
        record
        for record in store
        if dataset in (None, record.address.dataset)
        and method in (None, record.address.method)
        and status in (None, record.status)
    ]
    if not chosen:
        print("no such records")
        return 0
    packed = [r for r in chosen if r.status is not Status.LOST and not store.path(r).exists()]
    if packed:
        raise ConfigError(
            f"{len(packed)} of these records are packed: `panelbench unpack`, then clean"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{len(chosen)} records would be deleted; say so with --yes")
        if input(f"delete {len(chosen)} records below {store.runs}? [y/N] ").lower() != "y":
            print("nothing deleted")
            return 1
    for record in chosen:
        store.delete(record)
    print(f"deleted {len(chosen)} records")
    return 0
