"""What a method is given: training cells in the representation it asks for, and its labels.

This is the only place where an AnnData object becomes a `Task`; it sees training cells only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.specs import TaskSpec
from panelbench.errors import NotApplicable
from panelbench.method import Matrix, Method, Needs, Target, Task, frozen_mapping, no_progress
from panelbench.stages.prepared import representation
from panelbench.stages.targets import choose_outputs, inputs_of, outputs_target

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Labels:
    """Where the labels of one task lie in a prepared data set, and all of its classes.

    `task` is what is asked of an expression task.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    task: TaskSpec | None = None


def target(cells: AnnData, labels: Labels) -> Target:
    """Labels of some cells of a prepared data set.

    Parameters
    ----------
    cells
        Cells of a prepared data set: ``obs[task]`` (or ``obsm[task]``) holds the labels.
    labels
        Task name, kind, and all classes in code order.
    """
    if labels.kind == "classification":
        codes = {name: code for code, name in enumerate(labels.classes)}
        column = cells.obs[labels.name].astype(object)
        values = np.array([codes.get(str(v), -1) if v == v else -1 for v in column], np.int64)
        return Target(labels.name, "classification", values, labels.classes)
    source = cells.obsm if labels.name in cells.obsm else cells.obs
    return Target(labels.name, "regression", np.asarray(source[labels.name], dtype=np.float64))


def with_noise(labels: Target, fraction: float, seed: int) -> Target:
    """Redraw a fraction of the observed labels uniformly from all classes.

    MarkerMap's label noise: the drawn label may be the true one. The draw depends on the seed
    and the task only, so selection and classifier can be given the same noisy labels.
    """
    if labels.kind != "classification":
        raise NotApplicable(f"label noise needs classes; {labels.name} is a regression task")
    entropy = [seed, zlib.crc32(b"label noise"), zlib.crc32(labels.name.encode())]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    observed = np.flatnonzero(labels.observed)
    chosen = rng.choice(observed, size=int(fraction * len(observed)), replace=False)
    values = labels.values.copy()
    values[chosen] = rng.integers(len(labels.classes), size=len(chosen))
    return replace(labels, values=values)


def _suited(method: Method, labels: Sequence[Labels]) -> TaskSpec | None:
    """The expression task that is asked for, if it is one.

    Raises
    ------
    NotApplicable
        When the method does not take targets of this kind.
    """
    kinds = {item.kind for item in labels}
    if method.expression and kinds != {"expression"}:
        raise NotApplicable("takes expression targets only, and this is another task")
    if "expression" in kinds and not method.expression:
        raise NotApplicable("takes no expression targets")
    if "regression" in kinds and not method.regression:
        raise NotApplicable("takes classes only, and this is a regression task")
    return labels[0].task if method.expression and len(labels) == 1 else None


def _training_target(cells: AnnData, labels: Labels, validation: np.ndarray | None) -> Target:
    """Labels of the training cells; what is predicted is chosen without those for validation."""
    if labels.task is None:
        return target(cells, labels)
    known = cells if validation is None else cells[~validation]
    return outputs_target(cells, labels.task, choose_outputs(known, labels.task))


def expression(cells: AnnData, needs: Needs) -> Matrix:
    """Expression of cells in the representation a method asks for; float32, cells x genes.

    Raises
    ------
    NotApplicable
        When the data set does not hold this representation.
    """
    return _matrix(representation(cells, needs))


def _matrix(values: Any) -> Matrix:
    """float32 in C order or CSR, without copying what already is."""
    from scipy import sparse

    if sparse.issparse(values):
        return sparse.csr_matrix(values, dtype=np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def _read_only(values: Matrix | None) -> Matrix | None:
    if values is None:
        return None
    for array in [values] if isinstance(values, np.ndarray) else _parts(values):
        array.flags.writeable = False
    return values


def _parts(matrix: Any) -> list[np.ndarray]:
    return [matrix.data, matrix.indices, matrix.indptr]


def build_task(
    cells: AnnData,
    method: Method,
    labels: Sequence[Labels],
    *,
    k: int,
    seed: int,
    noise: float = 0.0,
    validation: np.ndarray | None = None,
    include: tuple[str, ...] = (),
    n_jobs: int = 1,
    device: str = "cpu",
    memory_limit: int | None = None,
    scratch: Path | None = None,
    python: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Task:
    """Make the task that a method receives.

    Parameters
    ----------
    cells
        Training cells, with the fold's genes; not used by anyone else afterwards.
    method
        The method: decides the representation, and that a single-task method gets only cells
        that have its label.
    labels
        Tasks to select for; empty for an unsupervised method.
    k, seed, validation, include, n_jobs, device, memory_limit, scratch, python, progress
        See `Task`. `validation` is given for all of `cells`.
    noise
        Fraction of labels to redraw.

    Raises
    ------
    NotApplicable
        When the data set does not hold what the method needs.
    """
    panel_task = _suited(method, labels)
    targets = [_training_target(cells, item, validation) for item in labels]
    if noise:
        targets = [with_noise(item, noise, seed) for item in targets]
    if len(targets) == 1 and not targets[0].observed.all():
        seen = targets[0].observed
        cells = cells[seen].copy()
        targets = [replace(targets[0], values=targets[0].values[seen])]
        validation = None if validation is None else validation[seen]
    counts = expression(cells, "counts") if "counts" in cells.layers else None
    inputs = inputs_of(cells, panel_task)
    if method.reads == "inputs" and inputs is None:
        raise NotApplicable("needs features of the cells, which the data set does not have")
    return Task(
        X=_read_only(expression(cells, method.needs)),
        genes=np.asarray(cells.var_names, dtype=str),
        targets=frozen_mapping({item.name: item for item in targets}),
        k=k,
        seed=seed,
        counts=_read_only(counts),
        inputs=inputs,
        groups=np.asarray(cells.obs["group"], dtype=str) if "group" in cells.obs else None,
        include=include,
        validation=validation,
        n_jobs=n_jobs,
        device=device,
        memory_limit=memory_limit,
        scratch=scratch or Path(),
        python=python,
        progress=progress or no_progress,
    )
