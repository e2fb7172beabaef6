"""Recipes: a data set's list of steps, checked, completed, divided and applied.

Steps fitted on training cells (``fit: train``), and every step after the first of them, belong to
the split: `split_recipe` divides a recipe. Those steps only choose genes or scale, and genes are
chosen from counts or log-normalised values, so a split's steps never see test cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.gene_steps import DropGenes
from panelbench.data.specs import Step
from panelbench.data.states import need
from panelbench.data.steps import STEPS, Scaling
from panelbench.errors import ConfigError, DataError, UnknownName
from panelbench.schema import parse

if TYPE_CHECKING:
    from anndata import AnnData


def options_of(step: Step) -> Any:
    """Checked options of a step, as its model.

    Raises
    ------
    ConfigError
        An unknown step, an unknown option or a value out of range.
    """
    if step.name not in STEPS:
        raise UnknownName("recipe step", step.name, STEPS)
    return parse(STEPS[step.name].options, step.options, f"recipe step {step.name!r}")


def resolve(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Fill in the defaults of every option (what a key is made of).

    Raises
    ------
    ConfigError
        An unknown step or option (with near matches), or an order that cannot work.
    """
    resolved = []
    for step in steps:
        options = options_of(step)
        if isinstance(options, DropGenes) and options.file is not None:
            names = (*options.names, *_read_names(Path(options.file)))
            options = options.model_copy(update={"names": names, "file": None})
        resolved.append(Step(name=step.name, options=options.model_dump(mode="json")))
    split_recipe(resolved)
    return tuple(resolved)


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"recipe step 'drop_genes': cannot read {path}: {error.strerror}"
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def split_recipe(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Divide a recipe into the steps for all cells and those of the split.

    Returns
    -------
    fixed, fitted
        `fitted` begins with the first step that has ``fit: train``.

    Raises
    ------
    ConfigError
        When a step behind it drops cells, changes values or asks for ``fit: all``.
    """
    fits = [getattr(options_of(step), "fit", None) for step in steps]
    start = fits.index("train") if "train" in fits else len(steps)
    for step, fit in zip(steps[start:], fits[start:], strict=True):
        if STEPS[step.name].role not in {"genes", "scale"} or fit == "all":
            what = "asks for fit: all" if fit == "all" else "works on all cells"
            raise ConfigError(
                f"recipe step {step.name!r} {what}, but stands after {steps[start].name!r}, which "
                f"is fitted on training cells: put it before, or set fit: all there"
            )
    if [step.name for step in steps].count("scale") > 1:
        raise ConfigError("recipe: 'scale' occurs more than once")
    return tuple(steps[:start]), tuple(steps[start:])


def apply(adata: AnnData, step: Step) -> AnnData:
    """Apply one step to all cells, with a note of what it dropped.

    Returns
    -------
    The same object, changed, or a smaller copy.

    Raises
    ------
    DataError
        When the values do not suit the step, or nothing is left.
    """
    kind, options = STEPS[step.name], options_of(step)
    if kind.role == "scale":
        need(adata, "scale", "counts", "lognorm")
        adata.layers[adata.uns["x"]] = adata.X
        adata.X = Scaling.fit(adata.X, options).apply(adata.X)
        adata.uns["x"] = "scaled"
        return adata
    assert kind.function is not None
    if kind.role == "values":
        kind.function(adata, options)
        return adata
    keep = kind.function(adata, options)
    dropped = int(len(keep) - keep.sum())
    if dropped == len(keep):
        raise DataError(f"recipe step {step.name!r} drops all {len(keep)} {kind.role}: {options}")
    if not dropped:
        return adata
    adata.uns["notes"].append(f"{step.name}: {dropped} of {len(keep)} {kind.role} dropped")
    return adata[keep].copy() if kind.role == "cells" else adata[:, keep].copy()


def choose_genes(adata: AnnData, steps: Sequence[Step]) -> np.ndarray | None:
    """Columns that the gene-choosing steps of a split keep, fitted on the cells given.

    Returns
    -------
    Sorted int64 indices into the columns of `adata`, or None when no step chooses genes.
    """
    chosen: np.ndarray | None = None
    for step in steps:
        kind = STEPS[step.name]
        if kind.role != "genes" or kind.function is None:
            continue
        if chosen is None:
            chosen = np.arange(adata.n_vars, dtype=np.int64)
        keep = kind.function(adata, options_of(step))
        if not keep.any():
            raise DataError(f"recipe step {step.name!r} drops all {len(keep)} genes")
        if not keep.all():
            chosen, adata = chosen[keep], adata[:, keep].copy()
    return chosen


def fit_scaling(adata: AnnData, steps: Sequence[Step]) -> Scaling | None:
    """Fit the ``scale`` step of a split on the cells given, or None when there is none."""
    for step in steps:
        if step.name == "scale":
            need(adata, "scale", "counts", "lognorm")
            return Scaling.fit(adata.X, options_of(step))
    return None
