"""Stage 1: from a data set's files to one prepared ``.h5ad``, and to the matrices of a split.

A prepared file holds ``X`` (CSR or dense float32), ``layers["counts"]`` where the data have counts,
``layers["lognorm"]`` where ``X`` is scaled or binary, one ``obs`` column per task, by its name
(``obsm`` for targets with several outputs), ``obs["group"]``, ``obsm["inputs"]``, ``uns["x"]``
(what ``X`` is) and ``uns["panelbench"]``, JSON with the recipe and the facts.

Steps that are fitted on training cells are not in the file: `fit_fold` fits them for a split, and
`Fold.take` applies them to any cells.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data import checks
from panelbench.data.fetch import fetch
from panelbench.data.read import read
from panelbench.data.recipes import apply, choose_genes, fit_scaling, resolve, split_recipe
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.data.splits import GROUP, split_cells
from panelbench.data.steps import Scaling
from panelbench.errors import ConfigError, DataError, NotApplicable
from panelbench.method import Matrix, Needs

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

STAMP = "panelbench"
INPUTS = "inputs"


def prepare(
    spec: DatasetSpec, target: Path, downloads: Path, mirrors: Sequence[Path] = ()
) -> dict[str, Any]:
    """Fetch, read and check a data set, apply its fixed steps, write it.

    Parameters
    ----------
    spec
        The data set.
    target
        The ``.h5ad`` to write; it appears complete or not at all.
    downloads, mirrors
        See `panelbench.data.fetch.fetch`.

    Returns
    -------
    Facts, ready for JSON: ``cells``, ``genes``, ``x`` (what ``X`` of the file is: ``lognorm``,
    ``counts``, ``scaled`` or ``binary``), ``counts`` (bool), ``tasks`` (name -> ``kind``,
    ``classes``, ``counts`` by class, ``missing``; for regression ``outputs``), ``groups`` (cells by
    group, if any), ``markers`` (class -> known genes in the data), ``notes`` (list of str).

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
    files = fetch(spec, downloads, mirrors)
    where = f"{spec.id} ({', '.join(path.name for path in files.values()) or spec.reader})"
    adata = read(spec, files)
    for step in fixed:
        try:
            adata = apply(adata, step)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    if adata.uns["x"] == "normalized":
        raise ConfigError(f"{spec.id}: the recipe has normalize without log1p after it")
    notes = [*adata.uns["notes"], *(_fold_note(s.name, s.options) for s in fitted)]
    prepared, facts = _assemble(adata, spec, where)
    facts["notes"] = notes
    stamp = {"dataset": spec.id, "recipe": [s.model_dump(mode="json") for s in steps]}
    prepared.uns[STAMP] = json.dumps({**stamp, "facts": facts})
    _write(prepared, target)
    return facts


def load(path: Path) -> AnnData:
    """Read a prepared file.

    Raises
    ------
    DataError
        When it is missing, damaged or not a prepared file.
    """
    import anndata

    try:
        adata = anndata.read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a damaged file
        raise DataError(
            f"{path}: prepared data cannot be read ({error}); run preprocess again"
        ) from error
    if STAMP not in adata.uns:
        raise DataError(f"{path}: not a prepared file; run preprocess (or use --data)")
    return adata


def facts(adata: AnnData) -> dict[str, Any]:
    """Facts that `prepare` stored in a prepared file."""
    found: dict[str, Any] = json.loads(adata.uns[STAMP])["facts"]
    return found


