"""What the methods are, and how their runs went: properties, failures, costs, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from panelbench.report.grid import Grid
from panelbench.report.results import Results, ScoreLine, SelectionLine
from panelbench.report.summary import STATUS, Summary, brief
from panelbench.suite.runs import Row
from panelbench.suite.specs import TableSpec


def properties_grid(results: Results, spec: TableSpec | None = None) -> Grid:
    """What the methods declare, one row per method.

    With a `spec`, in the columns of the YOTO paper's Table 1; without, the source of each too.
    """
    rows = []
    first = {row.method: row for row in reversed(results.rows)}
    for row in results.rows:
        if first[row.method] is not row:
            continue
        declared = row.declared
        tasks = "multi-task" if declared.multitask else "single-task"
        rows.append(
            (
                row.label,
                declared.supervised,
                tasks if declared.supervised else "–",
                declared.predictor,
                # A control that keeps all genes selects none.
                declared.sparse_selection if declared.cut else "–",
                declared.end_to_end,
                declared.cite,
            )
        )
    columns = (
        "Method", "Supervised", "Task type", "Built-in predictor", "Sparse selection",
        "End-to-end", "Source",
    )  # fmt: skip
    if spec is None:
        return Grid.plain("methods", "What the methods are", columns, rows, stubs=len(columns))
    title = spec.title or "What the methods are"
    shown = [row[:-1] for row in rows]
    return Grid.plain(spec.name, title, columns[:-1], shown, stubs=len(columns) - 1)


FAILURE_COLUMNS = (
    "stage", "dataset", "method", "tasks", "evaluator", "k", "seed", "status", "reason", "key",
)  # fmt: skip


def failures_grid(summary: Summary) -> Grid:
    """Every run without a result: rows group them by reason, the records hold each."""
    lines: list[SelectionLine | ScoreLine] = [
        *summary.results.selections,
        *summary.results.scores,
    ]
    runs = [_failure(line) for line in lines if line.status != "ok"]
    order = {row.variant: place for place, row in enumerate(summary.results.rows)}
    runs.sort(
        key=lambda run: (
            order[run["method"]], run["dataset"], run["stage"] != "select", run["tasks"],
            run["evaluator"], run["k"], run["seed"], run["key"],
        )
    )  # fmt: skip
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        same = ("stage", "dataset", "method", "status", "reason")
        groups.setdefault(tuple(str(run[name]) for name in same), []).append(run)
    labels = {row.variant: row.label for row in summary.results.rows}
    rows = [
        (
            labels[method],
            dataset,
            stage,
            STATUS.get(status, status),
            str(len(group)),
            ", ".join(sorted({str(run["tasks"]) for run in group if run["tasks"]})) or "–",
            ", ".join(str(k) if k else "all genes" for k in sorted({run["k"] for run in group})),
            ", ".join(map(str, sorted({run["seed"] for run in group}))),
            brief(reason, 300) or "–",
        )
        for (stage, dataset, method, status, reason), group in groups.items()
    ]
    columns = ("Method", "Data set", "Stage", "Status", "Runs", "Tasks", "k", "Seeds", "Reason")
    return Grid.plain(
        "failures", "Runs without a result", columns, rows, stubs=len(columns), records=runs
    )


def _failure(line: SelectionLine | ScoreLine) -> dict[str, Any]:
    """Line of the CSV about a run without a result; its k is 0 for all genes."""
    return {
        "stage": "evaluate" if isinstance(line, ScoreLine) else "select",
        "dataset": line.dataset,
        "method": line.row.variant,
        "tasks": line.task if isinstance(line, ScoreLine) else " ".join(line.tasks),
        "evaluator": line.evaluator.variant if isinstance(line, ScoreLine) else "",
        "k": line.k or 0,
        "seed": line.seed,
        "status": line.status,
        "reason": line.reason.strip(),
        "key": line.key,
    }


Measured = Sequence[SelectionLine | ScoreLine]


def _values(lines: Measured, name: str) -> np.ndarray:
    values = np.array([getattr(line, name) for line in lines], dtype=np.float64)
    return values[np.isfinite(values)]


def _mean(lines: Measured, name: str) -> float:
    values = _values(lines, name)
    return float(values.mean()) if len(values) else float("nan")


def _peak(lines: Measured, name: str) -> float:
    values = _values(lines, name)
    return float(values.max()) if len(values) else float("nan")


def cost_grid(summary: Summary) -> Grid:
    """What the runs cost, per data set and method; runs of any status that were measured."""
    groups: dict[tuple[str, Row], tuple[list[SelectionLine], list[ScoreLine]]] = {}
    for select in summary.results.selections:
        groups.setdefault((select.dataset, select.row), ([], []))[0].append(select)
    for score in summary.results.scores:
        groups.setdefault((score.dataset, score.row), ([], []))[1].append(score)
    lines = []
    for dataset in summary.datasets:
        for row in summary.results.rows:
            selections, scores = groups.get((dataset, row), ([], []))
            measured = [line for line in selections if np.isfinite(line.seconds)]
            if measured:
                lines.append(_cost(dataset, row, measured, scores))
    rows = [
        (
            line["label"],
            line["dataset"],
            line["selections"],
            duration(line["select_seconds"]),
            duration(line["select_cpu_seconds"]),
            amount(line["select_peak_memory_mb"]),
            amount(line["select_gpu_memory_mb"]),
            line["evaluations"],
            duration(line["evaluate_seconds"]),
            duration(line["total_seconds"]),
        )
        for line in lines
    ]
    columns = (
        "Method", "Data set", "Selections", "Seconds", "CPU seconds", "Peak MB", "GPU MB",
        "Evaluations", "Seconds each", "Seconds in all",
    )  # fmt: skip
    return Grid.plain(
        "cost",
        "What it cost",
        columns,
        rows,
        stubs=2,
        caption="Means per selection and per evaluation; peaks are the largest of any selection.",
        records=lines,
    )


def _cost(
    dataset: str, row: Row, selections: list[SelectionLine], scores: list[ScoreLine]
) -> dict[str, Any]:
    """What the selections of a method and their evaluations cost."""
    return {
        "dataset": dataset,
        "method": row.variant,
        "label": row.label,
        "selections": len(selections),
        "select_seconds": _mean(selections, "seconds"),
        "select_cpu_seconds": _mean(selections, "cpu_seconds"),
        "select_peak_memory_mb": _peak(selections, "peak_memory_mb"),
        "select_gpu_memory_mb": _peak(selections, "gpu_memory_mb"),
        "evaluations": len(_values(scores, "seconds")),
        "evaluate_seconds": _mean(scores, "seconds"),
        "total_seconds": float(
            _values(selections, "seconds").sum() + _values(scores, "seconds").sum()
        ),
    }


def duration(seconds: float) -> str:
    """Seconds with the digits that matter."""
    if not np.isfinite(seconds):
        return "–"
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}" if seconds >= 1 else (
        f"{seconds:.2f}"
    )  # fmt: skip


def amount(megabytes: float) -> str:
    """Megabytes without decimals; a dash where unknown."""
    return f"{megabytes:,.0f}" if np.isfinite(megabytes) else "–"


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def provenance(summary: Summary) -> dict[str, list[tuple[str, str]]]:
    """Where the numbers come from: libraries, sources of the methods, machines, data sets."""
    lines = [line for line in summary.results.selections if line.status == "ok"]
    versions: dict[str, set[str]] = {}
    digests: dict[str, set[str]] = {}
    for line in lines:
        for name, version in line.versions.items():
            versions.setdefault(name, set()).add(version)
        digests.setdefault(line.row.variant, set()).add(line.source_digest[:12])
    started = sorted(_minute(line.started) for line in lines if line.started)
    hosts = sorted({line.host for line in lines if line.host})
    runs = [("Selections", f"{len(lines)} of {len(summary.results.selections)} ran to the end")]
    if started:
        runs.append(("Started", f"{started[0]} to {started[-1]} UTC"))
    if hosts:
        runs.append(("Machines", ", ".join(hosts)))
    if summary.results.stale:
        runs.append(("Other code or versions", f"{summary.results.stale} records made with them"))
    runs.append(("Evaluators", ", ".join(ref.label for ref in summary.evaluators)))
    return {
        "Runs": runs,
        "Libraries": [(name, ", ".join(sorted(found))) for name, found in sorted(versions.items())],
        "Method sources": [
            (row.variant, ", ".join(sorted(digests[row.variant])))
            for row in summary.results.rows
            if row.variant in digests
        ],
    }
