"""Do a design: try selectors on parts of the cells, take one, let it choose from all cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.data.fetch import source_checksum
from panelbench.data.specs import DatasetSpec
from panelbench.design.choice import Candidate, Choice, choose, enough
from panelbench.design.selectors import CONTROL
from panelbench.design.suites import FOLDS, METRIC, Asked
from panelbench.errors import ConfigError, InputError, PanelbenchError
from panelbench.records.facts import read_facts
from panelbench.records.store import Record
from panelbench.registry import discover, discover_evaluators
from panelbench.report.collect import collect
from panelbench.report.results import Results, SelectionLine
from panelbench.running.executor import Executor
from panelbench.running.settings import Settings
from panelbench.running.states import StageSummary, State
from panelbench.scoring.panel_metrics import stability
from panelbench.stages.panel import panel_of
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request
from panelbench.suite.runs import Plan, Run, SelectRun
from panelbench.suite.specs import MethodEntry, SuiteSpec

Said = Callable[[StageSummary], None]


@dataclass(frozen=True)
class Found:
    """All that a design found out; `panelbench.design.page` tells it.

    Attributes
    ----------
    asked, folds
        What was asked for, and in how many parts the cells were divided.
    facts
        Of the data set.
    choice, k
        Selectors by the rule, and the size that the page is about.
    parts, closer, ceiling
        Results of the suites (`panelbench.design.suites`).
    final, records
        The winner's selection from all cells: its run at `k`, and its record at each size.
    prepared
        The prepared file of all cells.
    states
        Where each run stands.
    """

    asked: Asked
    folds: int
    facts: Mapping[str, Any]
    choice: Choice
    k: int
    parts: Results
    closer: Results
    ceiling: Results
    final: SelectRun
    records: Mapping[int, Record]
    prepared: Path
    states: Sequence[tuple[Run, State]]

    @property
    def record(self) -> Record:
        """The final selection of the size that the page is about."""
        return self.records[self.k]

    @property
    def panel(self) -> list[str]:
        """The panel, in its order."""
        return panel_of(self.record.result, self.k)


def perform(
    request: Request,
    settings: Settings,
    folds: int = FOLDS,
    said: Said = lambda summary: None,
    *,
    maps: bool = True,
) -> Found:
    """Do all runs of a design that are not done yet.

    Parameters
    ----------
    request
        Data, label, sizes, and perhaps selectors and constraints.
    settings
        `Settings.results` is the folder of the design.
    folds
        Parts of the cells; fewer where there are fewer groups.
    said
        Called with each stage's summary.
    maps
        Lay cells out in the plane (UMAP) for pictures.

    Raises
    ------
    InputError
        For data that do not fit, and what cannot be asked for.
    PanelbenchError
        When no selector has a score everywhere, or the winner finds no panel on all cells.
    """
    if folds < 2:
        raise ConfigError(f"--folds {folds}: at least two parts take turns")
    asked = Asked.of(request)
    with Executor(settings) as executor:
        runs = _Runs(executor, asked, said)
        whole = runs.prepare(asked.final((), asked.base.ks))
        facts = read_facts(executor.facts(whole.datasets[0]))
        folds = n_parts(folds, facts, asked.group)
        parts = runs.results(asked.parts(folds))
        choice = choose(_candidates(parts, asked, facts))
        winner = _entry(asked, choice.winner.variant, parts)
        k = enough(choice.winner.scores)
        closer = runs.results(asked.closer(folds, winner, k, maps=maps))
        ceiling = runs.results(asked.ceiling(folds, k, maps=maps))
        final = runs.do(asked.final([winner], asked.base.ks), evaluate=False)
        chosen = {size: runs.selection(final, size) for size in asked.base.ks}
        return Found(
            asked=asked,
            folds=folds,
            facts=facts,
            choice=choice,
            k=k,
            parts=parts,
            closer=closer,
            ceiling=ceiling,
            final=chosen[k][0],
            records={size: record for size, (_, record) in chosen.items()},
            prepared=executor.prepared(whole.datasets[0]),
            states=runs.states,
        )


class _Runs:
    """Plans suites and does what is missing of them, with one pool of workers."""

    def __init__(self, executor: Executor, asked: Asked, said: Said) -> None:
        self._executor, self._asked, self._said = executor, asked, said
        settings = executor.settings
        self._registry = discover(settings.methods_dirs)
        self._evaluators = discover_evaluators(settings.evaluators_dirs)
        self.states: list[tuple[Run, State]] = []

    def _plan(self, suite: SuiteSpec) -> Plan:
        settings = self._executor.settings
        downloads = settings.cache / "downloads"

        def checksum(spec: DatasetSpec) -> str:
            return source_checksum(spec, downloads, settings.mirrors, download=True)

        return make_plan(suite, self._asked.catalogue, self._registry, checksum, self._evaluators)

    def prepare(self, suite: SuiteSpec) -> Plan:
        """Prepare the data of a suite."""
        plan = self._plan(suite)
        self._said(self._executor.preprocess(plan))
        for dataset in plan.datasets:
            problem = self._executor.states.problems.get(dataset.file)
            if problem:
                name = dataset.id
                raise InputError(problem if name in problem else f"data set {name}: {problem}")
        return plan

    def do(self, suite: SuiteSpec, *, evaluate: bool = True) -> Plan:
        """Do the runs of a suite."""
        plan = self.prepare(suite)
        self._said(self._executor.select(plan))
        if evaluate:
            self._said(self._executor.evaluate(plan))
        runs: list[Run] = [*plan.selections, *plan.evaluations]
        self.states += [(run, self._executor.states.of(run)) for run in runs]
        return plan

    def results(self, suite: SuiteSpec) -> Results:
        """Do the runs of a suite, and gather their records."""
        plan = self.do(suite)
        return collect(plan, self._executor.store).printable()

    def selection(self, plan: Plan, k: int) -> tuple[SelectRun, Record]:
        """The selection of a plan that serves a size."""
        run = min((run for run in plan.selections if run.k >= k), key=lambda run: run.k)
        state = self._executor.states.of(run)
        if state.record is None or state.status != "done":
            raise PanelbenchError(
                f"{run.row.label} won on parts of the cells and has no panel of {k} genes from "
                f"all of them: {state.why or state.status}"
            )
        return run, state.record


def n_parts(folds: int, facts: Mapping[str, Any], group: str | None) -> int:
    """Parts of the cells: as many as there are groups at most."""
    if group is None:
        return folds
    groups = facts.get("groups") or {}
    if len(groups) < 2:
        raise ConfigError(f"--group {group}: there is one group only, and none may be divided")
    return min(folds, len(groups))


def _entry(asked: Asked, variant: str, parts: Results) -> MethodEntry:
    """The suite's entry of a row."""
    place = [row.variant for row in parts.rows].index(variant)
    return asked.methods[place]


