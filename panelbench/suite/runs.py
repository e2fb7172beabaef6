"""What a plan consists of: data sets, selections, evaluations, each with its exact key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.method import Method
from panelbench.records.keys import digest
from panelbench.records.store import Address
from panelbench.registry import Broken
from panelbench.scoring.evaluators import EVALUATORS
from panelbench.suite.specs import CLEAN, NoiseLevel, SuiteSpec


@dataclass(frozen=True)
class Dataset:
    """A data set as a suite uses it.

    Attributes
    ----------
    spec
        Catalogue entry with the suite's recipe and split, recipe options filled in.
    tasks
        The tasks the suite asks for, in its order.
    key, identity
        Of the prepared matrix (labels apart).
    file
        Name of the prepared file without suffix: the matrix with all labels of the data set.
    slot
        Digest of recipe and split: what was asked, whatever the versions.
    split_identity
        Fields that, with a seed, decide which cells are training and test cells, and the
        fold's genes.
    problem
        Why nothing can be planned on it, "" when all is well.
    """

    spec: DatasetSpec
    tasks: tuple[TaskSpec, ...]
    key: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    slot: str = ""
    split_identity: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def id(self) -> str:
        """Id of the data set."""
        return self.spec.id

    def split_key(self, seed: int) -> str:
        """Key of the fold of a seed: training and test cells, and what is fitted on the former."""
        return digest({**self.split_identity, "seed": seed})


@dataclass(frozen=True)
class Declared:
    """What tables need to know of a method; see `Method`.

    The defaults are what is assumed of one that cannot be imported.
    """

    supervised: bool = False
    multitask: bool = False
    predictor: bool = False
    sparse_selection: bool = True
    end_to_end: bool = False
    nested: bool = True
    cut: bool = True
    cite: str = ""

    @classmethod
    def of(cls, method: Method) -> Declared:
        """What a method declares."""
        return cls(
            supervised=method.supervised,
            multitask=method.multitask,
            predictor=method.predictor is not None,
            sparse_selection=method.sparse_selection,
            end_to_end=method.end_to_end,
            nested=method.nested,
            cut=method.cut,
            cite=method.cite,
        )


@dataclass(frozen=True)
class Row:
    """A row of the tables: one method of the suite with its parameters.

    Attributes
    ----------
    variant
        Unique name: the method id, and the parameters that differ from the defaults, as
        ``mrmr-f[relevance=rf]``.
    label
        Name in tables.
    method
        Method id.
    declared
        What the method declares.
    """

    variant: str
    label: str
    method: str
    declared: Declared = Declared()


@dataclass(frozen=True)
class SelectRun:
    """One selection: a method with parameters on the training cells of one split."""

    dataset: Dataset
    method: str
    variant: str
    label: str
    params: Mapping[str, Any]
    tasks: tuple[str, ...]
    k: int
    seed: int
    noise: float
    identity: Mapping[str, Any]
    key: str
    slot: str
    declared: Method | Broken
    minutes: float = 0.0

    @property
    def address(self) -> Address:
        """Where its records lie."""
        return Address(self.dataset.id, self.method, self.key)

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return "select"

    @property
    def asked(self) -> dict[str, Any]:
        """What tables need to know, JSON-ready."""
        return {
            "variant": self.variant,
            "label": self.label,
            "params": dict(self.params),
            "tasks": list(self.tasks),
            "k": self.k,
            "seed": self.seed,
            "noise": self.noise,
        }

    def describe(self) -> str:
        """One line for people."""
        tasks = f" for {'+'.join(self.tasks)}" if self.tasks else ""
        return f"select {self.variant} on {self.dataset.id}{tasks}, k {self.k}, seed {self.seed}"


@dataclass(frozen=True)
class EvaluateRun:
    """One evaluation: a panel scored for one task by one evaluator.

    `levels` are the levels of label noise that it answers for: without labels, a selection is
    the same at all of them.
    """

    select: SelectRun
    evaluator: str
    evaluator_variant: str
    params: Mapping[str, Any]
    task: TaskSpec
    k: int
    noise: float
    identity: Mapping[str, Any]
    key: str
    slot: str
    levels: tuple[NoiseLevel, ...] = (CLEAN,)

    @property
    def dataset(self) -> Dataset:
        """The data set of its selection."""
        return self.select.dataset

    @property
    def address(self) -> Address:
        """Where its records lie."""
        return Address(self.dataset.id, self.select.method, self.key)

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return "evaluate"

    @property
    def kind(self) -> str:
        """What its metrics are about: that of the task, or the evaluator's own."""
        return EVALUATORS[self.evaluator].kind or self.task.kind

    @property
    def asked(self) -> dict[str, Any]:
        """What tables need to know, JSON-ready."""
        return {
            "variant": self.select.variant,
            "label": self.select.label,
            "evaluator": self.evaluator_variant,
            "task": self.task.name,
            "kind": self.kind,
            "k": self.k,
            "seed": self.select.seed,
            "noise": self.noise,
        }

    def describe(self) -> str:
        """One line for people."""
        size = f"k {self.k}" if self.k else "all genes"
        return (
            f"evaluate {self.select.variant} on {self.dataset.id} {self.task.name}, {size}, "
            f"seed {self.select.seed}, {self.evaluator_variant}"
        )


Run = SelectRun | EvaluateRun


@dataclass(frozen=True)
class Plan:
    """All runs of a suite, without duplicates, and what its tables are made of."""

    suite: SuiteSpec
    datasets: tuple[Dataset, ...]
    rows: tuple[Row, ...]
    selections: tuple[SelectRun, ...]
    evaluations: tuple[EvaluateRun, ...]

    def shard(self, index: int, count: int) -> Plan:
        """The runs of one of `count` shards; evaluations stay with their selection."""
        mine = {s.key for s in self.selections if int(s.key[:8], 16) % count == index}
        return replace(
            self,
            selections=tuple(s for s in self.selections if s.key in mine),
            evaluations=tuple(e for e in self.evaluations if e.select.key in mine),
        )
