"""From a suite to the runs it needs: every run once, each under its exact key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from panelbench.data.catalogue import find_dataset
from panelbench.data.read import reader_module
from panelbench.data.recipes import resolve
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.errors import ConfigError, InputError, UnknownName
from panelbench.method import Method, NoParams
from panelbench.params import make_params, params_dict, variant_name
from panelbench.records.keys import digest, library_versions, module_sources, source_digest
from panelbench.registry import Broken, Registry
from panelbench.scoring.metrics import metric
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Row, SelectRun
from panelbench.suite.scoring_plan import Scorer, make_scorer
from panelbench.suite.specs import (
    DatasetEntry,
    FigureSpec,
    MethodEntry,
    NoiseLevel,
    SuiteSpec,
    TableSpec,
)

_HERE = Path(__file__).parent.parent
_PREPARING = (
    "stages/preprocess.py",
    "stages/prepared.py",
    "data/read.py",
    "data/recipes.py",
    "data/steps.py",
    "data/gene_steps.py",
    "data/states.py",
    "data/scale.py",
    "data/checks.py",
)
_SPLITTING = ("stages/fold.py", "data/splits.py")
_GIVING = ("stages/task.py", "stages/prepared.py")
_SCORING = ("stages/task.py", "stages/evaluation.py", "scoring/evaluators.py", "scoring/metrics.py")
_SCORING_EXPRESSION = (
    "stages/task.py",
    "stages/evaluation.py",
    "scoring/reconstruction.py",
    "scoring/embeddings.py",
)


def _code(files: Iterable[str | Path]) -> str:
    return source_digest(_HERE / name for name in files)


def make_plan(
    suite: SuiteSpec,
    catalogue: Mapping[str, DatasetSpec],
    registry: Registry,
    checksum: Callable[[DatasetSpec], str],
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

    Raises
    ------
    ConfigError
        For unknown data sets, tasks, methods, parameters or evaluators.
    """
    datasets = tuple(_dataset(entry, catalogue, checksum, suite) for entry in suite.datasets)
    if datasets and all(item.problem for item in datasets):
        raise InputError(datasets[0].problem)
    _check_tables(suite, datasets)
    chosen = [_method(entry, registry, suite) for entry in suite.methods]
    scorers = [make_scorer(entry, suite, [declared for _, declared, _ in chosen])
               for entry in suite.evaluators]  # fmt: skip
    selections: dict[str, SelectRun] = {}
    evaluations: dict[str, EvaluateRun] = {}
    for dataset in datasets:
        for row, declared, params in chosen:
            mine = [way for scorer in scorers for way in scorer.ways(declared)]
            for seed, level in itertools.product(suite.seeds, suite.noise_levels):
                runs = _selections(suite, dataset, row, declared, params, seed, registry, level)
                selections |= {run.key: run for run, _ in runs}
                for run, uses in runs:
                    for (task, k), way in itertools.product(uses, mine):
                        if way.scores(run, k):
                            item = _evaluation(run, way, task, k, level)
                            known = evaluations.get(item.key, item)
                            levels = tuple(dict.fromkeys((*known.levels, level)))
                            evaluations[item.key] = replace(known, levels=levels)
    return Plan(
        suite=suite,
        datasets=datasets,
        rows=tuple(row for row, _, _ in chosen),
        selections=tuple(selections.values()),
        evaluations=tuple(evaluations.values()),
    )


def _check_tables(suite: SuiteSpec, datasets: Sequence[Dataset]) -> None:
    """Tables and figures must name what the suite has: an empty table helps nobody."""
    tasks = {task.name for dataset in datasets for task in dataset.tasks}
    items: tuple[TableSpec | FigureSpec, ...] = (*suite.tables, *suite.figures)
    for item in items:
        where = f"suite {suite.name}, {'table' if item in suite.tables else 'figure'} {item.name}"
        for name in item.metrics if isinstance(item, TableSpec) else (item.metric,):
            metric(name, where)
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
    recipe = [step.model_dump(mode="json") for step in spec.recipe]
    reader = module_sources(reader_module(spec.reader)) if spec.reader else []
    identity = {
        "stage": "prep",
        "dataset": spec.id,
        "source": checksum,
        "reader": spec.reader,
        "reader_options": spec.reader_options,
        "recipe": recipe,
        "code": _code([*_PREPARING, *reader]),
        "libraries": library_versions(["anndata", "numpy", "scanpy"]),
    }
    key = digest(identity)
    split = {
        "stage": "split",
        "prep": key,
        "split": spec.split.model_dump(mode="json"),
        "group": spec.group,
        "stratify": spec.tasks[0].model_dump(mode="json") if spec.tasks else None,
        "code": _code(_SPLITTING),
        # Highly variable genes of a fold come from scanpy with scikit-misc, splits from
        # scikit-learn.
        "libraries": library_versions(["scikit-learn", "scikit-misc"]),
    }
    labels = [task.model_dump(mode="json") for task in spec.tasks]
    return replace(
        dataset,
        key=key,
        identity=identity,
        file=digest([key, labels, spec.group, spec.split.group, spec.inputs]),
        slot=digest([spec.id, recipe, spec.split.model_dump(mode="json")]),
        split_identity=split,
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
    declared = {
        name: getattr(method, name)
        for name in (
            "supervised", "multitask", "sparse_selection", "end_to_end", "nested", "cut", "cite",
        )
    }  # fmt: skip
    declared["predictor"] = method.predictor is not None
    return Row(variant, label, method.id, declared), method, params


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
) -> list[tuple[SelectRun, list[tuple[TaskSpec, int]]]]:
    """Selections of one row on one split, each with the (task, k) pairs it serves."""
    supervised = bool(row.declared.get("supervised"))
    groups: list[tuple[TaskSpec, ...]]
    if not supervised:
        groups = [()]
    elif row.declared.get("multitask"):
        groups = [dataset.tasks]
    else:
        groups = [(task,) for task in dataset.tasks]
    cut = bool(row.declared.get("cut", True))
    sizes = [max(suite.ks)] if row.declared.get("nested", True) else sorted(set(suite.ks))
    found = []
    for tasks in groups:
        for k in sizes:
            # Without labels there is no label noise.
            noise = level.fraction if tasks else 0.0
            run = _selection(dataset, row, declared, params, seed, tasks, k, registry, noise)
            ks = suite.ks if row.declared.get("nested", True) else (k,)
            uses = [
                (task, size)
                for task in (tasks or dataset.tasks)
                for size in (dict.fromkeys(ks) if cut else (0,))
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
    nested = bool(row.declared.get("nested", True))
    asked = {
        "stage": "select",
        "method": row.method,
        "params": params_dict(params),
        "k": None if nested else k,
        "tasks": [task.model_dump(mode="json") for task in tasks],
        "noise": noise,
        "seed": seed,
    }
    libraries = declared.libraries if isinstance(declared, Method) else ()
    identity = {
        **asked,
        "split": dataset.split_key(seed),
        "version": getattr(declared, "version", 0),
        "source": registry.source_digest(row.method),
        "given": _code(_GIVING),
        "libraries": library_versions(libraries),
    }
    return SelectRun(
        dataset=dataset,
        method=row.method,
        variant=row.variant,
        label=row.label,
        params=params_dict(params),
        tasks=tuple(task.name for task in tasks),
        k=k,
        seed=seed,
        noise=noise,
        identity=identity,
        key=digest(identity),
        slot=digest([dataset.slot, asked]),
        declared=declared,
        minutes=getattr(declared, "minutes", 0.0),
    )


def _evaluation(
    select: SelectRun, scorer: Scorer, task: TaskSpec, k: int, level: NoiseLevel
) -> EvaluateRun:
    evaluator = scorer.evaluator
    # Only what is trained here on labels can be given noisy ones.
    noisy = level.variant == "both" and evaluator.reads == "panel" and not evaluator.kind
    noise = level.fraction if noisy else 0.0
    params = params_dict(scorer.params)
    asked = {
        "stage": "evaluate",
        "evaluator": evaluator.id,
        "params": dict(params),
        "k": k or "all",
        "task": task.model_dump(mode="json"),
        "noise": noise,
        "seed": select.seed,
    }
    identity = {
        **asked,
        "select": select.key,
        "code": _code(_SCORING_EXPRESSION if evaluator.kind else _SCORING),
        "libraries": library_versions(evaluator.libraries),
    }
    return EvaluateRun(
        select=select,
        evaluator=evaluator.id,
        evaluator_variant=scorer.variant,
        params=params,
        task=task,
        k=k,
        noise=noise,
        identity=identity,
        key=digest(identity),
        slot=digest([select.slot, asked]),
        levels=(level,),
    )