def _panels(selections: Sequence[SelectionLine], k: int) -> list[Sequence[str]]:
    """Panels of a size, one for each part; those of a ranking that serves all sizes are cut."""
    mine = [line for line in selections if line.k == k] or selections
    return [line.ranking[:k] for line in mine]


def _candidates(parts: Results, asked: Asked, facts: Mapping[str, Any]) -> list[Candidate]:
    """How each selector did on the parts."""
    found = []
    for row in parts.rows:
        lines = [line for line in parts.scores if line.row == row]
        selections = [line for line in parts.selections if line.row == row]
        scores = {}
        for k in asked.base.ks:
            mine = sorted((line for line in lines if line.k == k), key=lambda line: line.seed)
            scores[k] = np.array([line.metrics.get(METRIC, np.nan) for line in mine])
        problems = [f"{line.status}: {line.reason}" for line in selections if line.status != "ok"]
        problems += [f"{line.status}: {line.reason}" for line in lines if line.status != "ok"]
        good = [line for line in selections if line.status == "ok"]
        steady = [stability(some, int(facts["genes"])).value for k in asked.base.ks
                  if len(some := _panels(good, k)) > 1]  # fmt: skip
        found.append(
            Candidate(
                variant=row.variant,
                label=row.label,
                scores=scores,
                stability=float(np.mean(steady)) if steady else float("nan"),
                seconds=float(np.mean([line.seconds for line in good])) if good else float("nan"),
                problem=problems[0] if problems else "",
                competes=row.method != CONTROL,
            )
        )
    return found
