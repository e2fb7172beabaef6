"""From a request and settings back to a command line, for jobs that run elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from panelbench.running.settings import Settings
from panelbench.suite.constraint_options import option
from panelbench.suite.plan import MAX_RUNS
from panelbench.suite.request import Request

_LISTS = ("dataset", "method", "task", "k", "seed", "evaluator", "label", "target")
_PATHS = ("data", "datasets")
_OWN = {"group": "--group", "hvg": "--hvg", "layer": "--layer", "gene_names": "--gene-names",
        "min_genes": "--min-genes", "min_cells": "--min-cells-per-class"}  # fmt: skip
_FLAGS = {"make_unique": "--make-unique", "log1p": "--log1p", "lognorm": "--lognorm"}


def what(request: Request) -> list[str]:
    """Options that say what to run; `panelbench.cli` reads the same request from them."""
    return [*data(request), *panels(request)]


def data(request: Request) -> list[str]:
    """Those among them that ``preprocess`` knows."""
    found: list[str] = []
    if request.suite is not None:
        path = Path(request.suite)
        found += ["--suite", str(path.absolute()) if path.is_file() else request.suite]
    for name in _LISTS:
        found += _each(f"--{name}", getattr(request, name))
    for name in _PATHS:
        path = getattr(request, name)
        found += [] if path is None else [f"--{name}", str(path.absolute())]
    # JSON is YAML, in which such values are read.
    found += _each("--set", (f"{name}={json.dumps(v)}" for name, v in request.sets.items()))
    found += _own(request.data_options)
    own = request.data is not None
    split = request.data_options.get("scheme") if own else request.split
    found += _each("--split", [split] if split else [])
    # Of a file of one's own it is among its options.
    found += _each("--group", [request.group] if request.group and not own else [])
    if request.max_cells is not None:
        found += ["--max-cells", str(request.max_cells)]
    if request.max_runs != MAX_RUNS:
        found += ["--max-runs", str(request.max_runs)]
    return found


def _constraints(given: Any) -> list[str]:
    found: list[str] = []
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        # Jobs run in another folder; a pattern is no file.
        whole = [Path(v).absolute() if Path(str(v)).is_file() else v for v in values]
        found += _each(option(name), whole)
    return found


def panels(request: Request) -> list[str]:
    """Those that say which panels are given, and what panels keep to."""
    given = _each("--panel", (path.absolute() for path in request.panel))
    return given + _constraints(request.constraints)


def _own(options: Any) -> list[str]:
    found: list[str] = []
    for name, called in _OWN.items():
        if options.get(name) is not None:
            found += [called, str(options[name])]
    found += [called for name, called in _FLAGS.items() if options.get(name)]
    if options.get("label_file") is not None:
        found += ["--labels", str(options["label_file"].absolute())]
    if options.get("stratify") is False:
        found.append("--no-stratify")
    return found


def where(settings: Settings) -> list[str]:
    """Options that say where things are; all paths are whole."""
    return [
        *("--results", str(settings.results.absolute())),
        *("--cache", str(settings.cache.absolute())),
        *_each("--methods-dir", (path.absolute() for path in settings.methods_dirs)),
        *_each("--evaluators-dir", (path.absolute() for path in settings.evaluators_dirs)),
        *_each("--mirror", (path.absolute() for path in settings.mirrors)),
    ]


def _each(flag: str, values: Iterable[Any]) -> list[str]:
    return [part for value in values for part in (flag, str(value))]
