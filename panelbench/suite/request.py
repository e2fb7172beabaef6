"""What a user asks for, by a suite or by options, turned into one suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from panelbench.data.catalogue import find_dataset, load_catalogues, own_data
from panelbench.data.specs import DatasetSpec, SplitSpec
from panelbench.errors import ConfigError, UnknownName
from panelbench.schema import load_yaml, parse
from panelbench.suite import named
from panelbench.suite.constraint_options import read_constraints
from panelbench.suite.panels import read_panel
from panelbench.suite.plan import MAX_RUNS
from panelbench.suite.specs import DatasetEntry, EvaluatorEntry, MethodEntry, SuiteSpec

DEFAULT_DATASET = "pbmc68k-reduced"
DEFAULT_KS = (32,)
DEFAULT_SEEDS = (0,)


@dataclass(frozen=True)
class Request:
    """What to run. Everything that is not given comes from the suite, or from the defaults.

    Attributes
    ----------
    suite
        Name of a suite that ships with panelbench, or a YAML file.
    dataset, method, task, k, seed, evaluator
        Ids and numbers; each replaces the suite's list.
    sets
        ``{"mrmr-f.relevance": "rf"}``: parameters of methods.
    data
        A file or folder of one's own, with `label` (classes), `target` (numbers) and `data_options`
        (see `panelbench.data.catalogue.own_data`).
    split, group
        How data sets of the catalogue are split instead, ``groups`` or ``leave-one-group-out``,
        and the column of ``obs`` with the groups, if it is not the one that is known.
    panel
        Files with genes to score; each is a row of its own, at its own size unless `k` is given.
    constraints
        What panels keep to, as the command line takes it (`constraint_options.NAMES`): files,
        patterns, ``MIN:MAX``; each replaces the suite's.
    datasets
        The catalogue, if not the usual one.
    max_cells
        The most training cells of a split; replaces the suite's.
    max_runs
        A grid of more runs is an error.
    """

    suite: str | None = None
    dataset: Sequence[str] = ()
    method: Sequence[str] = ()
    task: Sequence[str] = ()
    k: Sequence[int] = ()
    seed: Sequence[int] = ()
    evaluator: Sequence[str] = ()
    sets: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    label: Sequence[str] = ()
    target: Sequence[str] = ()
    data_options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    panel: Sequence[Path] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)
    datasets: Path | None = None
    max_cells: int | None = None
    max_runs: int = MAX_RUNS

    def catalogue(self) -> dict[str, DatasetSpec]:
        """Data sets by id, the user's own file among them."""
        found = load_catalogues(self.datasets)
        own = self._own()
        return found if own is None else {**found, own.id: own}

    def _own(self) -> DatasetSpec | None:
        if self.data is None:
            if self.label or self.target or self.data_options:
                raise ConfigError("--label, --labels, --target and the like describe --data FILE")
            return None
        if not self.label and not self.target:
            raise ConfigError(f"--data {self.data}: name the column of cell types with --label")
        return own_data(self.data, self.label, regression=self.target, **self.data_options)

    def resolve(self) -> SuiteSpec:
        """The suite that is asked for.

        Raises
        ------
        ConfigError
            For options that contradict each other or name nothing.
        """
        if self.suite is not None:
            return self._changed(load_suite(self.suite))
        own = self._own()
        datasets = [own.id] if own else list(self.dataset) or [DEFAULT_DATASET]
        methods = self._methods([])
        evaluators = self.evaluator or ("rf", "builtin")
        given = {
            "name": "-".join(datasets)[:80].replace(":", "-"),
            "title": f"Panels on {', '.join(datasets)}",
            "datasets": [self._entry(DatasetEntry(dataset=name)) for name in datasets],
            "methods": methods,
            "ks": tuple(self.k) or self._panel_sizes() or DEFAULT_KS,
            "seeds": tuple(self.seed) or DEFAULT_SEEDS,
            "evaluators": [EvaluatorEntry(evaluator=name) for name in evaluators],
            "constraints": read_constraints(self.constraints, None),
            "max_cells": self.max_cells,
        }
        return parse(SuiteSpec, given, "options")

    def _changed(self, suite: SuiteSpec) -> SuiteSpec:
        """The suite with the lists that options replace."""
        changes: dict[str, Any] = {}
        own = self._own()
        names = [own.id] if own else self.dataset
        if names:
            known = {entry.dataset: entry for entry in suite.datasets}
            changes["datasets"] = [known.get(n, DatasetEntry(dataset=n)) for n in names]
        if self.task or self.split:
            entries = changes.get("datasets", suite.datasets)
            changes["datasets"] = [self._entry(entry) for entry in entries]
        if self.method or self.sets or self.panel:
            changes["methods"] = self._methods(suite.methods)
        for name, values in (("ks", self.k), ("seeds", self.seed)):
            if values:
                changes[name] = tuple(values)
        if self.evaluator:
            changes["evaluators"] = [EvaluatorEntry(evaluator=n) for n in self.evaluator]
        if self.constraints:
            changes["constraints"] = read_constraints(self.constraints, suite.constraints)
        if self.max_cells is not None:
            changes["max_cells"] = self.max_cells
        if not changes:
            return suite
        if not self.evaluator:
            changes["evaluators"] = _narrowed(
                suite.evaluators,
                {e.method for e in changes.get("methods", suite.methods)},
                set(changes.get("ks", suite.ks)),
            )
        # Tables of a part must not overwrite those of the whole, nor name what is not there.
        part = f"{suite.name}-{own.id}" if own else f"{suite.name}-part"
        changes |= {"name": part, "tables": (), "figures": ()}
        return parse(SuiteSpec, {**dict(suite), **changes}, f"suite {suite.name} with options")

    def _entry(self, entry: DatasetEntry) -> DatasetEntry:
        changes: dict[str, Any] = {"tasks": tuple(self.task)} if self.task else {}
        if self.split:
            changes["split"] = self._by_groups(entry)
        return entry.model_copy(update=changes)

    def _by_groups(self, entry: DatasetEntry) -> SplitSpec:
        """The split that is asked for, of the groups that are named here or known."""
        spec = find_dataset(entry.dataset, self.catalogue())
        before = entry.split or spec.split
        group = self.group or before.group or spec.group
        given = {"scheme": self.split, "group": group, "test": before.test}
        return parse(SplitSpec, given, f"--split {self.split}, data set {spec.id}")

    def _methods(self, suite: Sequence[MethodEntry]) -> list[MethodEntry]:
        params: dict[str, dict[str, Any]] = {}
        for name, value in self.sets.items():
            method, dot, parameter = name.partition(".")
            if not dot:
                raise ConfigError(f"--set {name}: write METHOD.PARAMETER=VALUE")
            params.setdefault(method, {})[parameter] = value
        chosen = [e for e in suite if not self.method or e.method in self.method]
        chosen += [
            MethodEntry(method=name)
            for name in self.method
            if name not in {entry.method for entry in chosen}
        ]
        if self.panel:
            chosen = [*self._panels(), *(chosen if self.method else [])]
        for method in params:
            if method not in {entry.method for entry in chosen}:
                raise UnknownName("method", method, {e.method for e in chosen}, "--set")
        return [
            e.model_copy(update={"params": {**e.params, **params.get(e.method, {})}})
            for e in chosen
        ]

    def _panels(self) -> list[MethodEntry]:
        """A row for each panel that is given."""
        stems = [path.stem for path in self.panel]
        entries = []
        for path in self.panel:
            genes = read_panel(path)
            short = next((k for k in self.k if k > len(genes)), None)
            if short is not None:
                raise ConfigError(f"--panel {path}: {len(genes)} genes, fewer than --k {short}")
            label = path.stem if stems.count(path.stem) == 1 else str(path)
            sizes = tuple(self.k) or (len(genes),)
            entries.append(
                MethodEntry(method="given", params={"genes": genes}, label=label, ks=sizes)
            )
        return entries

    def _panel_sizes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(len(read_panel(path)) for path in self.panel))


def _narrowed(
    entries: Sequence[EvaluatorEntry], methods: set[str], ks: set[int]
) -> list[EvaluatorEntry]:
    """Evaluators restricted to what a part of a suite still has; those left without any go."""
    found = []
    for entry in entries:
        kept = entry.model_copy(
            update={
                "methods": entry.methods and tuple(m for m in entry.methods if m in methods),
                "ks": entry.ks and tuple(k for k in entry.ks if k in ks),
            }
        )
        if kept.methods != () and kept.ks != ():
            found.append(kept)
    return found


_SHIPPED = "panelbench.suite.shipped"


def suite_names() -> list[str]:
    """Names of the suites that ship with panelbench."""
    return named.names(_SHIPPED)


def load_suite(name: str) -> SuiteSpec:
    """Load a suite by name, or from a YAML file; see `named.load`."""
    return named.load(SuiteSpec, "suite", name, _SHIPPED)


def parse_sets(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``method.param=value`` into names and values; values are read as YAML."""
    found: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write METHOD.PARAMETER=VALUE")
        try:
            found[name.strip()] = load_yaml(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {item}: cannot read the value {value!r}") from None
    return found
