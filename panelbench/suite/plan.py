"""From a suite to the runs it needs: every run once, each under its exact key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from panelbench.data.catalogue import find_dataset
from panelbench.data.read import reader_module
from panelbench.data.recipes import resolve
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.errors import ConfigError, InputError, UnknownName
from panelbench.method import Method, NoParams
from panelbench.params import make_params, params_dict, variant_name
from panelbench.records.code import code_digest
from panelbench.records.keys import digest, library_versions
from panelbench.registry import Broken, Evaluators, Registry, discover_evaluators
from panelbench.scoring.metrics import metric
from panelbench.stages.questions import (
    FOLD_FIELDS,
    LABEL_FIELDS,
    MATRIX_FIELDS,
    EvaluateQuestion,
    SelectQuestion,
    spec_fields,
)
from panelbench.suite.runs import Dataset, Declared, EvaluateRun, Plan, Row, Run, SelectRun
from panelbench.suite.scoring_plan import Scorer, make_scorer
from panelbench.suite.specs import (
    DatasetEntry,
    FigureSpec,
    MethodEntry,
    NoiseLevel,
    SuiteSpec,
    TableSpec,
)

_PREPARE, _FOLD = "panelbench.stages.preprocess", "panelbench.stages.fold"
_SELECT, _EVALUATE = "panelbench.stages.selection", "panelbench.stages.evaluation"


def make_plan(
    suite: SuiteSpec,
    catalogue: Mapping[str, DatasetSpec],
    registry: Registry,
    checksum: Callable[[DatasetSpec], str],
    evaluators: Evaluators | None = None,
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

    Raises
    ------
    ConfigError
        For unknown data sets, tasks, methods, parameters or evaluators.
    """
    datasets = tuple(_dataset(entry, catalogue, checksum, suite) for entry in suite.datasets)
    if datasets and all(item.problem for item in datasets):
        raise InputError(datasets[0].problem)
    evaluators = discover_evaluators() if evaluators is None else evaluators
    _check_tables(suite, datasets, evaluators)
    chosen = [_method(entry, registry, suite) for entry in suite.methods]
    methods = [declared for _, declared, _ in chosen]
    scorers = [make_scorer(entry, suite, methods, evaluators) for entry in suite.evaluators]
    selections: dict[str, SelectRun] = {}
    evaluations: dict[str, EvaluateRun] = {}
    for dataset in datasets:
        for row, declared, params in chosen:
            mine = [scorer for each in scorers for scorer in each.for_method(declared)]
            for seed, level in itertools.product(suite.seeds, suite.noise_levels):
                runs = _selections(suite, dataset, row, declared, params, seed, registry, level)
                selections |= {run.key: run for run, _ in runs}
                for run, uses in runs:
                    for (task, k), scorer in itertools.product(uses, mine):
                        if scorer.scores(run, k):
                            item = _evaluation(run, scorer, task, k, level)
                            known = evaluations.get(item.key, item)
                            levels = tuple(dict.fromkeys((*known.levels, level)))
                            evaluations[item.key] = replace(known, levels=levels)
    return Plan(
        suite=suite,
        datasets=datasets,
        rows=tuple(row for row, _, _ in chosen),
        selections=tuple(selections.values()),
        evaluations=tuple(evaluations.values()),
        evaluators=evaluators,
    )


def _check_tables(suite: SuiteSpec, datasets: Sequence[Dataset], evaluators: Evaluators) -> None:
    """Tables and figures must name what the suite has: an empty table helps nobody."""
    tasks = {task.name for dataset in datasets for task in dataset.tasks}
    items: tuple[TableSpec | FigureSpec, ...] = (*suite.tables, *suite.figures)
    for item in items:
        where = f"suite {suite.name}, {'table' if item in suite.tables else 'figure'} {item.name}"
        for name in item.metrics if isinstance(item, TableSpec) else (item.metric,):
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
) -> Dataset:
    where = f"suite {suite.name}"
    spec = find_dataset(entry.dataset, catalogue)
    changes: dict[str, Any] = {
        "recipe": resolve(spec.recipe if entry.recipe is None else entry.recipe)
    }
    if entry.split is not None:
        changes["split"] = entry.split
    spec = spec.model_copy(update=changes)
    known = {task.name: task for task in spec.tasks}
    for name in entry.tasks or ():
        if name not in known:
            raise UnknownName("task", name, known, f"{where}, data set {spec.id}")
    tasks = tuple(known[name] for name in entry.tasks) if entry.tasks else spec.tasks
    if not tasks:
        raise ConfigError(f"data set {spec.id} has no task: add one, or name a label column")
    try:
        return _with_keys(Dataset(spec=spec, tasks=tasks), checksum(spec))
    except InputError as error:
        return _with_keys(Dataset(spec=spec, tasks=tasks, problem=str(error)), "unknown")


