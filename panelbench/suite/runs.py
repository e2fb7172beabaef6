"""What a plan consists of: data sets, selections, evaluations, each with its exact key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.evaluator import Evaluator
from panelbench.method import Method
from panelbench.records.keys import digest
from panelbench.records.store import Address
from panelbench.registry import Broken, Evaluators
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion
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
    question
        Digest of recipe and split: what was asked, whatever the versions.
    fold_identity
        Fields that, with a seed, decide which cells are training and test cells, and what comes
        with them.
    problem
        Why nothing can be planned on it, "" when all is well.
    """

    spec: DatasetSpec
    tasks: tuple[TaskSpec, ...]
    key: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    question: str = ""
    fold_identity: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def id(self) -> str:
        """Id of the data set."""
        return self.spec.id

    def fold_key(self, seed: int) -> str:
        """Key of the fold of a seed: training and test cells, and what is fitted on the former."""
        return digest({**self.fold_identity, "seed": seed})


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
    sizes_itself: bool = False
    cite: str = ""
    doi: str = ""

    @property
    def asked_size(self) -> bool:
        """Whether the panel has the size asked for, not all genes or as many as it finds."""
        return self.cut and not self.sizes_itself

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
            sizes_itself=method.sizes_itself,
            cite=method.cite,
            doi=method.doi,
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
    # Scores are looked up by row millions of times; the name tells rows apart.
    declared: Declared = field(default=Declared(), hash=False)


@dataclass(frozen=True)
class SelectRun:
    """One selection: a method with parameters on the training cells of one split.

    Attributes
    ----------
    dataset
        The data set.
    row
        The method with its parameters.
    question
        What the stage is asked.
    identity, key
        All that can change the answer, and its digest.
    question_digest
        Digest of what is asked, without code and versions.
    """

    dataset: Dataset
    row: Row
    question: SelectQuestion
    identity: Mapping[str, Any]
    key: str
    question_digest: str
    declared: Method | Broken

    @property
    def method(self) -> str:
        """Id of the method."""
        return self.question.method

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks to select for."""
        return tuple(task.name for task in self.question.tasks)

    @property
    def k(self) -> int:
        """Genes asked for."""
        return self.question.k

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.question.seed

    @property
    def noise(self) -> float:
        """Fraction of training labels that is redrawn."""
        return self.question.noise

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
            "variant": self.row.variant,
            "label": self.row.label,
            "params": dict(self.question.params),
            "tasks": list(self.tasks),
            "k": self.k,
            "seed": self.seed,
            "noise": self.noise,
        }

    def describe(self) -> str:
        """One line for people."""
        tasks = f" for {'+'.join(self.tasks)}" if self.tasks else ""
        return (
            f"select {self.row.variant} on {self.dataset.id}{tasks}, k {self.k}, "
            f"seed {self.seed}{_noise(self.noise)}"
        )


@dataclass(frozen=True)
class EvaluateRun:
    """One evaluation: a panel scored for one task by one evaluator.

    `levels` are the levels of label noise that it answers for: without labels, a selection is
    the same at all of them. The other attributes are as in `SelectRun`.
    """

    select: SelectRun
    question: EvaluateQuestion
    evaluator_variant: str
    identity: Mapping[str, Any]
    key: str
    question_digest: str
    declared: Evaluator
    levels: tuple[NoiseLevel, ...] = (CLEAN,)

    @property
    def dataset(self) -> Dataset:
        """The data set of its selection."""
        return self.select.dataset

    @property
    def row(self) -> Row:
        """The method with its parameters."""
        return self.select.row

    @property
    def evaluator(self) -> str:
        """Id of the evaluator."""
        return self.question.evaluator

    @property
    def task(self) -> TaskSpec:
        """The task to score."""
        return self.question.task

    @property
    def k(self) -> int | None:
        """Size of the panel, None for all genes."""
        return self.question.k

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
        return self.declared.kind or self.task.kind

    @property
    def asked(self) -> dict[str, Any]:
        """What tables need to know, JSON-ready."""
        return {
            "variant": self.row.variant,
            "label": self.row.label,
            "evaluator": self.evaluator_variant,
            "task": self.task.name,
            "kind": self.kind,
            "k": self.k,
            "seed": self.question.seed,
            "noise": self.question.noise,
        }

    def describe(self) -> str:
        """One line for people."""
        uncut = "as many genes as it takes" if self.row.declared.sizes_itself else "all genes"
        size = uncut if self.k is None else f"k {self.k}"
        return (
            f"evaluate {self.row.variant} on {self.dataset.id} {self.task.name}, {size}, "
            f"seed {self.question.seed}, {self.evaluator_variant}{_noise(self.question.noise)}"
        )


def _noise(fraction: float) -> str:
    return f", {fraction:.0%} noise" if fraction else ""


Run = SelectRun | EvaluateRun


@dataclass(frozen=True)
class Plan:
    """All runs of a suite, without duplicates, and what its tables are made of."""

    suite: SuiteSpec
    datasets: tuple[Dataset, ...]
    rows: tuple[Row, ...]
    selections: tuple[SelectRun, ...]
    evaluations: tuple[EvaluateRun, ...]
    evaluators: Evaluators
