"""Results of a suite that never ran: every number in them is known."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.report.results import EvaluatorRef, Results, ScoreLine, SelectionLine
from panelbench.suite.runs import Declared, Row
from panelbench.suite.specs import SuiteSpec

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
GENES = [f"gene{i}" for i in range(200)]
DECLARED = Declared(supervised=True, cite="Nobody 2020")
ROWS = (
    Row("seurat", "Seurat", "seurat", replace(DECLARED, supervised=False)),
    Row("mrmr-f", "mRMR-f", "mrmr-f", DECLARED),
    Row(
        "persist", "PERSIST", "persist",
        replace(DECLARED, predictor=True, sparse_selection=False, nested=False),
    ),
    Row(
        "yoto", "YOTO", "yoto",
        replace(DECLARED, predictor=True, multitask=True, end_to_end=True, nested=False),
    ),
    Row("all-genes", "All genes", "all-genes", replace(DECLARED, supervised=False, cut=False)),
)  # fmt: skip
SKILL = {
    "seurat": 0.5,
    "mrmr-f": 0.75,
    "persist": 0.8,
    "yoto": 0.85,
    "all-genes": 0.95,
    "rankcorr": 0.7,
}
CLASSES = ["B cell", "T cell", "NK <50% & more>"]


def fake_results(
    suite: dict[str, Any] | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda line: line,
    rows: tuple[Row, ...] = ROWS,
    facts: dict[str, Any] | None = None,
) -> Results:
    """Results of a suite whose every number is known; `change` edits lines of the scores."""
    spec = SuiteSpec.model_validate(
        {
            "name": "trial",
            "title": "A trial",
            "datasets": [{"dataset": "visp", "tasks": ["cell_types_25", "cell_types_50"]}],
            "methods": [row.method for row in rows],
            "ks": [16, 32, 64],
            "seeds": [0, 1, 2],
            "evaluators": ["rf", "builtin"],
        }
        | (suite or {})
    )
    scores, selections = [], []
    for entry in spec.datasets:
        tasks = entry.tasks or ("cell_type",)
        for row in rows:
            declared = row.declared
            groups: list[tuple[str, ...]] = [(task,) for task in tasks]
            if not declared.supervised or declared.multitask:
                groups = [tuple(tasks)]
            cuts: list[int | None] = list(spec.ks) if declared.cut else [None]
            fits = [spec.ks[-1]] if declared.nested else list(spec.ks)
            for seed in spec.seeds:
                rng = np.random.default_rng([seed, list(SKILL).index(row.method)])
                for group in groups:
                    for k in fits:
                        selections.append(_selection(entry.dataset, row, group, k, seed, rng))
                    for task in group:
                        for k in cuts:
                            fit = selections[-1] if declared.nested else next(
                                s for s in selections[::-1] if s["k"] == k
                            )  # fmt: skip
                            line = _score(entry.dataset, row, task, k, seed, fit["key"])
                            scores += [change(line | {"noise": n}) for n in spec.noise_levels]
    known = {
        entry.dataset: {
            "title": "Visual cortex", "cells": 13_349, "genes": len(GENES),
            "citation": "Tasic 2018", "licence": "as is", "notes": ["a note"],
            "tasks": {task: dict.fromkeys(CLASSES, 100) for task in entry.tasks or ()},
            "markers": {"B cell": ["gene1", "gene2"]},
        }
        for entry in spec.datasets
    }  # fmt: skip
    lines = [_line(line) for line in scores], [SelectionLine(**line) for line in selections]
    return Results(spec, rows, *lines, known if facts is None else facts)


def _line(line: dict[str, Any]) -> ScoreLine:
    details = ("classes", "per_class_f1", "confusion", "by_class")
    plain = {name: value for name, value in line.items() if name not in details}
    return ScoreLine(**plain, details={name: line[name] for name in details})


def _selection(
    dataset: str, row: Row, tasks: tuple[str, ...], k: int, seed: int, rng: np.random.Generator
) -> dict[str, Any]:
    curves = {"loss": [1.0, 0.5, 0.2], "f1": [0.1, 0.4]} if row.method == "yoto" else {}
    return {
        "dataset": dataset, "row": row,
        "tasks": tasks if row.declared.supervised else (), "k": k, "seed": seed, "noise": 0.0,
        "status": "ok", "reason": "", "seconds": 3.5 + SKILL[row.method], "cpu_seconds": 4.0,
        "peak_memory_mb": 512.0, "gpu_memory_mb": float("nan"),
        "ranking": rng.permutation(GENES)[: k if row.declared.cut else None].tolist(),
        "info": {"curves": curves} if curves else {}, "warnings": [], "source_digest": "ab" * 20,
        "started": "2024-05-01T10:00:00Z", "host": "node1",
        "versions": {"scikit-learn": "1.5"}, "key": f"{dataset}/{row.variant}/{tasks}/{k}/{seed}",
    }  # fmt: skip


def _score(
    dataset: str, row: Row, task: str, k: int | None, seed: int, select_key: str
) -> dict[str, Any]:
    hard = 0.1 if task.endswith("50") else 0.0
    value = SKILL[row.method] - hard - 0.5 / (k or 500) + 0.01 * (seed - 1)
    evaluator = EvaluatorRef.of("builtin" if row.declared.predictor else "rf")
    names = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auroc", "auprc")
    return {
        "dataset": dataset, "row": row,
        "evaluator": evaluator, "task": task, "kind": "classification", "k": k, "seed": seed,
        "beyond": row.method == "persist", "by_class": {}, "arrays": "",
        "status": "ok", "reason": "", "metrics": dict.fromkeys(names, value),
        "classes": CLASSES, "per_class_f1": {"B cell": value, "T cell": value / 2},
        "confusion": [[8, 2, 0], [1, 9, 0], [0, 3, 2]], "notes": [], "seconds": 0.5,
        "cpu_seconds": 0.6, "peak_memory_mb": 200.0, "gpu_memory_mb": float("nan"),
        "key": f"{select_key}/{task}/{k}", "select_key": select_key,
    }  # fmt: skip


def _of(line: dict[str, Any], name: str) -> Any:
    return line["row"].variant if name == "variant" else line[name]


def no_score(status: str, reason: str, **where: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Turn the lines that match `where` into runs without a result."""

    def change(line: dict[str, Any]) -> dict[str, Any]:
        if any(_of(line, name) != value for name, value in where.items()):
            return line
        lost = {"status": status, "reason": reason, "metrics": {}, "per_class_f1": {}}
        return line | lost | {"confusion": [], "classes": []}

    return change


def compile_latex(folder: Path, names: Sequence[str | Path]) -> str:
    """Compile tables in a plain article, without more packages than they name; the log."""
    packages = set()
    for name in names:
        first = (folder / name).read_text(encoding="utf-8").splitlines()[0]
        packages |= set(first.partition("{")[2].removesuffix("}").split(","))
    body = "\n".join(f"\\input{{{name}}}" for name in names)
    document = (
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\\usepackage[T1]{fontenc}\n"
        f"\\usepackage{{{','.join(sorted(packages))}}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    (folder / "all.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout
