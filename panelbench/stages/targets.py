"""Expression targets: what is predicted, which of it is scored, and from what.

Which outputs a split has, and which of them are primary, is decided on the cells that are trained
on; neither validation nor test cells have part in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.blocks import totals
from panelbench.data.specs import TaskSpec
from panelbench.errors import NotApplicable
from panelbench.method import Target
from panelbench.ranking import dispersion_order
from panelbench.stages.prepared import INPUTS, facts, representation

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Outputs:
    """What is predicted on a split.

    Attributes
    ----------
    names
        Outputs, in the order of the data.
    primary
        Bool of shape (n_outputs,): those that are scored.
    """

    names: tuple[str, ...]
    primary: np.ndarray

    def scored(self) -> Outputs:
        """The primary ones alone."""
        names = tuple(name for name, kept in zip(self.names, self.primary, strict=True) if kept)
        return replace(self, names=names, primary=np.ones(len(names), dtype=bool))


def choose_outputs(cells: AnnData, task: TaskSpec) -> Outputs:
    """Choose what is predicted, and what of it is primary.

    Parameters
    ----------
    cells
        Cells that are trained on, from `Fold.take`.
    task
        A task of kind ``expression``. A number of primary outputs is that of the most variable
        ones, by normalised dispersion.

    Raises
    ------
    NotApplicable
        When a named output or a gene of the panel is not there, or too few are left.
    """
    known = _names(cells, task)
    position = {name: column for column, name in enumerate(known)}
    named = task.primary if isinstance(task.primary, tuple) else ()
    for what, asked in (("primary outputs", named), ("genes of the panel", task.panel)):
        among = position if what == "primary outputs" else set(cells.var_names)
        if missing := [name for name in asked if name not in among]:
            raise NotApplicable(f"{task.name}: {what} that the data have not: "
                                f"{', '.join(missing[:5])}")  # fmt: skip
    if both := set(named) & set(task.panel):
        raise NotApplicable(f"{task.name}: on the panel and primary: {', '.join(sorted(both)[:5])}")
    values = _values(cells, task, known)
    often = np.count_nonzero(np.nan_to_num(values), axis=0)
    kept = often >= max(task.min_cells, 1)
    kept[[position[name] for name in task.panel if name in position]] = False
    kept[[position[name] for name in named]] = True
    columns = np.flatnonzero(kept)
    if isinstance(task.primary, tuple):
        primary = np.isin(np.array(known)[columns], named)
    else:
        order, _ = dispersion_order(values[:, columns])
        able = order[often[columns[order]] >= task.found_in * len(values)]
        if len(able) < task.primary:
            raise NotApplicable(f"{task.name}: {task.primary} primary outputs are asked for, and "
                                f"{len(able)} can be chosen")  # fmt: skip
        primary = np.isin(np.arange(len(columns)), able[: task.primary])
    return Outputs(tuple(known[column] for column in columns), primary)


def outputs_target(cells: AnnData, task: TaskSpec, outputs: Outputs) -> Target:
    """Expression of some cells that is to be predicted.

    Parameters
    ----------
    cells
        Cells from `Fold.take`.
    task
        The task.
    outputs
        What `choose_outputs` found on the training cells.
    """
    values = _values(cells, task, list(outputs.names))
    return Target(task.name, "expression", values, (), outputs.names, outputs.primary)


def inputs_of(cells: AnnData, task: TaskSpec | None = None) -> np.ndarray | None:
    """What is predicted from: expression of the task's panel, or the data set's inputs.

    Returns
    -------
    float32, cells x features; None where the data set has no inputs and the task no panel.
    """
    if task is not None and task.panel:
        return _dense(representation(cells[:, list(task.panel)], "lognorm"))
    return np.asarray(cells.obsm[INPUTS]) if INPUTS in cells.obsm else None


def depth_of(cells: AnnData) -> np.ndarray | None:
    """Total count of each cell over all genes of the prepared data set, float64; None without."""
    if "counts" not in cells.layers:
        return None
    return totals(cells.layers["counts"])


def _names(cells: AnnData, task: TaskSpec) -> list[str]:
    """All that the task could predict."""
    if task.column is None:
        return [str(name) for name in cells.var_names]
    return [str(name) for name in facts(cells)["tasks"][task.name]["outputs"]]


def _values(cells: AnnData, task: TaskSpec, names: list[str]) -> np.ndarray:
    """Values of some outputs, float32 in C order, NaN where one is not known."""
    if task.column is None:
        return _dense(representation(cells[:, names], "lognorm"))
    position = {name: column for column, name in enumerate(_names(cells, task))}
    columns = [position[name] for name in names]
    return np.ascontiguousarray(np.asarray(cells.obsm[task.name], dtype=np.float32)[:, columns])


def _dense(values: object) -> np.ndarray:
    dense = values.toarray() if hasattr(values, "toarray") else values
    return np.ascontiguousarray(dense, dtype=np.float32)
