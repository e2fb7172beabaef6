"""The contract of an evaluator: what it declares, what it receives, what it returns.

An evaluator is a way to score a panel, a function in a module of its own::

    @dataclass(frozen=True)
    class Params:
        n_neighbors: Annotated[int, Ge(1)] = 5

    @evaluator("knn", label="kNN", params=Params, metrics=(*CLASSIFICATION, *REGRESSION))
    def score(given: Evaluation, params: Params) -> Scores: ...

Of ``panelbench`` it imports this module and, where it needs them, `method` (`NoParams`, `Target`),
`ranking`, `scoring` (metrics, what is made of predictions), `errors` (to say what does not fit)
and `nn`; nothing else. It imports heavy libraries (scikit-learn, torch, pandas) inside functions.
The rules that every evaluator keeps are in ``contract/evaluators.py``; ``panelbench test-evaluator
FILE`` tries them.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from panelbench.method import (
    Kind,
    Matrix,
    Method,
    Needs,
    NoParams,
    Target,
    check_declaration,
    no_progress,
)

Reads = Literal["panel", "predictor", "reconstruction", "features"]


@dataclass(frozen=True)
class Metric:
    """How a metric is named and read.

    Attributes
    ----------
    id, label
        Name in suites and records; name in tables.
    kind
        What it is about: a ``classification`` or ``regression`` task, reconstructed ``expression``
        of all genes, the ``panel`` itself, or the kind of the evaluator that gives it.
    higher_is_better
        Direction.
    percent
        Shown in percent with one decimal; otherwise as it is, with three.
    low, high
        Smallest and largest value that it can have.
    """

    id: str
    label: str
    kind: str
    higher_is_better: bool = True
    percent: bool = True
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Cells:
    """The cells of one side of the split that have a label; values are read when asked for.

    Attributes
    ----------
    genes
        Names of all genes, str array of shape (n_genes,).
    target
        Labels of the task, none missing.
    read
        Gives the whole matrix in a representation, float32, cells x genes, array or CSR.
    inputs
        Features of each cell (cells x features) where the data set has any, else None.
    groups
        Batch, donor or slide of each cell (str array), else None.
    depth
        Total count of each cell over all genes that were measured (float64), else None.
    """

    genes: np.ndarray
    target: Target
    read: Callable[[Needs], Matrix]
    inputs: np.ndarray | None = None
    groups: np.ndarray | None = None
    depth: np.ndarray | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.target.values)

    def X(self, genes: Sequence[str] | None = None, needs: Needs = "prepared") -> Matrix:
        """Expression of some genes in the order asked for, or of all; do not write into it.

        Parameters
        ----------
        genes
            Names of genes; all by default.
        needs
            Representation: raw counts, log-normalised, binary or as prepared.

        Returns
        -------
        float32, cells x genes, array or CSR.

        Raises
        ------
        NotApplicable
            When the data set does not hold this representation.
        """
        matrix = self.read(needs)
        if genes is None:
            return matrix
        position = {gene: column for column, gene in enumerate(self.genes.tolist())}
        found: Matrix = matrix[:, [position[gene] for gene in genes]]
        return found

    def dense(self, genes: Sequence[str] | None = None, needs: Needs = "prepared") -> np.ndarray:
        """`X` as a float32 array."""
        X = self.X(genes, needs)
        return X if isinstance(X, np.ndarray) else np.asarray(X.toarray())


@dataclass(frozen=True)
class Trained:
    """What a method trained with its panel, in the mode that is scored.

    Attributes
    ----------
    genes
        Genes it reads, perhaps more than the panel's; none if it reads the cells' inputs.
    needs
        Representation it reads them in.
    predict
        Probabilities of all classes (cells x classes), or outputs in the shape of the target's
        values, for some cells.
    reconstruct
        Expression of all genes for some cells, in the representation `needs`; only of methods
        that declare it.
    """

    genes: tuple[str, ...]
    needs: Needs
    predict: Callable[[Cells], np.ndarray]
    reconstruct: Callable[[Cells], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation has at hand.

    Attributes
    ----------
    panel
        The panel's genes, best first.
    train, test
        Cells that may be trained on, and cells to score on. Labels of `test` are for scoring
        alone: no prediction may depend on them.
    seed
        Seed of the run; take generators from `rng`.
    trained
        What the method trained, for evaluators that read it, else None.
    n_jobs
        Threads or processes it may use; they must not change the result.
    progress
        Called as ``progress(fraction, message)``; cheap, may be called often.
    """

    panel: tuple[str, ...]
    train: Cells
    test: Cells
    seed: int
    trained: Trained | None = None
    n_jobs: int = 1
    progress: Callable[[float, str], None] = no_progress

    @property
    def kind(self) -> Kind:
        """Kind of the task."""
        return self.test.target.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes in code order; empty for regression."""
        return self.test.target.classes

    @property
    def predictor(self) -> Trained:
        """What the method trained; an error for evaluators that do not declare to read it."""
        if self.trained is None:
            raise ValueError("no predictor at hand: declare reads='predictor' or 'reconstruction'")
        return self.trained

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator for one purpose, independent of those for other purposes."""
        return np.random.default_rng(np.random.SeedSequence(self._entropy(purpose)))

    def int_seed(self, purpose: str) -> int:
        """Return a 32-bit seed for libraries that take an integer (torch, scikit-learn)."""
        return int(np.random.SeedSequence(self._entropy(purpose)).generate_state(1)[0])

    def _entropy(self, purpose: str) -> list[int]:
        return [self.seed, zlib.crc32(purpose.encode())]


