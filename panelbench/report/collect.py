"""From the records of a plan to the two tables that the report reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from panelbench.records.facts import read_facts
from panelbench.records.store import Record, Store, newest, ranks_enough
from panelbench.report.results import Results
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Run, SelectRun

if TYPE_CHECKING:
    import pandas as pd

_COST = ("seconds", "cpu_seconds", "peak_memory_mb", "gpu_memory_mb")


class _Lookup:
    """Finds the record that answers a run's question.

    The record under the run's exact key, if there is any; else the newest one that answered the
    same question with other code or versions, so that tables can be made again anywhere.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._questions: dict[tuple[str, str], dict[str, list[Record]]] = {}
        self.stale = 0

    def __call__(
        self, run: Run, usable: Callable[[Record], bool] = lambda _: True
    ) -> Record | None:
        place = (run.address.dataset, run.address.method)
        if place not in self._questions:
            self._questions[place] = self._store.by_question(*place)
        records = [r for r in self._questions[place].get(run.question_digest, []) if usable(r)]
        mine = [r for r in records if r.address.key == run.address.key]
        if records and not mine:
            self.stale += 1
            latest = max(records, key=lambda r: r.attempt).address.key
            mine = [r for r in records if r.address.key == latest]
        return newest(mine)


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
    lookup = _Lookup(store)
    facts = {d.question: read_facts(store.facts_path(d.id, d.question)) for d in plan.datasets}
    selections, found = [], {}
    for select in plan.selections:
        record = lookup(select, lambda r, k=select.k: ranks_enough(r, k))  # type: ignore[misc]
        found[select.key] = record
        selections.append(_selection(select, record, _problem(select.dataset, facts)))
    scores = []
    for run in plan.evaluations:
        record = lookup(run)
        line = _score(run, record, found[run.select.key], _problem(run.dataset, facts))
        line["arrays"] = str(store.arrays_path(record)) if record and run.kind != "" else ""
        scores += [{**line, "noise": level} for level in run.levels]
    return Results(
        suite=plan.suite,
        rows=plan.rows,
        scores=_frame(scores),
        selections=_frame(selections),
        datasets={d.id: _dataset(d, facts[d.question]) for d in plan.datasets},
        stale=lookup.stale,
    )


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(lines)
    for name in _COST:
        if name in frame:
            frame[name] = frame[name].astype(float)
    return frame


def _problem(dataset: Dataset, facts: Mapping[str, Mapping[str, Any]]) -> str:
    return dataset.problem or str(facts[dataset.question].get("problem", ""))


def _status(record: Record | None, problem: str) -> tuple[str, str]:
    if record is not None:
        return record.status, record.reason
    return ("skipped", problem) if problem else ("missing", "not run yet")


def _selection(run: SelectRun, record: Record | None, problem: str) -> dict[str, Any]:
    status, reason = _status(record, problem)
    result: Mapping[str, Any] = record.result if record else {}
    environment: Mapping[str, Any] = record.environment if record else {}
    return {
        "dataset": run.dataset.id,
        "variant": run.row.variant,
        "label": run.row.label,
        "method": run.method,
        "tasks": run.tasks,
        "k": run.k,
        "seed": run.seed,
        "noise": run.noise,
        "status": status,
        "reason": reason,
        **_cost(record),
        "ranking": list(result.get("ranking", ())),
        "info": dict(result.get("info") or {}),
        "warnings": list(record.warnings) if record else [],
        "source_digest": str(record.identity.get("source", "")) if record else "",
        "started": record.started if record else "",
        "host": environment.get("host", ""),
        "versions": dict(environment.get("versions") or {}),
        "key": record.address.key if record else run.key,
    }


def _score(
    run: EvaluateRun, record: Record | None, select: Record | None, problem: str
) -> dict[str, Any]:
    status, reason = _status(record, problem)
    if record is None and select is not None and select.status != "ok":
        status, reason = select.status, f"selection: {select.reason}"
    result: Mapping[str, Any] = record.result if record else {}
    return {
        "dataset": run.dataset.id,
        "variant": run.row.variant,
        "label": run.row.label,
        "method": run.select.method,
        "evaluator": run.evaluator_variant,
        "task": run.task.name,
        "kind": run.kind,
        "k": run.k or 0,
        "seed": run.question.seed,
        "status": status,
        "reason": reason,
        "metrics": dict(result.get("metrics") or {}),
        "classes": list(result.get("classes") or ()),
        "per_class_f1": dict(result.get("per_class_f1") or {}),
        "confusion": list(result.get("confusion") or ()),
        "by_class": dict(result.get("by_class") or {}),
        "beyond": int(result.get("genes_read", 0)) > int(result.get("panel_size", 0)),
        "notes": list(result.get("notes") or ()),
        **_cost(record),
        "key": record.address.key if record else run.key,
        "select_key": select.address.key if select else run.select.key,
    }


def _cost(record: Record | None) -> dict[str, float]:
    cost: Mapping[str, Any] = record.cost if record else {}
    values = {name: cost.get(name) for name in _COST}
    return {name: float("nan") if v is None else float(v) for name, v in values.items()}


def _dataset(dataset: Dataset, facts: Mapping[str, Any]) -> dict[str, Any]:
    spec = dataset.spec
    tasks = facts.get("tasks", {})
    known = {
        "title": spec.title,
        "citation": spec.citation,
        "licence": spec.licence,
        "split": spec.split.model_dump(mode="json"),
        "markers": facts.get("markers"),
        "cells": facts.get("cells"),
        "genes": facts.get("genes"),
        "notes": facts.get("notes"),
        "tasks": {
            t.name: tasks[t.name].get("counts", {}) for t in dataset.tasks if t.name in tasks
        },
    }
    return {name: value for name, value in known.items() if value}
