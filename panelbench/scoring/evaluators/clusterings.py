"""Whether cells fall into the same clusters when only the panel's genes are seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.clusterings import agreement, leiden, neighbour_graph, partitions
from panelbench.scoring.neighbours import components


@dataclass(frozen=True)
class Params:
    """Numbers of clusters, neighbours, principal components, and cells that are looked at.

    coarse, fine
        Smallest and largest number of clusters.
    n_neighbors
        Of a cell in the graph, itself among them.
    n_components
        Principal components of all genes; of the panel's, one less than its genes if fewer.
    max_cells
        Of more test cells, this many are drawn.
    """

    coarse: tuple[Annotated[int, Ge(2)], Annotated[int, Ge(2)]] = (5, 20)
    fine: tuple[Annotated[int, Ge(2)], Annotated[int, Ge(2)]] = (21, 60)
    n_neighbors: Annotated[int, Ge(2)] = 15
    n_components: Annotated[int, Ge(1)] = 50
    max_cells: Annotated[int, Ge(10)] = 2000

    def __post_init__(self) -> None:
        for low, high in (self.coarse, self.fine):
            if low > high:
                raise ValueError(f"from {low} to {high} clusters there is none")


_CELLS = 5
"""A cluster has at least so many cells on average."""


@evaluator(
    "clusterings",
    label="clusterings",
    params=Params,
    kind="clusterings",
    metrics=(
        Metric("nmi_coarse", "Coarse clusters kept (NMI)", "clusterings"),
        Metric("nmi_fine", "Fine clusters kept (NMI)", "clusterings"),
        Metric("ami_coarse", "Coarse clusters kept (AMI)", "clusterings", low=-1.0),
        Metric("ami_fine", "Fine clusters kept (AMI)", "clusterings", low=-1.0),
    ),
    libraries=("igraph", "scanpy", "scikit-learn", "umap-learn"),
    cite="Kuemmerle et al. 2024",
)
def score(given: Evaluation, params: Params) -> Scores:
    """Cluster test cells by all genes and by the panel's at many resolutions, and compare.

    On both sides Leiden partitions of scanpy's neighbour graph in principal components, with n
    clusters for every n of a range (see `panelbench.scoring.clusterings`). With U_n and V_n those
    by all genes and by the panel's, H the entropy and I the mutual information of clusters::

        NMI_n = 2 I(U_n, V_n) / (H(U_n) + H(V_n))
        AMI_n = (I - E I) / ((H(U_n) + H(V_n)) / 2 - E I)

    with E I the mean over random partitions with as many cells in each cluster: AMI is 0 by chance,
    NMI is not. ``nmi_coarse`` is the mean over n of `coarse` (spapros' ``nmi_5_20``), ``nmi_fine``
    that of `fine` (its ``nmi_21_60``). Ranges end where clusters would have fewer than 5 cells on
    average, and a range that begins beyond that is left out. No labels are used.
    """
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    every = given.test.n_cells
    n = min(every, params.max_cells)
    wanted = {
        name: (low, min(high, n // _CELLS))
        for name, (low, high) in (("coarse", params.coarse), ("fine", params.fine))
        if low <= n // _CELLS
    }
    if not wanted or n <= params.n_neighbors:
        raise NotApplicable(f"{n} test cells are too few for {min(params.coarse)} clusters")
    rows = np.sort(given.rng("cells").choice(every, size=n, replace=False))
    panel = given.test.dense(given.panel)[rows]
    seed = given.int_seed("components")
    low, high = min(a for a, _ in wanted.values()), max(b for _, b in wanted.values())
    sides = []
    for X, most in (
        (given.test.dense()[rows], params.n_components),
        (panel, max(1, min(params.n_components, panel.shape[1] - 1))),
    ):
        graph = neighbour_graph(components(X, most, seed), params.n_neighbors)
        cluster = partial(leiden, graph, seed=given.int_seed("leiden"))
        sides.append(partitions(cluster, low, high))
        given.progress(len(sides) / 2, f"{low} to {high} clusters")
    metrics = {
        f"{short}_{name}": agreement(sides[0], sides[1], *sizes, measure=measure)
        for name, sizes in wanted.items()
        for short, measure in (("nmi", normalized_mutual_info_score),
                               ("ami", adjusted_mutual_info_score))
    }  # fmt: skip
    notes = [f"{n} of {every} test cells"] if n < every else []
    if high < params.fine[1]:
        notes.append(f"at most {high} clusters of {n} cells")
    return Scores({name: x for name, x in metrics.items() if not np.isnan(x)}, notes=notes)
