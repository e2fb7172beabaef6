"""Whether cells keep their neighbours when only the panel's genes are seen."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.neighbours import components, overlap, preservation


@dataclass(frozen=True)
class Params:
    """Numbers of neighbours, principal components, and cells that are looked at.

    sizes
        Numbers of neighbours whose overlap is averaged.
    k
        Number of neighbours for the preservation.
    n_components
        Principal components of all genes; of the panel's, one less than its genes if fewer.
    max_cells
        Of more test cells, this many are drawn.
    """

    sizes: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (5, 10, 15, 20, 25, 30)
    k: Annotated[int, Ge(1)] = 5
    n_components: Annotated[int, Ge(1)] = 50
    max_cells: Annotated[int, Ge(3)] = 5000


@evaluator(
    "neighbours",
    label="neighbourhoods",
    params=Params,
    kind="neighbourhood",
    metrics=(
        Metric("knn_overlap", "Neighbours kept", "neighbourhood"),
        Metric("knn_preservation", "Neighbourhood preservation", "neighbourhood",
               percent=False, low=-inf),
        Metric("knn_preservation_low", "Neighbourhood preservation, 5% quantile", "neighbourhood",
               percent=False, low=-inf),
    ),
    libraries=("scikit-learn",),
    cite="Missarova et al. 2021",
)  # fmt: skip
def score(given: Evaluation, params: Params) -> Scores:
    """Compare the nearest neighbours of test cells by all genes with those by the panel's.

    ``knn_overlap`` is the share of common neighbours, both sides in principal components
    (spapros, Kuemmerle et al. 2024); ``knn_preservation`` says how near the panel's neighbours
    are by all genes, mean over cells, and ``knn_preservation_low`` its 5% quantile, the badly
    covered cells (geneBasis, Missarova et al. 2021). The formulas are those of
    `panelbench.scoring.neighbours`. Batches are not told apart, and no labels are used.
    """
    every, most = given.test.n_cells, max(*params.sizes, params.k)
    n = min(every, params.max_cells)
    if n <= most:
        raise NotApplicable(f"{n} test cells have fewer than {most} neighbours each")
    rows = np.sort(given.rng("cells").choice(every, size=n, replace=False))
    panel = given.test.dense(given.panel)[rows]
    seed = given.int_seed("components")
    full = components(given.test.dense()[rows], params.n_components, seed)
    reduced = components(panel, max(1, min(params.n_components, panel.shape[1] - 1)), seed)
    near = preservation(full, panel, params.k)
    metrics = {"knn_overlap": overlap(full, reduced, sorted(params.sizes))}
    if not np.isnan(near).all():
        metrics["knn_preservation"] = float(np.nanmean(near))
        metrics["knn_preservation_low"] = float(np.nanquantile(near, 0.05))
    return Scores(metrics, notes=[f"{n} of {every} test cells"] if n < every else [])