def _with_keys(dataset: Dataset, checksum: str) -> Dataset:
    spec = dataset.spec
    identity = {
        "stage": "prep",
        **spec_fields(spec, MATRIX_FIELDS),
        "source": checksum,
        "code": code_digest(_PREPARE, [reader_module(spec.reader)] if spec.reader else []),
        "libraries": library_versions(["anndata", "numpy", "scanpy"]),
    }
    key = digest(identity)
    fold = {
        "stage": "fold",
        "prep": key,
        **spec_fields(spec, FOLD_FIELDS),
        "stratify": spec.tasks[0].model_dump(mode="json") if spec.tasks else None,
        "code": code_digest(_FOLD),
        # Highly variable genes of a fold come from scanpy with scikit-misc, splits from
        # scikit-learn.
        "libraries": library_versions(["scikit-learn", "scikit-misc"]),
    }
    return replace(
        dataset,
        key=key,
        identity=identity,
        file=digest([key, spec_fields(spec, LABEL_FIELDS)]),
        question=digest(spec_fields(spec, ("id", "recipe", "split"))),
        fold_identity=fold,
    )


# -- rows ----------------------------------------------------------------------------------


def _method(
    entry: MethodEntry, registry: Registry, suite: SuiteSpec
) -> tuple[Row, Method | Broken, Any]:
    if entry.method in registry.broken:
        broken = registry.broken[entry.method]
        row = Row(entry.method, entry.label or entry.method, entry.method)
        return row, broken, NoParams()
    method = registry.get(entry.method)
    params = make_params(method, entry.params, f" in suite {suite.name}")
    variant = variant_name(method.id, params)
    label = entry.label or variant.replace(method.id, method.label, 1)
    return Row(variant, label, method.id, Declared.of(method)), method, params


# -- runs ----------------------------------------------------------------------------------


def _selections(
    suite: SuiteSpec,
    dataset: Dataset,
    row: Row,
    declared: Method | Broken,
    params: Any,
    seed: int,
    registry: Registry,
    level: NoiseLevel,
) -> list[tuple[SelectRun, list[tuple[TaskSpec, int | None]]]]:
    """Selections of one row on one split, each with the (task, k) pairs it serves."""
    supervised = row.declared.supervised
    groups: list[tuple[TaskSpec, ...]]
    if not supervised:
        groups = [()]
    elif row.declared.multitask:
        groups = [dataset.tasks]
    else:
        groups = [(task,) for task in dataset.tasks]
    cut = row.declared.cut
    sizes = [max(suite.ks)] if row.declared.nested else sorted(set(suite.ks))
    found = []
    for tasks in groups:
        for k in sizes:
            # Without labels there is no label noise.
            noise = level.fraction if tasks else 0.0
            run = _selection(dataset, row, declared, params, seed, tasks, k, registry, noise)
            ks = suite.ks if row.declared.nested else (k,)
            uses = [
                (task, size)
                for task in (tasks or dataset.tasks)
                for size in (dict.fromkeys(ks) if cut else (None,))
            ]
            found.append((run, uses))
    return found


def _selection(
    dataset: Dataset,
    row: Row,
    declared: Method | Broken,
    params: Any,
    seed: int,
    tasks: tuple[TaskSpec, ...],
    k: int,
    registry: Registry,
    noise: float,
) -> SelectRun:
    question = SelectQuestion(
        fold=dataset.fold_key(seed),
        method=row.method,
        params=params_dict(params),
        tasks=tasks,
        k=k,
        seed=seed,
        nested=row.declared.nested,
        noise=noise,
    )
    asked = question.identity()
    identity = {
        "stage": "select",
        **asked,
        "version": getattr(declared, "version", 0),
        "source": registry.source_digest(row.method),
        "code": code_digest(_SELECT),
        "libraries": library_versions(getattr(declared, "libraries", ())),
    }
    return SelectRun(
        dataset=dataset,
        row=row,
        question=question,
        identity=identity,
        key=digest(identity),
        question_digest=digest([dataset.question, {**asked, "fold": None}]),
        declared=declared,
    )


def _evaluation(
    select: SelectRun, scorer: Scorer, task: TaskSpec, k: int | None, level: NoiseLevel
) -> EvaluateRun:
    evaluator = scorer.evaluator
    noisy = level.variant == "both" and evaluator.noisy
    question = EvaluateQuestion(
        select=select.key,
        fold=select.question.fold,
        evaluator=evaluator.id,
        params=params_dict(scorer.params),
        task=task,
        k=k,
        seed=select.seed,
        noise=level.fraction if noisy else 0.0,
    )
    asked = question.identity()
    identity = {
        "stage": "evaluate",
        **asked,
        "version": evaluator.version,
        "source": scorer.source,
        "code": code_digest(_EVALUATE),
        "libraries": library_versions(evaluator.libraries),
    }
    return EvaluateRun(
        select=select,
        question=question,
        evaluator_variant=scorer.variant,
        identity=identity,
        key=digest(identity),
        question_digest=digest([select.question_digest, {**asked, "select": None, "fold": None}]),
        declared=evaluator,
        levels=(level,),
    )


def stage_module(run: Run) -> str:
    """Module whose code does a run."""
    return _SELECT if isinstance(run, SelectRun) else _EVALUATE
