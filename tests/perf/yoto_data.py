"""Development data sets of YOTO: real and planted, split into training and test cells by a seed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.method import Target

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class DataSet:
    """How a data set is read.

    Attributes
    ----------
    tasks
        Columns with labels; splits are stratified by the first.
    variable
        Genes kept, the most variable among the training cells (Seurat v3); 0 keeps all.
    least
        Classes with fewer cells lose their cells.
    group
        Column whose values are whole in the test cells, as the seed says.
    synthetic
        Options of a synthetic data set; its seed is that of the split.
    """

    tasks: tuple[str, ...]
    variable: int = 0
    least: int = 0
    group: str = ""
    synthetic: Mapping[str, Any] | None = None


NESTED = ("cell_type_broad", "cell_type_fine", "compartment_derived")
SETS = {
    "citeseq": DataSet(("cell_type",)),
    "pbmc3k": DataSet(("celltype",), 2000),
    "mca_broad": DataSet(("cell_type_broad",), 2000),
    "mca_fine": DataSet(("cell_type_fine",), 2000, least=10),
    "pbmc68k": DataSet(("bulk_labels",)),
    "her2st": DataSet(("region",), 2000, group="section"),
    "pancreas": DataSet(("clusters",)),
    "interneurons": DataSet(("cell_type",)),
    "planted": DataSet(
        ("type_a",),
        synthetic={"cells": 750, "genes": 3000, "types": (12,), "markers": 3, "effect": 12.0,
                   "dropout": 0.6},
    ),
    "neighbours": DataSet(
        ("type_c",),
        synthetic={"cells": 2500, "genes": 3000, "types": (4, 9, 18), "markers": 5, "effect": 3.0,
                   "depth": 4000.0},
    ),
    "mca_nested": DataSet(NESTED, 2000),
    "mca_gut": DataSet(("cell_type_fine", "cell_type_broad"), 2000, least=10),
}  # fmt: skip
"""``mca_nested`` and ``mca_gut`` are for one training of several tasks; the others have one."""
SINGLE = [name for name, item in SETS.items() if len(item.tasks) == 1]


@dataclass(frozen=True)
class Split:
    """Training and test cells of a data set."""

    X: np.ndarray
    X_test: np.ndarray
    genes: np.ndarray
    labels: Mapping[str, Target]
    truth: Mapping[str, np.ndarray]
    groups: np.ndarray | None


@lru_cache(maxsize=1)
def load(folder: Path, name: str, seed: int) -> Split:
    """Read, split 80/20, log-normalise to 10,000 and choose genes on the training cells."""
    import scanpy as sc
    from scipy import sparse
    from sklearn.model_selection import train_test_split

    warnings.simplefilter("ignore")
    item = SETS[name]
    cells = _read(folder, name, item, seed)
    first = cells.obs[item.tasks[0]].astype(str)
    if item.least:
        sizes = first.map(first.value_counts())
        cells = cells[(sizes >= item.least).to_numpy()].copy()
        first = cells.obs[item.tasks[0]].astype(str)
    groups = cells.obs[item.group].astype(str).to_numpy() if item.group else None
    if groups is not None:
        names = np.unique(groups)
        test = np.flatnonzero(groups == names[seed % len(names)])
        train = np.flatnonzero(groups != names[seed % len(names)])
    else:
        train, test = map(
            np.sort,
            train_test_split(
                np.arange(cells.n_obs), test_size=0.2, random_state=seed, stratify=first
            ),
        )
    columns = np.arange(cells.n_vars)
    if item.variable:
        seen = np.flatnonzero(np.asarray((cells[train].X > 0).sum(axis=0)).ravel() >= 3)
        part = cells[train, seen].copy()
        sc.pp.highly_variable_genes(part, flavor="seurat_v3", n_top_genes=item.variable)
        columns = seen[part.var["highly_variable"].to_numpy()]
    if name != "pbmc68k":  # which comes log-normalised over all its genes
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
    X = cells.X[:, columns]
    X = np.asarray(X.toarray() if sparse.issparse(X) else X).astype(np.float32)
    labels, truth = {}, {}
    for task in item.tasks:
        values = cells.obs[task].astype(str).astype("category")
        codes = values.cat.codes.to_numpy().astype(np.int64)
        labels[task] = Target(task, "classification", codes[train], tuple(values.cat.categories))
        truth[task] = codes[test]
    genes = np.asarray(cells.var_names)[columns].astype(str)
    return Split(X[train], X[test], genes, labels, truth, None if groups is None else groups[train])


def _read(folder: Path, name: str, item: DataSet, seed: int) -> AnnData:
    import anndata
    import scanpy as sc
    from scipy import io, sparse

    from panelbench.data import synthetic

    if item.synthetic is not None:
        return synthetic.make(**item.synthetic, seed=seed)
    if name == "citeseq":
        counts = io.loadmat(folder / "mirror/CITEseq.mat")["G"].T.astype(np.float32)
        cells = anndata.AnnData(sparse.csr_matrix(counts))
        codes = io.loadmat(folder / "mirror/CITEseq-labels.mat")
        codes = next(value for key, value in codes.items() if not key.startswith("_"))
        cells.obs["cell_type"] = codes.ravel().astype(str)
        return cells
    if name == "pbmc68k":
        reduced = sc.datasets.pbmc68k_reduced()
        return anndata.AnnData(reduced.raw.X, obs=reduced.obs, var=reduced.raw.var)
    cells = anndata.read_h5ad(
        folder / f"{name.split('_')[0] if name[:3] != 'mca' else 'mca_gut'}.h5ad"
    )
    if name == "her2st":  # the sections of one patient, spots with a known region
        known = ~cells.obs["region"].isin(["NA", "unknown"]) & (cells.obs["patient"] == "C")
        cells = cells[known.to_numpy()].copy()
    return cells
