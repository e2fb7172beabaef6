"""What a method is given: cells, genes and labels of a split's training cells.

Methods import these names from `panelbench.method`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

    Matrix: TypeAlias = np.ndarray | sparse.csr_matrix
else:
    Matrix: TypeAlias = Any

Kind = Literal["classification", "regression", "expression"]
Needs = Literal["counts", "lognorm", "binary", "prepared"]


@dataclass(frozen=True)
class Target:
    """Labels of the training cells for one task, or the expression that is to be predicted.

    Attributes
    ----------
    name
        Name of the task, for example ``"cell_type"``.
    kind
        ``"classification"``, ``"regression"`` or ``"expression"``.
    values
        Classification: int64 of shape (n_cells,), codes into `classes`, -1 where missing.
        Regression: float64 of shape (n_cells,) or (n_cells, n_outputs), NaN where missing.
        Expression: float32 of shape (n_cells, n_outputs), log(1 + x); NaN where an output is not
        known for a cell, which leaves the cell's other outputs as they are.
    classes
        Names of all classes of the data set in code order; a class may be absent from the
        training cells. Empty unless classes are predicted.
    outputs
        Names of what is predicted, of expression targets only.
    primary
        Bool of shape (n_outputs,): outputs that are scored. The others may be trained on.
    """

    name: str
    kind: Kind
    values: np.ndarray
    classes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    primary: np.ndarray | None = None

    @property
    def observed(self) -> np.ndarray:
        """Bool of shape (n_cells,): which cells have this label."""
        if self.kind == "classification":
            return np.asarray(self.values >= 0)
        if self.kind == "expression":
            return np.asarray(~np.isnan(self.values).all(axis=1))
        return np.asarray(~np.isnan(self.values).reshape(len(self.values), -1).any(axis=1))


def no_progress(fraction: float, message: str = "") -> None:
    """Progress callback of a run that nobody watches."""


@dataclass(frozen=True)
class Task:
    """What one selection is asked to do. It holds training cells only.

    Attributes
    ----------
    X
        float32, cells x genes, C-contiguous array or CSR, read-only; in the representation
        that the method declares with `needs`.
    genes
        Gene names, str array of shape (n_genes,).
    targets
        Labels by task name, in the data set's order. Single-task methods get one target
        without missing labels; unsupervised methods get none.
    k
        Genes wanted. A nested method may rank just these, or all.
    seed
        Seed of the run; take generators from `rng`.
    counts
        Raw counts (cells x genes, CSR or array) where the data set has them, else None.
    inputs
        Features to predict from (cells x features), for methods that use any, else None: float32,
        or uint8 pixels of square patches, row by row, red, green and blue of each.
    groups
        Batch, donor or slide of each cell (str array), else None.
    include
        Genes that the panel must hold, all among `genes` and fewer than `k`. A method that can
        build on them does; the others need not care.
    validation
        Bool of shape (n_cells,): cells meant for early stopping, when the split has such; they
        are not test cells. None when there are none.
    n_jobs
        Threads or processes the method may use.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    memory_limit
        Bytes the run may hold, or None.
    scratch
        An empty folder of the run's own, removed afterwards.
    python
        Python of the environment that the method declares, else None.
    progress
        Called as ``progress(fraction, message)``; cheap, may be called often.
    """

    X: Matrix
    genes: np.ndarray
    targets: Mapping[str, Target]
    k: int
    seed: int
    counts: Matrix | None = None
    inputs: np.ndarray | None = None
    groups: np.ndarray | None = None
    include: tuple[str, ...] = ()
    validation: np.ndarray | None = None
    n_jobs: int = 1
    device: str = "cpu"
    memory_limit: int | None = None
    scratch: Path = field(default_factory=Path)
    python: Path | None = None
    progress: Callable[[float, str], None] = no_progress

    @property
    def n_cells(self) -> int:
        """Number of training cells."""
        return int(self.X.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of candidate genes."""
        return int(self.X.shape[1])

    @property
    def target(self) -> Target:
        """The only target; an error when there is none or more than one."""
        if len(self.targets) != 1:
            raise ValueError(f"expected one target, found {list(self.targets)}")
        return next(iter(self.targets.values()))

    def dense(self) -> np.ndarray:
        """`X` as a float32 array, cells x genes (no copy when it is one already)."""
        if isinstance(self.X, np.ndarray):
            return self.X
        return np.asarray(self.X.toarray(), dtype=np.float32)

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator for one purpose, independent of those for other purposes."""
        return np.random.default_rng(np.random.SeedSequence(self._entropy(purpose)))

    def int_seed(self, purpose: str) -> int:
        """Return a 32-bit seed for libraries that take an integer (torch, scikit-learn)."""
        return int(np.random.SeedSequence(self._entropy(purpose)).generate_state(1)[0])

    def _entropy(self, purpose: str) -> list[int]:
        return [self.seed, zlib.crc32(purpose.encode())]


def frozen_mapping(items: Mapping[str, Target]) -> Mapping[str, Target]:
    """Read-only view of a mapping of targets."""
    return MappingProxyType(dict(items))
