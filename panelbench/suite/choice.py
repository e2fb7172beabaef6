"""Some runs of a plan, by their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from panelbench.errors import ConfigError
from panelbench.suite.runs import Plan


def with_keys(plan: Plan, keys: Sequence[str]) -> Plan:
    """Keep the runs whose keys begin with one of `keys`, and the selections that they need.

    Raises
    ------
    ConfigError
        When no run has a key that begins so.
    """
    wanted = _Prefixes(keys)
    evaluations = tuple(run for run in plan.evaluations if run.key in wanted)
    needed = {run.select.key for run in evaluations}
    selections = tuple(run for run in plan.selections if run.key in wanted or run.key in needed)
    missing = wanted.unused()
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(
            f"--key {missing[0]}{more}: no run that is asked for has a key that begins so; code, "
            "libraries or data may have changed since (`--dry-run` lists the keys of now)"
        )
    return replace(plan, selections=selections, evaluations=evaluations)


class _Prefixes:
    """Beginnings of keys, and which of them were found."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._found = dict.fromkeys(keys, False)
        self._lengths = sorted({len(key) for key in self._found})

    def __contains__(self, key: str) -> bool:
        found = False
        for length in self._lengths:
            if key[:length] in self._found:
                self._found[key[:length]] = found = True
        return found

    def unused(self) -> list[str]:
        """Those that no key begins with."""
        return [key for key, found in self._found.items() if not found]
