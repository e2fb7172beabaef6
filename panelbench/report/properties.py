"""What the methods are, and how their runs went: properties, failures, costs, provenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from panelbench.report.grid import Grid
from panelbench.report.results import Results
from panelbench.report.summary import KEEPS_ALL, STATUS, Summary, brief, evaluator_label, records


def properties_grid(results: Results) -> Grid:
    """The YOTO paper's Table 1, from what the methods declare."""
    rows = []
    seen = set()
    for row in results.rows:
        if row.method in seen:
            continue
        seen.add(row.method)
        declared = row.declared
        supervised = bool(declared.get("supervised"))
        tasks = "multi-task" if declared.get("multitask") else "single-task"
        rows.append(
            (
                row.label,
                supervised,
                tasks if supervised else "–",
                bool(declared.get("predictor")),
                bool(declared.get("sparse_selection", True)),
                bool(declared.get("end_to_end")),
                str(declared.get("cite", "")),
            )
        )
    columns = (
        "Method", "Supervised", "Task type", "Built-in predictor", "Sparse selection",
        "End-to-end", "Source",
    )  # fmt: skip
    return Grid.plain("methods", "What the methods are", columns, rows, stubs=len(columns))


FAILURE_COLUMNS = (
    "stage", "dataset", "method", "tasks", "evaluator", "k", "seed", "status", "reason", "key",
)  # fmt: skip


def failures_grid(summary: Summary) -> Grid:
    """Every run without a result: rows group them by reason, the records hold each."""
    runs = [
        {
            "stage": "select",
            "dataset": line["dataset"],
            "method": line["variant"],
            "tasks": " ".join(line["tasks"]),
            "evaluator": "",
            "k": line["k"],
            "seed": line["seed"],
            "status": line["status"],
            "reason": str(line["reason"]).strip(),
            "key": line["key"],
        }
        for line in records(summary.results.selections)
        if line["status"] != "ok"
    ] + [
        {
            "stage": "evaluate",
            "dataset": line["dataset"],
            "method": line["variant"],
            "tasks": line["task"],
            "evaluator": line["evaluator"],
            "k": line["k"],
            "seed": line["seed"],
            "status": line["status"],
            "reason": str(line["reason"]).strip(),
            "key": line["key"],
        }
        for line in summary.lines
        if line["status"] != "ok"
    ]
    runs.sort(key=lambda run: _order(summary, run))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        same = ("stage", "dataset", "method", "status", "reason")
        groups.setdefault(tuple(str(run[name]) for name in same), []).append(run)
    rows = [
        (
            _label(summary, method),
            dataset,
            stage,
            STATUS.get(status, status),
            str(len(group)),
            ", ".join(sorted({str(run["tasks"]) for run in group if run["tasks"]})) or "–",
            _ks(run["k"] for run in group),
            _seeds(run["seed"] for run in group),
            brief(reason, 300) or "–",
        )
        for (stage, dataset, method, status, reason), group in groups.items()
    ]
    columns = ("Method", "Data set", "Stage", "Status", "Runs", "Tasks", "k", "Seeds", "Reason")
    return Grid.plain(
        "failures", "Runs without a result", columns, rows, stubs=len(columns), records=runs
    )


def _order(summary: Summary, run: dict[str, Any]) -> tuple[Any, ...]:
    variants = [row.variant for row in summary.results.rows]
    place = variants.index(run["method"]) if run["method"] in variants else len(variants)
    order = (place, run["dataset"], run["stage"] != "select", run["tasks"], run["evaluator"])
    return (*order, run["k"], run["seed"], run["key"])


def _label(summary: Summary, variant: str) -> str:
    return summary.rows[variant].label if variant in summary.rows else variant


def _ks(ks: Iterable[int]) -> str:
    found = sorted({int(k) for k in ks})
    return ", ".join("all genes" if k == KEEPS_ALL else str(k) for k in found)


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted({int(seed) for seed in seeds})))


def _values(lines: Iterable[dict[str, Any]], name: str) -> np.ndarray:
    values = np.array([float(line[name]) for line in lines], dtype=np.float64)
    return values[np.isfinite(values)]


def _mean(lines: list[dict[str, Any]], name: str) -> float:
    values = _values(lines, name)
    return float(values.mean()) if len(values) else float("nan")


def _peak(lines: list[dict[str, Any]], name: str) -> float:
    values = _values(lines, name)
    return float(values.max()) if len(values) else float("nan")


def cost_grid(summary: Summary) -> Grid:
    """What the runs cost, per data set and method; runs of any status that were measured."""
    selections = records(summary.results.selections)
    lines: list[dict[str, Any]] = []
    for dataset in summary.datasets:
        for row in summary.results.rows:
            mine = [x for x in selections if (x["dataset"], x["variant"]) == (dataset, row.variant)]
            scored = [
                x for x in summary.lines if (x["dataset"], x["variant"]) == (dataset, row.variant)
            ]
            run = [x for x in mine if np.isfinite(x["seconds"])]
            if not run:
                continue
            lines.append(
                {
                    "dataset": dataset,
                    "method": row.variant,
                    "label": row.label,
                    "selections": len(run),
                    "select_seconds": _mean(run, "seconds"),
                    "select_cpu_seconds": _mean(run, "cpu_seconds"),
                    "select_peak_memory_mb": _peak(run, "peak_memory_mb"),
                    "select_gpu_memory_mb": _peak(run, "gpu_memory_mb"),
                    "evaluations": len(_values(scored, "seconds")),
                    "evaluate_seconds": _mean(scored, "seconds"),
                    "total_seconds": float(
                        _values(run, "seconds").sum() + _values(scored, "seconds").sum()
                    ),
                }
            )
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
    lines = [x for x in records(summary.results.selections) if x["status"] == "ok"]
    versions: dict[str, set[str]] = {}
    digests: dict[str, set[str]] = {}
    for line in lines:
        for name, version in dict(line["versions"]).items():
            versions.setdefault(name, set()).add(str(version))
        digests.setdefault(line["variant"], set()).add(str(line["source_digest"])[:12])
    started = sorted(_minute(str(line["started"])) for line in lines if line["started"])
    hosts = sorted({str(line["host"]) for line in lines if line["host"]})
    runs = [("Selections", f"{len(lines)} of {len(summary.results.selections)} ran to the end")]
    if started:
        runs.append(("Started", f"{started[0]} to {started[-1]} UTC"))
    if hosts:
        runs.append(("Machines", ", ".join(hosts)))
    if summary.results.stale:
        runs.append(("Other code or versions", f"{summary.results.stale} records made with them"))
    runs.append(("Evaluators", ", ".join(map(evaluator_label, summary.evaluators))))
    return {
        "Runs": runs,
        "Libraries": [(name, ", ".join(sorted(found))) for name, found in sorted(versions.items())],
        "Method sources": [
            (row.variant, ", ".join(sorted(digests[row.variant])))
            for row in summary.results.rows
            if row.variant in digests
        ],
    }
