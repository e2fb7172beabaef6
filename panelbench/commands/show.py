"""Everything that commands print on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from panelbench.commands import JSON_FORMAT
from panelbench.errors import InputError, UnknownName
from panelbench.records.status import RETRIED, Status
from panelbench.records.store import Record, Store, newest
from panelbench.text import printable

if TYPE_CHECKING:
    from panelbench.api import Done
    from panelbench.registry import Broken
    from panelbench.running.settings import Settings
    from panelbench.running.states import State
    from panelbench.suite.runs import Run


def print_json(**content: Any) -> None:
    """Print one JSON object, with the version of its form."""
    print(json.dumps({"format": JSON_FORMAT, **content}, indent=1, sort_keys=True, default=str))


def _print(table: Table) -> None:
    # In a pipe there is no width to fit into: long lines are better than cut ones.
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A table of plain texts: brackets in them are brackets, not rich's markup."""
    table = Table(
        title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False
    )
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    return table


_MANY = 500
"""Rows beyond which a table is printed as plain columns: rich takes a millisecond for each."""


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts as a table, or in plain columns where there are many."""
    if len(rows) <= _MANY:
        _print(_table(columns, rows))
        return
    lines = [[printable(text) for text in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _first_line(text: str, limit: int | None = None) -> str:
    return text.splitlines()[0][:limit] if text else ""


def _line(run: Run, state: State) -> dict[str, Any]:
    """A run for programs, with its genes or metrics once it is done."""
    from panelbench.stages.panel import panel_of
    from panelbench.suite.runs import SelectRun

    result: dict[str, Any] = {}
    if state.status == "done" and state.record is not None:
        found = state.record.result
        if isinstance(run, SelectRun):
            result = {"genes": panel_of(found.get("ranking", ()), run.k)}
        else:
            result = {"metrics": found.get("metrics", {})}
    return {
        **result,
        "stage": run.stage,
        "key": run.key,
        "dataset": run.dataset.id,
        "method": run.address.method,
        "run": run.describe(),
        "status": state.status,
        "due": state.due,
        "reason": state.why,
    }


def states(found: Sequence[tuple[Run, State]], stages: Sequence[str], *, as_json: bool) -> None:
    """Print where each run of the stages stands (``--dry-run``)."""
    # A report alone shows what it would read.
    shown = [(r, s) for r, s in found if r.stage in stages or set(stages) == {"report"}]
    if as_json:
        print_json(runs=[_line(run, state) for run, state in shown])
        return
    rows = [
        (run.describe(), run.key[:10], state.status, _first_line(state.why, 100))
        for run, state in shown
    ]
    _print_rows(("run", "key", "status", "why"), rows)
    counts = Counter(state.status for _, state in shown)
    due = sum(state.due for _, state in shown)
    # An evaluation that waits is due as soon as its selection is there.
    due += sum(state.status == "waiting" for _, state in shown) if "select" in stages else 0
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{len(shown)} runs: {text or 'none'}; {due} would be run")


def done(done: Done, settings: Settings, *, as_json: bool, shard: tuple[int, int] | None) -> None:
    """Print what a command did: the table, what failed, where files lie."""
    if as_json:
        print_json(
            suite=done.plan.suite.name,
            stages=[
                {"stage": s.stage, "done_before": s.done_before, "ran": dict(s.outcomes),
                 "restored": s.restored}
                for s in done.summaries
            ],
            runs=[_line(run, state) for run, state in done.states],
            report=[str(path) for path in done.report],
            exit_code=done.exit_code,
        )  # fmt: skip
        return
    _panels(done.states)
    if done.results is not None:
        from panelbench.report import terminal_table

        _print(terminal_table(done.results))
        if done.results.stale:
            print(
                f"note: {done.results.stale} records were made with other code or library "
                "versions; `--dry-run` lists them as stale"
            )
    _failures(done.states)
    _unreadable(done.unreadable)
    pages = [path for path in done.report if path.suffix == ".html"]
    for path in pages or done.report[:1]:
        print(f"report: {_short(path)}")
    if shard is not None:
        print(f"shard {shard[0]}/{shard[1]} is over; when all are, run `panelbench report`")


def _panels(states: Iterable[tuple[Run, State]], most: int = 40, genes: int = 8) -> None:
    """Print the first genes of each panel, where nothing else was asked for."""
    from panelbench.suite.runs import SelectRun

    states = list(states)
    if any(not isinstance(run, SelectRun) for run, _ in states):
        return
    rows = []
    for run, state in states:
        if isinstance(run, SelectRun) and state.status == "done" and state.record is not None:
            panel = state.record.result["ranking"][: run.k]
            more = f", ... ({len(panel)} in all)" if len(panel) > genes else ""
            rows.append((run.describe(), ", ".join(panel[:genes]) + more))
    if rows:
        _print(_table(("run", "genes, best first"), rows[:most]))
    if len(rows) > most:
        print(f"... and {len(rows) - most} more; --output json has all")


def _unreadable(files: Mapping[Path, str]) -> None:
    """Say once which files among the records are none; they are passed over."""
    if files:
        path, why = next(iter(files.items()))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        print(f"note: passed over what is no record: {_short(path)} ({why}){more}")


def _failures(found: Iterable[tuple[Run, State]]) -> None:
    from panelbench.suite.runs import SelectRun

    bad = [(r, s) for r, s in found if s.status not in ("done", "skipped")]
    # The evaluations of a failed selection say nothing new beside it.
    told = {run.key for run, _ in bad if isinstance(run, SelectRun)}
    bad = [(r, s) for r, s in bad if isinstance(r, SelectRun) or r.select.key not in told]
    if not bad:
        return
    rows = [(run.describe(), state.status, _first_line(state.why)) for run, state in bad[:40]]
    _print(_table(("run", "status", "reason"), rows, title="Not done"))
    if len(bad) > 40:
        print(f"... and {len(bad) - 40} more; `panelbench list runs` has all")
    again = sorted({s.status for _, s in bad} & set(RETRIED) - {Status.SKIPPED})
    if again:
        print(f"to do them again: --retry {','.join(again)}")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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
        "runs": lambda: _runs(settings),
    }
    if what not in kinds:
        raise UnknownName("list", what, kinds)
    lines = kinds[what]()
    if output == "json":
        print_json(**{what: lines})
        return 0
    columns = [name for name in (lines[0] if lines else {}) if name != "params"]
    _print_rows(columns, [[_cell(line[name]) for name in columns] for line in lines])
    if not lines:
        print(f"no {what}")
    return 0


def _cell(value: Any) -> str:
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


def _grouped(settings: Settings) -> dict[tuple[str, str, str], list[Record]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in Store(settings.results):
        address = record.address
        groups.setdefault((address.dataset, address.method, address.key), []).append(record)
    return groups


def _runs(settings: Settings) -> list[dict[str, Any]]:
    lines = []
    for (dataset, method, key), records in _grouped(settings).items():
        record = newest(records)
        assert record is not None
        asked = record.asked
        lines.append(
            {
                "key": key[:10],
                "stage": record.stage,
                "dataset": dataset,
                "method": asked.get("variant", method),
                "task": asked.get("task") or "+".join(asked.get("tasks", ())),
                "k": asked.get("k", ""),
                "seed": asked.get("seed", ""),
                "evaluator": asked.get("evaluator", ""),
                "status": record.status,
                "attempts": len(records),
                "reason": _first_line(record.reason, 80),
            }
        )
    return lines


def run(key: str, settings: Settings, output: str) -> int:
    """Print all records of one run.

    Raises
    ------
    InputError
        When no run, or more than one, has a key that begins so.
    """
    found = {place: r for place, r in _grouped(settings).items() if place[2].startswith(key)}
    if len(found) != 1:
        many = f"{len(found)} runs have" if found else "no run has"
        raise InputError(f"{many} a key that begins with {key!r}; `panelbench list runs` has keys")
    ((dataset, method, full), records), *_ = found.items()
    if output == "json":
        print_json(records=[json.loads(record.to_json()) for record in records])
        return 0
    folder = Store(settings.results).folder(records[0].address)
    print(f"{dataset} / {method} / {full}\n{_short(folder)}")
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
