"""Constraints as the command line and Python take them: files, patterns, bounds as ``MIN:MAX``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panelbench.errors import ConfigError, InputError
from panelbench.schema import parse
from panelbench.stages.constraints import Constraints
from panelbench.suite.panels import read_panel

BOUNDS = ("mean", "class_mean", "detection", "class_detection")
NAMES = ("include", "exclude", *BOUNDS, "costs", "budget", "markers", "marker_auroc")
"""What can be given."""


def option(name: str) -> str:
    """How the command line calls it."""
    return {"markers": "--markers-per-class"}.get(name, f"--{name.replace('_', '-')}")


def read_constraints(given: Mapping[str, Any], base: Constraints | None) -> Constraints | None:
    """Constraints of a suite with those that are given in their place.

    Parameters
    ----------
    given
        Values by name (`NAMES`): files of genes for ``include``, files or patterns for
        ``exclude``, texts ``MIN:MAX`` for bounds, a CSV with columns gene and cost for ``costs``.
    base
        Those of the suite, if any.

    Raises
    ------
    InputError
        For files that cannot be read.
    ConfigError
        For values that make no sense.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name == "include":
            genes = [gene for path in value for gene in read_panel(Path(path), "--include")]
            found[name] = tuple(dict.fromkeys(genes))
        elif name == "exclude":
            found[name] = tuple(gene for text in value for gene in _excluded(str(text)))
        elif name in BOUNDS:
            found[name] = _bounds(str(value), option(name))
        elif name == "costs":
            found[name] = read_costs(Path(value))
        else:
            found[name] = value
    if not found:
        return base
    before = base.model_dump(exclude_unset=True) if base is not None else {}
    return parse(Constraints, {**before, **found}, "constraints")


def _excluded(text: str) -> list[str]:
    path = Path(text)
    return read_panel(path, "--exclude") if path.is_file() else [text]


def _bounds(text: str, name: str) -> tuple[float | None, float | None]:
    low, colon, high = text.partition(":")
    try:
        ends = tuple(float(end) if end.strip() else None for end in (low, high))
    except ValueError:
        colon = ""
    if not colon or any(end is not None and end != end for end in ends):
        raise ConfigError(f"{name} {text}: write MIN:MAX, as 0.1:5, 0.1: or :5")
    return ends[0], ends[1]


def read_costs(path: Path) -> dict[str, float]:
    """Cost of each gene: a CSV with the columns ``gene`` and ``cost``.

    Raises
    ------
    InputError
        When the file is missing, has no such columns, or a cost is no number.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise InputError(f"--costs {path}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"--costs {path}: not a text file in UTF-8") from None
    if not rows or not {"gene", "cost"} <= rows[0].keys():
        raise InputError(f"--costs {path}: a CSV with the columns gene and cost is needed")
    found: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        gene, text = str(row["gene"]).strip(), str(row["cost"]).strip()
        try:
            cost = float(text)
        except ValueError:
            cost = float("nan")
        if not 0 <= cost < float("inf"):
            raise InputError(f"--costs {path}, line {number}: the cost of {gene} is {text!r}")
        if gene in found:
            raise InputError(f"--costs {path}, line {number}: {gene} stands there twice")
        found[gene] = cost
    return found
