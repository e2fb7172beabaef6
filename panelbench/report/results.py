"""What the report reads: the records of a suite as typed lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from panelbench.params import validated, variant_name
from panelbench.registry import Evaluators, discover_evaluators
from panelbench.suite.runs import Row
from panelbench.suite.specs import CLEAN, NoiseLevel, SuiteSpec
from panelbench.text import printable, printable_parts

if TYPE_CHECKING:
    from panelbench.report.summary import Summary

Size = int | None
"""A panel size; None when the panel is not cut and holds all genes."""

NAN = float("nan")


def size_name(k: Size) -> str:
    """How people read a panel size."""
    return "all genes" if k is None else f"k = {k}"


@dataclass(frozen=True)
class EvaluatorRef:
    """An evaluator with its parameters.

    Attributes
    ----------
    variant
        Unique name: the id, and the parameters that differ from the defaults, as
        ``rf[n_estimators=500]``.
    id
        The evaluator.
    label
        Name in tables: ``RF[n_estimators=500]``.
    reads
        What it scores: the ``panel`` (with ``features``, perhaps), or what the method trained:
        ``predictor`` or ``reconstruction``.
    mode
        How the method's predictor is read; "" where it has one way only.
    """

    variant: str
    id: str = field(compare=False)
    label: str = field(compare=False)
    reads: str = field(compare=False)
    mode: str = field(compare=False, default="")

    @classmethod
    def of(
        cls,
        id: str,
        params: Mapping[str, Any] | None = None,
        evaluators: Evaluators | None = None,
    ) -> EvaluatorRef:
        """Refer to an evaluator with some parameters; the others have their defaults."""
        evaluator = (evaluators or discover_evaluators()).get(id)
        values = validated(evaluator.params, params or {}, f"evaluator {id}")
        return cls(
            variant=variant_name(id, values),
            id=id,
            label=variant_name(evaluator.label, values),
            reads=evaluator.reads,
            mode=getattr(values, "mode", ""),
        )

    @property
    def own(self) -> bool:
        """Whether what the method trained is scored, not a model trained on its panel."""
        return self.reads in ("predictor", "reconstruction")


@dataclass(frozen=True)
class SelectionLine:
    """A planned selection, whether it has run or not.

    Attributes
    ----------
    dataset, row, tasks, k, seed, noise
        What was asked for: data set, method, tasks (none when unsupervised), the largest k, and
        the fraction of noisy labels that it saw.
    status, reason
        ``ok``, ``failed``, ``timeout``, ``oom``, ``skipped``, ``lost`` or ``missing``; why if not
        ``ok``.
    seconds, cpu_seconds, peak_memory_mb, gpu_memory_mb
        What it cost; NaN unless measured.
    ranking
        Gene names, best first, no more than `k`; empty unless ok.
    info, warnings
        What the method told, and what Python warned of.
    source_digest, started, host, versions
        Digest of the method's code, ISO time in UTC, machine, version of each library.
    key
        Of the record, or of the run where there is none.
    record
        Name and version of the record's file, "" where there is none.
    """

    dataset: str
    row: Row
    tasks: tuple[str, ...]
    k: int
    seed: int
    key: str
    noise: float = 0.0
    status: str = "ok"
    reason: str = ""
    seconds: float = NAN
    cpu_seconds: float = NAN
    peak_memory_mb: float = NAN
    gpu_memory_mb: float = NAN
    ranking: Sequence[str] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    source_digest: str = ""
    started: str = ""
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    record: str = ""


@dataclass(frozen=True)
class ScoreLine:
    """A planned evaluation at one level of label noise that it answers for.

    Attributes
    ----------
    dataset, row, evaluator, task, k, seed, noise
        What was asked for.
    kind
        That of the task, or ``expression`` or ``view``.
    beyond
        Whether more genes than the panel's were read.
    status, reason, seconds, cpu_seconds, peak_memory_mb, gpu_memory_mb, key, record
        As of a `SelectionLine`.
    metrics
        Empty unless ok.
    details
        What `classes`, `per_class_f1`, `confusion` and `by_class` are taken from: the result,
        which may have to be read from the record's file first.
    arrays
        Path of coordinates for pictures, "" if none.
    notes
        What the scores leave out.
    select_key
        Key of the selection that is scored.
    """

    dataset: str
    row: Row
    evaluator: EvaluatorRef
    task: str
    kind: str
    k: Size
    seed: int
    key: str
    select_key: str
    noise: NoiseLevel = CLEAN
    beyond: bool = False
    status: str = "ok"
    reason: str = ""
    seconds: float = NAN
    cpu_seconds: float = NAN
    peak_memory_mb: float = NAN
    gpu_memory_mb: float = NAN
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    arrays: str = ""
    notes: Sequence[str] = ()
    record: str = ""

    @cached_property
    def classes(self) -> Sequence[str]:
        """Names of the classes, fit to be shown."""
        return tuple(printable_parts(self.details.get("classes") or ()))

    @cached_property
    def per_class_f1(self) -> Mapping[str, float]:
        """F1 of each class."""
        return dict(printable_parts(self.details.get("per_class_f1") or {}))

    @cached_property
    def confusion(self) -> Sequence[Sequence[int]]:
        """Counts of cells, true classes in rows."""
        return self.details.get("confusion") or ()

    @cached_property
    def by_class(self) -> Mapping[str, Mapping[str, float]]:
        """Metrics of the reconstructed expression of each class."""
        return dict(printable_parts(self.details.get("by_class") or {}))


@dataclass(frozen=True)
class Results:
    """The records of one suite.

    Attributes
    ----------
    suite
        The suite.
    rows
        Its methods, in the suite's order.
    scores, selections
        One line per planned evaluation and level of label noise, and per planned selection.
    datasets
        Facts of each data set by id: ``title``, ``cells``, ``genes``, ``citation``,
        ``licence``, ``split``, ``tasks`` (name -> {class: number of cells}), ``markers``
        (class -> genes), ``notes``; whatever is unknown is absent.
    source
        Path of the data file of one's own that they are about, "" for data sets of a catalogue.
    evaluators
        Evaluators by id, with the metrics that they declare.
    stale
        Number of records made with other code or versions than those at hand. Not part of any
        table: tables are a function of the records alone.
    """

    suite: SuiteSpec
    rows: tuple[Row, ...]
    scores: Sequence[ScoreLine]
    selections: Sequence[SelectionLine]
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""
    evaluators: Evaluators = field(default_factory=discover_evaluators)
    stale: int = 0

    def printable(self) -> Results:
        """The same with every text made fit to be shown."""
        suite = self.suite
        titles = {
            name: tuple(
                item.model_copy(update={"title": printable(item.title)})
                for item in getattr(suite, name)
            )
            for name in ("tables", "figures")
        }
        texts = {name: printable(getattr(suite, name)) for name in ("title", "description")}
        return replace(
            self,
            suite=suite.model_copy(update={**texts, **titles}),
            rows=tuple(_printable(row, ("label",)) for row in self.rows),
            scores=[_printable(line, _SCORE_TEXTS) for line in self.scores],
            selections=[_printable(line, _SELECTION_TEXTS) for line in self.selections],
            datasets=printable_parts(self.datasets),
        )

    @cached_property
    def summary(self) -> Summary:
        """The scores by place and entrant, grouped once for all that show them."""
        from panelbench.report.summary import Summary

        return Summary(self)


_SCORE_TEXTS = ("task", "reason", "notes", "row")
_SELECTION_TEXTS = ("tasks", "reason", "ranking", "info", "warnings", "host", "versions", "row")


def _printable(item: Any, names: Sequence[str]) -> Any:
    """A dataclass with some of its fields made printable; itself when they are."""
    changed = {}
    for name in names:
        old = getattr(item, name)
        # Most of hundreds of thousands are empty, or plain.
        if not old or (type(old) is str and old.isprintable()):
            continue
        new = _printable(old, ("label",)) if isinstance(old, Row) else printable_parts(old)
        if new != old:
            changed[name] = new
    return replace(item, **changed) if changed else item
