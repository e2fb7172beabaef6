"""Requests and settings from the arguments of functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from panelbench.errors import ConfigError
from panelbench.records.places import default_cache
from panelbench.running.settings import Settings, default_mirrors
from panelbench.suite.request import Request


def request_of(suite: str | Path | None, given: Mapping[str, Any], who: str) -> Request:
    """A request from what a function was given.

    Raises
    ------
    ConfigError
        For what no request has.
    """
    unknown = given.keys() - set(Request.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"{who}() has no option {sorted(unknown)[0]!r}")
    fields = dict(given)
    for name in ("dataset", "method", "task", "k", "seed", "evaluator", "label", "target"):
        if name in fields and isinstance(fields[name], str | int):
            fields[name] = [fields[name]]
    for name in ("data", "datasets"):
        if isinstance(fields.get(name), str):
            fields[name] = Path(fields[name])
    if "panel" in fields:
        fields["panel"] = _paths(fields["panel"])
    return Request(suite=None if suite is None else str(suite), **fields)


def settings_of(
    results: str | Path,
    cache: str | Path | None,
    mirror: str | Path | Iterable[str | Path] | None,
    methods_dir: str | Path | Iterable[str | Path],
    evaluators_dir: str | Path | Iterable[str | Path],
    **more: Any,
) -> Settings:
    """Settings from what a function was given."""
    return Settings(
        results=Path(results),
        cache=Path(cache) if cache else default_cache(),
        mirrors=default_mirrors() if mirror is None else _paths(mirror),
        methods_dirs=_paths(methods_dir),
        evaluators_dirs=_paths(evaluators_dir),
        **more,
    )


def _paths(given: str | Path | Iterable[str | Path]) -> tuple[Path, ...]:
    one = [given] if isinstance(given, str | Path) else given
    return tuple(Path(path) for path in one)