def representation(adata: AnnData, needs: Needs) -> Matrix:
    """Matrix of cells (prepared, or from `Fold.take`) that a method asks for.

    Returns
    -------
    cells x genes, CSR or array, float32. ``binary`` is 1 where a gene is seen at all.

    Raises
    ------
    NotApplicable
        When the data do not have it.
    """
    x = adata.uns["x"]
    if needs == "prepared" or needs == x:
        return adata.X
    if needs in adata.layers:
        return adata.layers[needs]
    if needs == "binary":
        source = adata.layers.get("counts", adata.layers.get("lognorm", adata.X))
        if source is not adata.X or x in {"counts", "lognorm"}:
            return (source > 0).astype(np.float32)
    what = {"counts": "raw counts", "lognorm": "log-normalised values"}.get(needs, needs)
    raise NotApplicable(f"needs {what}, which the data set does not have (its X is {x})")


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
            near = checks.near_matches(spec.inputs, adata.obsm)
            raise DataError(f"{where}: no inputs {spec.inputs!r} in obsm; {near}")
        obsm[INPUTS] = np.asarray(adata.obsm[spec.inputs], dtype=np.float32)
        if not np.isfinite(obsm[INPUTS]).all():
            raise DataError(f"{where}: inputs {spec.inputs!r} hold NaN or infinite values")
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
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            adata.write_h5ad(partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Fold:
    """A split, with the steps that were fitted on its training cells.

    Attributes
    ----------
    train, validation, test
        Sorted int64 indices of cells.
    genes
        int64 indices of the columns that the split keeps, or None for all.
    mean, std
        float64 per kept gene, when the split scales, else None.
    clip
        Largest absolute value after scaling, or None.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    genes: np.ndarray | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    clip: float | None = None

    def take(self, adata: AnnData, rows: np.ndarray) -> AnnData:
        """Cells as the methods of this split get them.

        Parameters
        ----------
        adata
            The prepared data set; it is not changed.
        rows
            Indices of cells, in any order.

        Returns
        -------
        AnnData of these cells and the genes kept, scaled if the split scales (``uns["x"]`` is
        ``scaled`` then and ``layers["lognorm"]`` holds what was scaled). Every categorical column
        keeps all its categories, also those no cell of `rows` has.
        """
        import anndata

        columns = slice(None) if self.genes is None else self.genes
        layers = {name: _cut(layer, rows, columns) for name, layer in adata.layers.items()}
        X, state = _cut(adata.X, rows, columns), adata.uns["x"]
        if self.mean is not None and self.std is not None:
            layers.setdefault(state, X)
            X, state = Scaling(self.mean, self.std, self.clip).apply(X), "scaled"
        # Built anew: subsetting an AnnData drops the categories that no cell has.
        part = anndata.AnnData(
            X=X,
            obs=adata.obs.iloc[rows],
            var=adata.var.iloc[columns],
            obsm={name: np.asarray(values)[rows] for name, values in adata.obsm.items()},
            layers=layers,
        )
        part.uns.update({**adata.uns, "x": state})
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for ``numpy.savez``; what is None is left out."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        rest = {"genes": self.genes, "mean": self.mean, "std": self.std, "clip": self.clip}
        found.update({name: np.asarray(value) for name, value in rest.items() if value is not None})
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fold:
        """Rebuild a fold from what `arrays` returned."""
        given = {name: np.asarray(arrays[name]) for name in arrays if name != "clip"}
        return cls(**given, clip=float(arrays["clip"]) if "clip" in arrays else None)


def _cut(matrix: Matrix, rows: np.ndarray, columns: Any) -> Matrix:
    """Rows and columns of a matrix as CSR or C-contiguous array."""
    part = matrix[rows]
    if not isinstance(columns, slice):
        part = part[:, columns]
    return np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part


def fit_fold(adata: AnnData, spec: DatasetSpec, seed: int) -> Fold:
    """Split the cells and fit the recipe's ``fit: train`` steps on all that are not test cells.

    Parameters
    ----------
    adata
        The prepared data set.
    spec
        Its entry: the split and the recipe. Classes of the first task are stratified by.
    seed
        Seed of the run.

    Raises
    ------
    DataError
        When the cells cannot be split (see `panelbench.data.splits.split_cells`) or the steps
        cannot be fitted.
    """
    labels, classes = np.full(adata.n_obs, -1, dtype=np.int64), []
    if spec.tasks and spec.tasks[0].kind == "classification":
        column = adata.obs[spec.tasks[0].name].cat
        labels, classes = column.codes.to_numpy(dtype=np.int64), list(column.categories)
    split = split_cells(adata.obs, labels, spec.split, seed, classes)
    _, steps = split_recipe(resolve(spec.recipe))
    genes, scaling = None, None
    if steps:
        known = np.sort(np.concatenate([split.train, split.validation]))
        bare = Fold(split.train, split.validation, split.test)
        cells = bare.take(adata, known)
        try:
            genes = choose_genes(cells, steps)
            scaling = fit_scaling(cells if genes is None else cells[:, genes].copy(), steps)
        except DataError as error:
            raise DataError(f"{spec.id}, split {seed}: {error}") from error
    if scaling is None:
        return Fold(split.train, split.validation, split.test, genes)
    return Fold(
        split.train, split.validation, split.test, genes, scaling.mean, scaling.std, scaling.clip
    )
