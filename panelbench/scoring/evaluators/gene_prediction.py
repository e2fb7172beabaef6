"""How much of all genes' expression a panel's neighbours tell."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.neighbours import components, nearest, neighbour_correlation


@dataclass(frozen=True)
class Params:
    """Numbers of neighbours, principal components, cells; and which genes count.

    k
        Number of neighbours.
    n_components
        Principal components of all genes.
    max_cells
        Of more test cells, this many are drawn.
    least
        Only genes count that neighbours by all genes predict with more than this correlation.
    """

    k: Annotated[int, Ge(1)] = 5
    n_components: Annotated[int, Ge(1)] = 50
    max_cells: Annotated[int, Ge(3)] = 5000
    least: Annotated[float, Ge(0), Lt(1)] = 0.25


@evaluator(
    "gene-prediction",
    label="gene prediction",
    params=Params,
    kind="genes",
    metrics=(
        Metric("gene_prediction", "Genes predicted, mean", "genes", percent=False, high=inf),
        Metric("gene_prediction_median", "Genes predicted, median", "genes", percent=False,
               high=inf),
        Metric("genes_predicted", "Share of genes predicted", "genes"),
    ),
    libraries=("scikit-learn", "scipy"),
    cite="Missarova et al. 2021",
)  # fmt: skip
def score(given: Evaluation, params: Params) -> Scores:
    """Predict every gene of test cells by the mean of their neighbours (geneBasis).

    r_g is Spearman's correlation over cells between gene g and its mean over the k nearest cells,
    at least 1e-5. The score of a gene is r_g with neighbours by the panel over r_g with neighbours
    by principal components of all genes, of genes whose latter is above `least`: 1 where the
    panel's neighbours tell as much. ``genes_predicted`` is the share of these genes that the
    panel's neighbours predict with a correlation above `least` too. Batches are not told apart,
    and no labels are used.
    """
    every = given.test.n_cells
    n = min(every, params.max_cells)
    if n <= params.k:
        raise NotApplicable(f"{n} test cells have fewer than {params.k} neighbours each")
    rows = np.sort(given.rng("cells").choice(every, size=n, replace=False))
    whole = given.test.dense()[rows]
    full = components(whole, params.n_components, given.int_seed("components"))
    best = neighbour_correlation(whole, nearest(full, params.k))
    found = neighbour_correlation(whole, nearest(given.test.dense(given.panel)[rows], params.k))
    counted = best > params.least
    notes = [f"{int(counted.sum())} of {len(best)} genes can be predicted at all"]
    if n < every:
        notes.append(f"{n} of {every} test cells")
    if not counted.any():
        return Scores(notes=notes)
    scores = found[counted] / best[counted]
    return Scores(
        {"gene_prediction": float(scores.mean()),
         "gene_prediction_median": float(np.median(scores)),
         "genes_predicted": float((found[counted] > params.least).mean())},
        notes=notes,
    )  # fmt: skip
