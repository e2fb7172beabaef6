"""What a table or figure shows: the data sets, tasks, panel sizes and rows that it names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from panelbench.errors import UnknownName
from panelbench.report.summary import Entrant, Summary
from panelbench.suite.specs import FigureSpec, TableSpec

Spec = TableSpec | FigureSpec


def where(spec: Spec) -> str:
    """Name of a table or figure in messages."""
    return f"{'table' if isinstance(spec, TableSpec) else 'figure'} {spec.name}"


def tasks(summary: Summary, spec: Spec) -> list[tuple[str, str]]:
    """Pairs of data set and task, in the suite's order.

    Raises
    ------
    UnknownName
        When a data set or task is named that the suite does not have.
    """
    known = sorted({task for names in summary.tasks.values() for task in names})
    _known("data set", spec.datasets, summary.datasets, spec)
    _known("task", spec.tasks, known, spec)
    return [
        (dataset, task)
        for dataset in summary.datasets
        for task in summary.tasks[dataset]
        if (spec.datasets is None or dataset in spec.datasets)
        and (spec.tasks is None or task in spec.tasks)
    ]


def sizes(summary: Summary, spec: Spec) -> list[int]:
    """Panel sizes, ascending; empty when no panel is cut.

    Raises
    ------
    UnknownName
        When a size is named that the suite does not have.
    """
    _known("k", spec.ks, sorted({*summary.ks, *summary.results.suite.ks}), spec)
    return [k for k in summary.ks if spec.ks is None or k in spec.ks]


def entrants(summary: Summary, spec: Spec, kinds: Collection[str]) -> list[Entrant]:
    """Rows with scores of some kinds planned on the chosen data sets, in the suite's order.

    A method or an evaluator is named with its parameters or, for all of its kind, by its id.

    Raises
    ------
    UnknownName
        When a method or evaluator is named that the suite does not have.
    """
    suite = summary.results.suite
    evaluators = {entry.evaluator for entry in suite.evaluators}
    evaluators |= {name for ref in summary.evaluators for name in (ref.variant, ref.id)}
    _known("evaluator", spec.evaluators, evaluators, spec)
    methods = spec.methods if isinstance(spec, FigureSpec) else None
    rows = summary.results.rows
    _known("method", methods, {name for row in rows for name in (row.variant, row.method)}, spec)
    datasets = {dataset for dataset, _ in tasks(summary, spec)}
    present = {
        entrant
        for (place, entrant), score in summary.scores.items()
        if place.dataset in datasets and (score.kind in kinds or set(kinds) == {"panel"})
    }
    found = [
        entrant
        for entrant in summary.entrants
        if entrant in present
        and _named(entrant.evaluator.variant, entrant.evaluator.id, spec.evaluators)
        and _named(entrant.row.variant, entrant.row.method, methods)
    ]
    own = {entrant.row for entrant in found if entrant.evaluator.own} if spec.own_only else set()
    return [entrant for entrant in found if entrant.evaluator.own or entrant.row not in own]


def _named(variant: str, id: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or variant in wanted or id in wanted


def _known(
    kind: str, wanted: Iterable[object] | None, known: Collection[object], spec: Spec
) -> None:
    for name in wanted or ():
        if name not in known:
            raise UnknownName(kind, str(name), sorted(map(str, known)), where(spec))
