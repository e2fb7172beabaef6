"""From a suite to the runs it needs: every run once, each under its exact key."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from panelbench.data.catalogue import find_dataset
from panelbench.data.read import reader_module
from panelbench.data.recipes import resolve
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.errors import ConfigError, InputError, UnknownName
from panelbench.records.code import code_digest
from panelbench.records.keys import digest, library_versions
from panelbench.registry import Evaluators, Registry, discover_evaluators
from panelbench.scoring.metrics import metric
from panelbench.stages.questions import (
    FOLD_FIELDS,
    LABEL_FIELDS,
    MATRIX_FIELDS,
    SelectQuestion,
    spec_fields,
)
from panelbench.suite.asked import Asked
from panelbench.suite.entrants import Entrant, make_entrant
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Run, SelectRun
from panelbench.suite.scoring_plan import Scorer, make_scorer
from panelbench.suite.specs import (
    DatasetEntry,
    FigureSpec,
    NoiseLevel,
    SuiteSpec,
    TableSpec,
)

_PREPARE, _FOLD = "panelbench.stages.preprocess", "panelbench.stages.fold"
_SELECT, _EVALUATE = "panelbench.stages.selection", "panelbench.stages.evaluation"

MAX_RUNS = 1_000_000
"""Runs of a suite beyond which planning asks back."""


def make_plan(
    suite: SuiteSpec,
    catalogue: Mapping[str, DatasetSpec],
    registry: Registry,
    checksum: Callable[[DatasetSpec], str],
    evaluators: Evaluators | None = None,
    max_runs: int = MAX_RUNS,
    shard: tuple[int, int] | None = None,
    said: Callable[[int], None] = lambda count: None,
) -> Plan:
    """Plan a suite.

    Parameters
    ----------
    suite
        The grid.
    catalogue
        Data sets by id.
    registry
        Methods by id.
    checksum
        Gives the digest of a data set's source files; an `InputError` from it becomes the data
        set's `problem`, unless it is the only data set.
    evaluators
        Evaluators by id; those that ship and those of installed packages by default.
    max_runs
        A larger grid is an error: it is rarely meant, and takes long to plan.
    shard
        ``(i, n)``: only the runs of shard i of n; evaluations stay with their selection.
    said
        Called first, with the most runs that there can be.

    Raises
    ------
    ConfigError
        For a grid that is too large, and for unknown data sets, tasks, methods, parameters or
        evaluators.
    """
    found = [_dataset(entry, catalogue, checksum, suite) for entry in suite.datasets]
    datasets = [dataset for dataset, _ in found]
    if datasets and all(item.problem for item in datasets):
        raise InputError(datasets[0].problem)
    said(_checked_size(suite, datasets, max_runs))
    evaluators = discover_evaluators() if evaluators is None else evaluators
    _check_tables(suite, datasets, evaluators)
    entrants = [make_entrant(entry, registry, suite) for entry in suite.methods]
    methods = [entrant.declared for entrant in entrants]
    scorers = [make_scorer(entry, suite, methods, evaluators) for entry in suite.evaluators]
    code = _Code(registry)
    planned = tuple(_with_keys(dataset, source, code) for dataset, source in found)
    runs = _Runs(suite, code)
    for dataset in planned:
        for entrant in entrants:
            mine = [scorer for each in scorers for scorer in each.for_method(entrant.declared)]
            runs.add(dataset, entrant, mine)
    if shard is not None:
        runs.keep(*shard)
    runs.evaluate()
    return Plan(
        suite=suite,
        datasets=planned,
        rows=tuple(entrant.row for entrant in entrants),
        selections=tuple(runs.selections.values()),
        evaluations=tuple(runs.evaluations.values()),
        evaluators=evaluators,
    )


def _checked_size(suite: SuiteSpec, datasets: Sequence[Dataset], limit: int) -> int:
    """Say at once when a grid is too large to be meant."""
    tasks = sum(len(dataset.tasks) for dataset in datasets)
    grid = len(suite.methods) * len(suite.seeds) * len(suite.noise_levels) * tasks
    count = grid * len(suite.ks) * (1 + len(suite.evaluators))
    if count > limit:
        raise ConfigError(
            f"suite {suite.name} asks for up to {count:,} runs ({len(datasets)} data sets x "
            f"{len(suite.methods)} methods x {len(suite.ks)} ks x {len(suite.seeds)} seeds x "
            f"{len(suite.evaluators)} evaluators and more); --max-runs {count} lets it"
        )
    return count


def _check_tables(suite: SuiteSpec, datasets: Sequence[Dataset], evaluators: Evaluators) -> None:
    """Tables and figures must name what the suite has: an empty table helps nobody."""
    tasks = {task.name for dataset in datasets for task in dataset.tasks}
    items: tuple[TableSpec | FigureSpec, ...] = (*suite.tables, *suite.figures)
    for item in items:
        where = f"suite {suite.name}, {'table' if item in suite.tables else 'figure'} {item.name}"
        for name in item.measures:
            metric(name, where, evaluators.metrics)
        for kind, asked, known in (
            ("data set", item.datasets, {dataset.id for dataset in datasets}),
            ("task", item.tasks, tasks),
            ("evaluator", item.evaluators, {entry.evaluator for entry in suite.evaluators}),
            ("k", map(str, item.ks or ()), set(map(str, suite.ks))),
            ("method", getattr(item, "methods", None), {entry.method for entry in suite.methods}),
        ):
            for name in asked or ():
                if name not in known and name.partition("[")[0] not in known:
                    raise UnknownName(kind, name, known, where)


# -- data sets -----------------------------------------------------------------------------


def _dataset(
    entry: DatasetEntry,
    catalogue: Mapping[str, DatasetSpec],
    checksum: Callable[[DatasetSpec], str],
    suite: SuiteSpec,
) -> tuple[Dataset, str]:
    where = f"suite {suite.name}"
    spec = find_dataset(entry.dataset, catalogue)
    changes: dict[str, Any] = {
        "recipe": resolve(spec.recipe if entry.recipe is None else entry.recipe)
    }
    if entry.split is not None:
        changes["split"] = entry.split
    if suite.max_cells is not None:
        changes["max_cells"] = suite.max_cells
    spec = spec.model_copy(update=changes)
    known = {task.name: task for task in spec.tasks}
    for name in entry.tasks or ():
        if name not in known:
            raise UnknownName("task", name, known, f"{where}, data set {spec.id}")
    tasks = tuple(known[name] for name in entry.tasks) if entry.tasks else spec.tasks
    if not tasks:
        raise ConfigError(f"data set {spec.id} has no task: add one, or name a label column")
    try:
        return Dataset(spec=spec, tasks=tasks), checksum(spec)
    except InputError as error:
        return Dataset(spec=spec, tasks=tasks, problem=str(error)), "unknown"


def _with_keys(dataset: Dataset, checksum: str, code: _Code) -> Dataset:
    spec = dataset.spec
    identity = {
        "stage": "prep",
        **spec_fields(spec, MATRIX_FIELDS),
        "source": checksum,
        "code": code.digest(_PREPARE, *([reader_module(spec.reader)] if spec.reader else [])),
        "libraries": library_versions(["anndata", "numpy", "scanpy"]),
    }
    key = digest(identity)
    fold = {
        "stage": "fold",
        "prep": key,
        **spec_fields(spec, FOLD_FIELDS),
        "stratify": spec.tasks[0].model_dump(mode="json") if spec.tasks else None,
        "code": code.digest(_FOLD),
        # Highly variable genes of a fold come from scanpy with scikit-misc, splits from
        # scikit-learn.
        "libraries": library_versions(["scikit-learn", "scikit-misc"]),
    }
    return replace(
        dataset,
        key=key,
        identity=identity,
        file=digest([key, spec_fields(spec, LABEL_FIELDS)]),
        question=digest(spec_fields(spec, ("id", "recipe", "split", "max_cells"))),
        fold_identity=fold,
    )


# -- runs ----------------------------------------------------------------------------------


class _Code:
    """Digests of code, each made once for a plan."""

    def __init__(self, registry: Registry) -> None:
        self.method = cache(registry.source_digest)
        self.digest = cache(lambda module, *helpers: code_digest(module, helpers))


_Panel = tuple[TaskSpec, int | None, Scorer, NoiseLevel]
"""A task, a panel size, a way to score and a level of noise."""


class _Runs:
    """Selections and evaluations by key, so that what several parts ask for is done once."""

    def __init__(self, suite: SuiteSpec, code: _Code) -> None:
        self._suite, self._code = suite, code
        self.selections: dict[str, SelectRun] = {}
        self.evaluations: dict[str, EvaluateRun] = {}
        self._asked: dict[tuple[Any, ...], Asked] = {}
        self._panels: dict[str, list[Iterator[_Panel]]] = {}

    def keep(self, index: int, count: int) -> None:
        """Keep the selections of one of `count` shards of equal work, as far as it is known.

        The longest run goes to the shard that has the least so far; which is which does not
        depend on what has been done.
        """
        load = [(0.0, shard) for shard in range(count)]
        mine = set()
        for run in sorted(self.selections.values(), key=lambda run: (-_minutes(run), run.key)):
            work, shard = heapq.heappop(load)
            heapq.heappush(load, (work + _minutes(run), shard))
            if shard == index:
                mine.add(run.key)
        self.selections = {key: run for key, run in self.selections.items() if key in mine}

    def add(self, dataset: Dataset, entrant: Entrant, scorers: Sequence[Scorer]) -> None:
        """Add what a method does on a data set."""
        suite = self._suite
        sizes, groups = entrant.sizes(suite.ks), entrant.task_groups(dataset.tasks)
        for seed, level in itertools.product(suite.seeds, suite.noise_levels):
            for tasks, (k, served) in itertools.product(groups, sizes):
                # Without labels there is no label noise.
                noise = level.fraction if tasks else 0.0
                select = self._selection(dataset, entrant, tasks, k, seed, noise)
                panels = itertools.product(tasks or dataset.tasks, served, scorers, (level,))
                self._panels.setdefault(select.key, []).append(panels)

    def evaluate(self) -> None:
        """Add the evaluations of the selections that there are."""
        for key, select in self.selections.items():
            for task, size, scorer, level in itertools.chain(*self._panels[key]):
                if scorer.scores(select, task, size):
                    self._evaluation(select, scorer, task, size, level)

    def _selection(
        self,
        dataset: Dataset,
        entrant: Entrant,
        tasks: tuple[TaskSpec, ...],
        k: int,
        seed: int,
        noise: float,
    ) -> SelectRun:
        question = SelectQuestion(
            fold=dataset.fold_key(seed),
            method=entrant.row.method,
            params=entrant.params,
            tasks=tasks,
            k=k,
            seed=seed,
            nested=entrant.nested,
            noise=noise,
            constraints=self._suite.constraints,
        )
        asked = question.identity()
        identity = {
            "stage": "select",
            **asked,
            "version": getattr(entrant.declared, "version", 0),
            "source": self._code.method(entrant.row.method),
            "code": self._code.digest(_SELECT),
            "libraries": library_versions(getattr(entrant.declared, "libraries", ())),
        }
        own = getattr(entrant.declared, "environment", None)
        if own is not None:
            identity["environment"] = own.identity
        key = digest(identity)
        if key not in self.selections:
            self.selections[key] = SelectRun(
                dataset=dataset,
                row=entrant.row,
                question=question,
                identity=identity,
                key=key,
                question_digest=digest([dataset.question, {**asked, "fold": None}]),
                declared=entrant.declared,
            )
        return self.selections[key]

    def _evaluation(
        self, select: SelectRun, scorer: Scorer, task: TaskSpec, k: int | None, level: NoiseLevel
    ) -> None:
        noisy = level.variant == "both" and scorer.evaluator.noisy
        noise = level.fraction if noisy else 0.0
        same = (id(scorer), id(task), k, select.seed, noise)
        if same not in self._asked:
            code = self._code.digest(_EVALUATE)
            self._asked[same] = Asked.of(scorer, task, k, select.seed, noise, code)
        asked = self._asked[same]
        key = asked.key(select)
        known = self.evaluations.get(key)
        if known is None:
            self.evaluations[key] = asked.run(select, key, level)
        else:
            levels = tuple(dict.fromkeys((*known.levels, level)))
            self.evaluations[key] = replace(known, levels=levels)


def _minutes(run: SelectRun) -> float:
    return float(getattr(run.declared, "minutes", 0.0))


def stage_module(run: Run) -> str:
    """Module whose code does a run."""
    return _SELECT if isinstance(run, SelectRun) else _EVALUATE