@dataclass(frozen=True)
class Scores:
    """What an evaluator returns.

    Attributes
    ----------
    metrics
        Value by id, of metrics that it declares; one that is undefined on these cells is left
        out, never invented.
    notes
        What a reader of the numbers should know.
    per_class_f1
        F1 by class name.
    by_class
        Metrics of the cells of each class, by class name.
    confusion
        Number of cells, int of shape (n_classes, n_classes): rows true, columns predicted.
    arrays
        Coordinates and the like for pictures, by name.
    predicted
        Predictions for the test cells, first axis cells, where labels are predicted. Not
        recorded; the contract test demands that test labels do not change it.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    per_class_f1: Mapping[str, float] = field(default_factory=dict)
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class Evaluator:
    """An evaluator's declaration, made by `evaluator`.

    Attributes
    ----------
    id
        Name on the command line: lower case letters, digits and hyphens.
    score
        The function ``(Evaluation, params) -> Scores``.
    module
        Name of the module that declares it.
    params
        Frozen dataclass of parameters; every field has a default. Ranges are declared as
        ``Annotated[int, Ge(1)]`` and checked before anything runs.
    label
        Name in tables.
    reads
        What it scores: the ``panel``; what the method trained, its ``predictor`` or that
        predictor's ``reconstruction`` of all genes; or how the panel goes with the ``features``
        of the cells (skipped where the data set has none). An evaluator of predictors with a
        parameter ``mode`` is run once in each mode of a method's predictor.
    takes
        Kinds of tasks that it scores; of expression targets it is given the primary ones.
    kind
        What its metrics are about when it is not the task, for example ``expression``: tables
        keep rows of different kinds apart. A ``view`` has no metrics, only arrays for pictures.
    metrics
        Metrics that it may give, the main one first: its own, or those of
        `panelbench.scoring.metrics`.
    noisy
        It trains on the labels of the training cells; where a suite asks for label noise, these
        are noisy.
    describes
        It predicts nothing and describes the panel class by class: labels of test cells only say
        which class a cell is of.
    memory_gb, minutes
        Default limits of one run; overridable on the command line. Long ones are started first.
    version
        Raised by the author when behaviour changes.
    libraries
        Distributions whose versions can change the result; absent ones make a run skipped.
    helpers
        Modules outside the evaluator's own, not imported by it, whose source belongs to it.
    cite
        Paper, as "Authors Year".
    """

    id: str
    score: Callable[[Evaluation, Any], Scores]
    module: str
    params: type = NoParams
    label: str = ""
    reads: Reads = "panel"
    takes: tuple[Kind, ...] = ("classification", "regression")
    kind: str = ""
    metrics: tuple[Metric, ...] = ()
    noisy: bool = False
    describes: bool = False
    memory_gb: float = 16.0
    minutes: float = 120.0
    version: int = 1
    libraries: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    cite: str = ""

    def __post_init__(self) -> None:
        where = f"evaluator {self.id}"
        check_declaration("evaluator", self.id, self.params)
        kinds = {self.kind} if self.kind else {"classification", "regression"}
        seen: set[str] = set()
        for metric in self.metrics:
            if metric.kind not in kinds:
                raise ValueError(f"{where}: metric {metric.id} is about {metric.kind}, not about "
                                 f"{' or '.join(sorted(kinds))}")  # fmt: skip
            if metric.id in seen:
                raise ValueError(f"{where}: metric {metric.id} is declared twice")
            if not metric.low < metric.high or math.isnan(metric.low + metric.high):
                raise ValueError(f"{where}: metric {metric.id} has no range")
            seen.add(metric.id)

    @property
    def own(self) -> bool:
        """Whether what the method trained is scored, not its panel alone."""
        return self.reads in ("predictor", "reconstruction")

    def can_score(self, method: Method) -> bool:
        """Whether a method leaves what this evaluator reads."""
        trains = method.predictor is not None
        suits = ("expression" in self.takes) == method.expression
        return {
            "panel": True,
            "features": True,
            "predictor": trains and method.supervised and suits,
            "reconstruction": trains and method.reconstructs,
        }[self.reads]

    @property
    def doc(self) -> str:
        """First paragraph of the function's docstring."""
        text = (self.score.__doc__ or sys.modules[self.module].__doc__ or "").strip()
        return " ".join(text.split("\n\n")[0].split())


F = TypeVar("F", bound=Callable[..., Scores])


def evaluator(id: str, **declared: Any) -> Callable[[F], F]:
    """Declare an evaluator; see `Evaluator` for what can be declared.

    The function stays callable as it is. Several declarations may stand in one module.
    """

    def register(function: F) -> F:
        module = function.__module__
        spec = Evaluator(id=id, score=function, module=module, **{"label": id, **declared})
        found: dict[str, Evaluator] = vars(sys.modules[module]).setdefault("__evaluators__", {})
        if id in found:
            raise ValueError(f"evaluator {id!r} is declared twice in {module}")
        found[id] = spec
        return function

    return register
