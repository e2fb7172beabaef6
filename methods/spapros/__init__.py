"""spapros: forests of small trees that tell cell types apart (the library, in an environment)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge

from panelbench.environments import call
from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import gene_variances, score_order

from .environment import ENVIRONMENT


@dataclass(frozen=True)
class Params:
    """Parameters, with the library's defaults.

    Attributes
    ----------
    n_pca_genes
        Genes with large loadings that trees are first made of.
    n_de_genes
        Differentially expressed genes of each class that the trees of comparison are made of.
    n_trees
        Trees tried for each class; the best one names its genes first.
    n_min_markers
        Markers of each class that stand before genes of second trees.
    subsample, test_subsample
        Cells of each class, at most, that a tree is trained and tested on.
    """

    n_pca_genes: Annotated[int, Ge(1)] = 100
    n_de_genes: Annotated[int, Ge(1)] = 3
    n_trees: Annotated[int, Ge(1)] = 50
    n_min_markers: Annotated[int, Ge(0)] = 2
    subsample: Annotated[int, Ge(1)] = 1000
    test_subsample: Annotated[int, Ge(1)] = 3000


_FEWEST = 4
"""Cells below which a class is in no tree: the library tests on a quarter of them."""


@method(
    "spapros",
    params=Params,
    label="spapros",
    supervised=True,
    needs="lognorm",
    environment=ENVIRONMENT,
    minutes=240.0,
    cite="Kuemmerle et al. 2024",
    doi="10.1038/s41592-024-02496-z",
)
def select(task: Task, params: Params) -> Selection:
    """Genes of the best small tree of each class, its markers, then those of other trees (spapros).

    Trees are grown on genes with large principal loadings, and genes that trees of differentially
    expressed genes show to be missing are added (Kuemmerle et al. 2024, Nature Methods). The
    library (0.1.6, MIT licence) does it in an environment of its own, with its fixed seed: the seed
    of the run changes nothing. Genes to be included are its preselected ones. Classes with fewer
    than four cells are left out.

    ``info["rank"]`` is the library's group of each of the first k genes.

    Raises
    ------
    NotApplicable
        With fewer than two classes.
    """
    codes = np.asarray(task.target.values)
    sizes = np.bincount(codes, minlength=len(task.target.classes))
    kept = np.flatnonzero(sizes[codes] >= _FEWEST)
    if len(np.unique(codes[kept])) < 2:
        raise NotApplicable(f"spapros: fewer than two classes have {_FEWEST} cells")
    position = {gene: number for number, gene in enumerate(task.genes.tolist())}
    found = call(
        task,
        Path(__file__).with_name("inside.py"),
        {
            "X": task.X[kept],
            "codes": codes[kept],
            "include": [position[gene] for gene in task.include],
            "n_jobs": task.n_jobs,
            **vars(params),
        },
    )
    places = np.empty(task.n_genes)
    places[found["order"]] = np.arange(task.n_genes)
    order = score_order(-places, gene_variances(task.X))
    ranks = dict(zip(found["order"].tolist(), found["rank"].tolist(), strict=True))
    return Selection(
        ranking=task.genes[order].tolist(),
        info={"rank": [ranks[gene] for gene in order[: task.k].tolist()]},
    )
