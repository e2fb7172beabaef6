"""From the records of a plan to the lines that the report reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from panelbench.records.facts import read_facts
from panelbench.records.index import Snapshot
from panelbench.records.store import Record, Store, newest, ranks_enough
from panelbench.report.results import EvaluatorRef, Results, ScoreLine, SelectionLine
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Row, Run, SelectRun

_COST = ("seconds", "cpu_seconds", "peak_memory_mb", "gpu_memory_mb")


class _Lookup:
    """Finds the record that answers a run's question.

    The record under the run's exact key, if there is any; else the newest one that answered the
    same question with other code or versions, so that tables can be made again anywhere.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.stale = 0

    def __call__(self, run: Run, k: int = 0) -> Record | None:
        """Find the record of a run; of a selection, one that ranks `k` genes or more."""
        address, question = run.address, run.question_digest
        mine = _answers(self._snapshot.attempts(address), question, k)
        if not mine:
            # Only then the other runs of the method are looked at, most of which are of no use.
            groups = self._snapshot.by_question(address.dataset, address.method)
            others = _answers(groups.get(question, ()), question, k)
            if others:
                self.stale += 1
                latest = max(others, key=lambda r: r.attempt).address.key
                mine = [r for r in others if r.address.key == latest]
        return newest(mine)

    def version(self, record: Record) -> str:
        """Name and version of a record's file."""
        return f"{record.attempt} {self._snapshot.version(record)}"

    def leave(self, run: Run) -> None:
        """All is known of the runs of its method on its data set."""
        self._snapshot.leave(run.address.dataset, run.address.method)


def _answers(records: Iterable[Record], question: str, k: int) -> list[Record]:
    return [r for r in records if r.question == question and ranks_enough(r, k)]


def collect(plan: Plan, store: Store) -> Results:
    """Gather what is known about the runs of a plan.

    Parameters
    ----------
    plan
        The plan; runs that have no record are listed as ``missing``.
    store
        The records.

    Returns
    -------
    Results; `Results.stale` counts records made with other code or versions.
    """
    with Snapshot(store) as snapshot:
        return _collected(plan, store, _Lookup(snapshot))


def _collected(plan: Plan, store: Store, lookup: _Lookup) -> Results:
    facts = {d.question: read_facts(store.facts_path(d.id, d.question)) for d in plan.datasets}
    evaluators: dict[str, EvaluatorRef] = {}
    selections: dict[str, SelectionLine] = {}
    scores: dict[str, list[ScoreLine]] = {}
    names = cache(str)
    # One place after the other, so that the records of one at a time are held.
    for selects, evaluations in _by_place(plan):
        records: dict[str, Record | None] = {}
        for select in selects:
            record = records[select.key] = lookup(select, select.k)
            problem = _problem(select.dataset, facts)
            line = _selection(select, select.row, record, problem, names)
            line["record"] = lookup.version(record) if record else ""
            selections[select.key] = SelectionLine(**line)
        for run in evaluations:
            name = run.evaluator_variant
            if name not in evaluators:
                params = run.question.params
                evaluators[name] = EvaluatorRef.of(run.evaluator, params, plan.evaluators)
            problem = _problem(run.dataset, facts)
            select_record = records[run.select.key]
            record = lookup(run)
            line = _score(run, record, select_record, problem, store)
            line["evaluator"] = evaluators[name]
            line["record"] = lookup.version(record) if record else ""
            scores[run.key] = [ScoreLine(**line, noise=level) for level in run.levels]
        lookup.leave(selects[0])
    return Results(
        suite=plan.suite,
        rows=plan.rows,
        scores=[line for run in plan.evaluations for line in scores[run.key]],
        selections=[selections[run.key] for run in plan.selections],
        datasets={d.id: _dataset(d, facts[d.question]) for d in plan.datasets},
        source=_own_files(plan),
        evaluators=plan.evaluators,
        stale=lookup.stale,
    )


