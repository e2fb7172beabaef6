"""What there is: methods, evaluators, data sets, tasks, suites, runs; and one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.commands.output import (
    first_line,
    print_json,
    print_rows,
    short_path,
)
from panelbench.commands.pack import say_damaged
from panelbench.commands.queue import with_queue
from panelbench.errors import InputError, UnknownName
from panelbench.records.bulk import many_objects
from panelbench.records.index import Snapshot
from panelbench.records.store import Record, Store, newest
from panelbench.text import printable

if TYPE_CHECKING:
    from panelbench.registry import Broken
    from panelbench.running.settings import Settings


def listing(what: str, settings: Settings, datasets: Path | None, output: str) -> int:
    """Print methods, evaluators, data sets, tasks, suites or runs.

    Raises
    ------
    UnknownName
        For anything else.
    """
    kinds: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": lambda: _methods(settings),
        "evaluators": lambda: _evaluators(settings),
        "datasets": lambda: _datasets(datasets),
        "tasks": lambda: _tasks(datasets),
        "suites": _suites,
        "runs": lambda: with_queue(lambda: _runs(settings), settings),
    }
    if what not in kinds:
        raise UnknownName("list", what, kinds)
    lines = kinds[what]()
    if output == "json":
        print_json(**{what: lines})
        return 0
    columns = [name for name in (lines[0] if lines else {}) if name != "params"]
    print_rows(columns, [[_cell(line[name]) for name in columns] for line in lines])
    if not lines:
        print(f"no {what}")
    return 0


def _cell(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _methods(settings: Settings) -> list[dict[str, Any]]:
    from panelbench.params import params_dict
    from panelbench.registry import discover

    registry = discover(settings.methods_dirs)
    lines: list[dict[str, Any]] = [
        {
            "method": method.id,
            "labels": "no" if not method.supervised else "all" if method.multitask else "one task",
            "predictor": method.predictor is not None,
            "needs": method.needs,
            "gpu": method.gpu,
            "parameters": [f"{n}={v}" for n, v in params_dict(method.params()).items()],
            "what": method.doc or method.label,
            "cite": method.cite,
        }
        for method in registry.methods.values()
    ]
    return lines + _broken("method", lines, registry.broken.values())


def _broken(
    kind: str, lines: Sequence[dict[str, Any]], broken: Iterable[Broken]
) -> list[dict[str, Any]]:
    """Lines of what cannot be imported, in the columns of the other lines."""
    blank = dict.fromkeys(lines[0] if lines else (kind, "what"), "")
    return [
        {**blank, kind: item.id, "what": f"cannot be imported: {item.error} ({item.place})"}
        for item in broken
    ]


def _evaluators(settings: Settings) -> list[dict[str, Any]]:
    from panelbench.params import params_dict
    from panelbench.registry import discover_evaluators

    found = discover_evaluators(settings.evaluators_dirs)
    lines: list[dict[str, Any]] = [
        {
            "evaluator": item.id,
            "reads": item.reads,
            "metrics": [metric.id for metric in item.metrics],
            "parameters": [f"{n}={v}" for n, v in params_dict(item.params()).items()],
            "what": item.doc or item.label,
            "cite": item.cite,
        }
        for item in found.declared.values()
    ]
    return lines + _broken("evaluator", lines, found.broken.values())


def _datasets(path: Path | None) -> list[dict[str, Any]]:
    from panelbench.data.catalogue import load_catalogues, where_from

    return [
        {
            "dataset": spec.id,
            "title": spec.title,
            "tasks": [task.name for task in spec.tasks],
            "files": where_from(spec),
            "licence": spec.licence,
            "citation": spec.citation,
        }
        for spec in load_catalogues(path).values()
    ]


def _tasks(path: Path | None) -> list[dict[str, Any]]:
    from panelbench.data.catalogue import load_catalogues

    return [
        {"task": task.name, "dataset": spec.id, "kind": task.kind, "column": task.column}
        for spec in load_catalogues(path).values()
        for task in spec.tasks
    ]


def _suites() -> list[dict[str, Any]]:
    from panelbench.suite.request import load_suite, suite_names

    return [
        {
            "suite": suite.name,
            "title": suite.title,
            "datasets": [entry.dataset for entry in suite.datasets],
            "methods": len(suite.methods),
            "ks": list(suite.ks),
            "seeds": list(suite.seeds),
        }
        for suite in map(load_suite, suite_names())
    ]


def _runs(settings: Settings) -> list[dict[str, Any]]:
    store = Store(settings.results)
    with many_objects():
        lines = [_run(records) for records in Snapshot(store).runs()]
    say_damaged(store)
    return lines


def _run(records: Sequence[Record]) -> dict[str, Any]:
    record = newest(records)
    assert record is not None
    asked = record.asked
    return {
        "key": record.address.key[:10],
        "stage": record.stage,
        "dataset": record.address.dataset,
        "method": asked.get("variant", record.address.method),
        "task": asked.get("task") or "+".join(asked.get("tasks", ())),
        "k": asked.get("k", ""),
        "seed": asked.get("seed", ""),
        "evaluator": asked.get("evaluator", ""),
        "status": record.status,
        "attempts": len(records),
        "reason": first_line(record.reason, 80),
    }


def run(key: str, settings: Settings, output: str) -> int:
    """Print all records of one run.

    Raises
    ------
    InputError
        When no run, or more than one, has a key that begins so.
    """
    store = Store(settings.results)
    found = [(a, records) for a in store.addresses(key) if (records := store.attempts(a))]
    if len(found) != 1:
        say_damaged(store)
        many = f"{len(found)} runs have" if found else "no run has"
        raise InputError(f"{many} a key that begins with {key!r}; `panelbench list runs` has keys")
    ((address, records),) = found
    if output == "json":
        print_json(records=[json.loads(record.to_json()) for record in records])
        return 0
    folder = store.folder(address)
    print(f"{address.dataset} / {address.method} / {address.key}\n{short_path(folder)}")
    for record in records:
        print(f"\nattempt {record.attempt}: {record.status}")
        if record.reason:
            print(f"  {printable(record.reason)}")
        for name, value in _digestible(record):
            print(f"  {name}: {printable(value)}")
    return 0


def _digestible(record: Record) -> Iterable[tuple[str, str]]:
    """The parts of a record that a person reads, shortened."""
    for part in ("asked", "cost", "outside", "environment", "result"):
        for name, value in getattr(record, part).items():
            text = json.dumps(value)
            yield (
                f"{part}.{name}",
                text if len(text) <= 160 else f"{text[:150]} ... (--output json)",
            )
    for text in record.warnings:
        yield "warning", text
