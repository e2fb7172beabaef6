"""Stage 1: from a data set's files to one prepared ``.h5ad``.

What the file holds and how the later stages see it: `panelbench.stages.prepared`. Steps that are
fitted on training cells are not in the file: see `panelbench.stages.fold`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import checks
from panelbench.data.blocks import is_stored
from panelbench.data.fetch import downloaded, fetch
from panelbench.data.read import read
from panelbench.data.recipes import apply, resolve, split_recipe
from panelbench.data.specs import GROUP, DatasetSpec, TaskSpec
from panelbench.errors import ConfigError, DataError, hint
from panelbench.records.files import replacing
from panelbench.stages.large import by_blocks, write_by_blocks
from panelbench.stages.prepared import INPUTS, SPATIAL, STAMP

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from panelbench.data.download import Say


def prepare(
    spec: DatasetSpec,
    target: Path,
    downloads: Path,
    mirrors: Sequence[Path] = (),
    say: Say | None = None,
) -> dict[str, Any]:
    """Fetch, read and check a data set, apply its fixed steps, write it.

    Parameters
    ----------
    spec
        The data set.
    target
        The ``.h5ad`` to write; it appears complete or not at all.
    downloads, mirrors, say
        See `panelbench.data.fetch.fetch`.

    Returns
    -------
    Facts, ready for JSON: ``cells``, ``genes``, ``x`` (what ``X`` of the file is: ``lognorm``,
    ``counts``, ``scaled`` or ``binary``), ``counts`` (bool), ``tasks`` (name -> ``kind``,
    ``classes``, ``counts`` by class, ``missing``; for regression the number of ``outputs``, for
    expression their names where they are no genes), ``groups`` (cells by group, if any),
    ``markers`` (class -> known genes in the data), ``notes`` (list of str).

    Raises
    ------
    DataError
        Files that cannot be had or do not fit (see `panelbench.data.read.read`), a step that does
        not suit the values, labels that are no labels.
    ConfigError
        A recipe that cannot work.
    """
    steps = resolve(spec.recipe)
    fixed, fitted = split_recipe(steps)
    files = fetch(spec, downloads, mirrors, say)
    where = f"{spec.id} ({', '.join(path.name for path in files.values()) or spec.reader})"
    try:
        adata = read(spec, files)
    except DataError as error:
        kept = ", ".join(map(str, downloaded(spec, downloads)))
        if not kept:
            raise
        raise DataError(f"{error}; should the download be damaged, delete {kept}") from error

    def finished(adata: AnnData) -> tuple[AnnData, dict[str, Any]]:
        if adata.uns["x"] == "normalized":
            raise ConfigError(
                f"{spec.id}: at the end of the recipe, values are normalised but no logarithms: "
                "add log1p"
            )
        prepared, facts = _assemble(adata, spec, where)
        facts["notes"] = [*adata.uns["notes"], *(_fold_note(s.name, s.options) for s in fitted)]
        stamp = {"dataset": spec.id, "recipe": [s.model_dump(mode="json") for s in steps]}
        prepared.uns[STAMP] = json.dumps({**stamp, "facts": facts})
        return prepared, facts

    try:
        large = is_stored(adata.X) and by_blocks(adata, fixed)
        for step in () if large else fixed:
            adata = apply(adata, step)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if large:
        return write_by_blocks(adata, fixed, target, where, finished)
    prepared, facts = finished(adata)
    _write(prepared, target)
    return facts


def _fold_note(name: str, options: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key}={value}" for key, value in options.items() if key != "fit")
    return f"{name} ({shown}) is fitted on the training cells of each split"


def _assemble(adata: AnnData, spec: DatasetSpec, where: str) -> tuple[AnnData, dict[str, Any]]:
    """Keep what the later stages need, under their names, and describe it."""
    import anndata
    import pandas as pd

    obs = pd.DataFrame(index=adata.obs_names)
    obsm: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for task in spec.tasks:
        tasks[task.name] = _attach(adata, task, obs, obsm, where)
    found: dict[str, Any] = {
        "cells": int(adata.n_obs),
        "genes": int(adata.n_vars),
        "x": adata.uns["x"],
        "counts": adata.uns["x"] == "counts" or "counts" in adata.layers,
        "tasks": tasks,
    }
    group = spec.split.group or spec.group
    if group is not None:
        values = checks.column(adata, group, where, "group")
        obs[GROUP] = pd.Categorical(values.astype(object).where(values.notna(), None).map(_text))
        sizes = obs[GROUP].value_counts()
        found["groups"] = {str(name): int(sizes[name]) for name in obs[GROUP].cat.categories}
    if spec.inputs is not None:
        if spec.inputs not in adata.obsm:
            raise DataError(
                f"{where}: no inputs {spec.inputs!r} in obsm; {hint(spec.inputs, adata.obsm)}"
            )
        values = np.asarray(adata.obsm[spec.inputs])
        # Pixels stay bytes: as numbers they would take four times the space.
        pixels = values.dtype == np.uint8
        obsm[INPUTS] = values if pixels else values.astype(np.float32, copy=False)
        if not np.isfinite(obsm[INPUTS]).all():
            raise DataError(f"{where}: inputs {spec.inputs!r} hold NaN or infinite values")
    if spec.split.scheme == "blocks":
        obsm[SPATIAL] = checks.coordinates(adata, where)
    known = set(adata.var_names)
    markers = {**adata.uns.get("markers", {}), **spec.markers}
    if markers:
        found["markers"] = {
            name: [gene for gene in genes if gene in known] for name, genes in markers.items()
        }
    prepared = anndata.AnnData(
        X=adata.X, obs=obs, var=pd.DataFrame(index=adata.var_names), obsm=obsm
    )
    for name in ("counts", "lognorm"):
        if name in adata.layers and name != adata.uns["x"]:
            prepared.layers[name] = adata.layers[name]
    if adata.uns["x"] == "counts":
        prepared.layers["counts"] = adata.X
    prepared.uns["x"] = adata.uns["x"]
    return prepared, found


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _attach(
    adata: AnnData, task: TaskSpec, obs: pd.DataFrame, obsm: dict[str, Any], where: str
) -> dict[str, Any]:
    """Put the labels of a task into `obs` or `obsm`; return its facts."""
    if task.kind == "expression":
        names: list[str] = []
        if task.column is not None:
            obsm[task.name], names = checks.expression_target(adata, task, where)
        return {"kind": task.kind, "classes": [], "missing": 0, "outputs": names}
    if task.kind == "regression":
        values = checks.regression_target(adata, task, where)
        missing = int(np.isnan(values).reshape(len(values), -1).any(axis=1).sum())
        if values.ndim == 1:
            obs[task.name] = values
        else:
            obsm[task.name] = values
        outputs = 1 if values.ndim == 1 else int(values.shape[1])
        return {"kind": task.kind, "classes": [], "missing": missing, "outputs": outputs}
    labels = checks.class_labels(adata, task, where)
    obs[task.name] = labels
    counts = labels.value_counts()
    return {
        "kind": task.kind,
        "classes": [str(name) for name in labels.categories],
        "counts": {str(name): int(counts[name]) for name in labels.categories},
        "missing": int((labels.codes < 0).sum()),
    }


def _write(adata: AnnData, target: Path) -> None:
    """Write a file that is complete or absent, also when the process is killed."""
    with replacing(target) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        adata.write_h5ad(partial)