def _by_place(plan: Plan) -> Iterable[tuple[list[SelectRun], list[EvaluateRun]]]:
    """The runs of a plan whose records lie together."""
    found: dict[tuple[str, str], tuple[list[SelectRun], list[EvaluateRun]]] = {}
    for select in plan.selections:
        place = found.setdefault((select.dataset.id, select.method), ([], []))
        place[0].append(select)
    for run in plan.evaluations:
        found[run.dataset.id, run.select.method][1].append(run)
    return found.values()


def _own_files(plan: Plan) -> str:
    files = [file.name for dataset in plan.datasets for file in dataset.spec.files]
    return ", ".join(name for name in files if Path(name).is_absolute())


def _problem(dataset: Dataset, facts: Mapping[str, Mapping[str, Any]]) -> str:
    return dataset.problem or str(facts[dataset.question].get("problem", ""))


def _status(record: Record | None, problem: str) -> tuple[str, str]:
    if record is not None:
        return record.status, record.reason
    return ("skipped", problem) if problem else ("missing", "not run yet")


def _selection(
    run: SelectRun, row: Row, record: Record | None, problem: str, names: Callable[[str], str]
) -> dict[str, Any]:
    """Fields of a selection's line, less the version of its record."""
    status, reason = _status(record, problem)
    line: dict[str, Any] = {
        "dataset": run.dataset.id,
        "row": row,
        "tasks": run.tasks,
        "k": run.k,
        "seed": run.seed,
        "noise": run.noise,
        "status": status,
        "reason": reason,
        "key": run.key,
    }
    if record is not None:
        line |= {
            **_cost(record),
            # The same genes are in all rankings of a data set: each name is kept once.
            "ranking": tuple(map(names, record.result.get("ranking", ())[: run.k])),
            "info": dict(record.result.get("info") or {}),
            "warnings": record.warnings,
            "source_digest": str(record.identity.get("source", "")),
            "started": record.started,
            "host": str(record.environment.get("host", "")),
            "versions": dict(record.environment.get("versions") or {}),
            "key": record.address.key,
        }
    return line


def _score(
    run: EvaluateRun,
    record: Record | None,
    select: Record | None,
    problem: str,
    store: Store,
) -> dict[str, Any]:
    """Fields of a score's line, less its evaluator, level of noise and version of its record."""
    status, reason = _status(record, problem)
    if record is None and select is not None and select.status != "ok":
        status, reason = select.status, f"selection: {select.reason}"
    line: dict[str, Any] = {
        "dataset": run.dataset.id,
        "row": run.row,
        "task": run.task.name,
        "kind": run.kind,
        "k": run.k,
        "seed": run.question.seed,
        "status": status,
        "reason": reason,
        "key": run.key,
        "select_key": select.address.key if select else run.select.key,
    }
    if record is not None:
        result: Mapping[str, Any] = record.result
        line |= {
            **_cost(record),
            "metrics": dict(result.get("metrics") or {}),
            "details": result,
            "beyond": int(result.get("genes_read", 0)) > int(result.get("panel_size", 0)),
            "arrays": str(store.arrays_path(record)),
            "notes": tuple(result.get("notes") or ()),
            "key": record.address.key,
        }
    return line


def _cost(record: Record) -> dict[str, Any]:
    values = {name: record.cost.get(name) for name in _COST}
    return {name: float("nan") if v is None else float(v) for name, v in values.items()}


def _dataset(dataset: Dataset, facts: Mapping[str, Any]) -> dict[str, Any]:
    spec = dataset.spec
    tasks = facts.get("tasks", {})
    known = {
        "title": spec.title,
        "citation": spec.citation,
        "doi": spec.doi,
        "licence": spec.licence,
        "split": spec.split.model_dump(mode="json"),
        "max_cells": spec.max_cells,
        "markers": facts.get("markers"),
        "cells": facts.get("cells"),
        "genes": facts.get("genes"),
        "notes": facts.get("notes"),
        "tasks": {
            t.name: tasks[t.name].get("counts", {}) for t in dataset.tasks if t.name in tasks
        },
    }
    return {name: value for name, value in known.items() if value}
