"""The methods of a suite with their parameters: rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panelbench.data.specs import TaskSpec
from panelbench.errors import ConfigError
from panelbench.method import Method
from panelbench.params import make_params, params_dict, variant_name
from panelbench.registry import Broken, Registry
from panelbench.suite.runs import Declared, Row
from panelbench.suite.specs import MethodEntry, SuiteSpec


@dataclass(frozen=True)
class Entrant:
    """A method of the suite with its parameters."""

    row: Row
    declared: Method | Broken
    params: Mapping[str, Any]
    ks: Sequence[int] | None = None
    by_size: bool = False

    @property
    def nested(self) -> bool:
        """Whether one selection serves all panel sizes."""
        return self.row.declared.nested and not self.by_size

    def sizes(self, ks: Sequence[int]) -> list[tuple[int, list[int | None]]]:
        """Genes to rank, each with the panel sizes that such a ranking serves."""
        ks = self.ks or ks
        sizes = sorted(set(ks))
        if not self.row.declared.asked_size:
            return [(sizes[-1], [None])] if self.nested else [(k, [None]) for k in sizes]
        if self.nested:
            return [(sizes[-1], list(dict.fromkeys(ks)))]
        return [(k, [k]) for k in sizes]

    def task_groups(self, tasks: tuple[TaskSpec, ...]) -> list[tuple[TaskSpec, ...]]:
        """Tasks by selection: none without labels, all at once, or one at a time."""
        if not self.row.declared.supervised:
            return [()]
        return [tasks] if self.row.declared.multitask else [(task,) for task in tasks]


def make_entrant(entry: MethodEntry, registry: Registry, suite: SuiteSpec) -> Entrant:
    """Check an entry of a suite.

    Raises
    ------
    ConfigError
        For a method or parameter that does not exist, and for panels too small for what they must
        hold.
    """
    must = suite.constraints.include if suite.constraints is not None else ()
    least = min(entry.ks or suite.ks)
    if least < len(must):
        raise ConfigError(f"suite {suite.name}: {len(must)} genes to include, and k = {least}")
    by_size = suite.constraints is not None and suite.constraints.by_size
    if entry.method in registry.broken:
        broken = registry.broken[entry.method]
        row = Row(entry.method, entry.label or entry.method, entry.method)
        return Entrant(row, broken, {}, entry.ks, by_size)
    method = registry.get(entry.method)
    params = make_params(method, entry.params, f" in suite {suite.name}")
    variant = variant_name(method.id, params)
    label = entry.label or variant.replace(method.id, method.label, 1)
    row = Row(variant, label, method.id, Declared.of(method))
    return Entrant(row, method, params_dict(params), entry.ks, by_size)
