"""What a panel tells when an imaging platform sees some genes badly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from panelbench.evaluator import Cells, Evaluation, Scores, evaluator
from panelbench.scoring.detection import Instrument, Platform, forests, metrics


@dataclass(frozen=True)
class Params:
    """How unlike genes are, how large cells are, how often it is drawn, and the forest's trees.

    spread
        0: all genes are seen alike; 1: they differ as in the data that gpsFISH was fitted to.
    size_per_gene
        Median size of a cell in the image, per gene of the panel: its depth.
    """

    spread: Annotated[float, Ge(0)] = 1.0
    size_per_gene: Annotated[float, Gt(0)] = 169 / 33
    draws: Annotated[int, Ge(1)] = 3
    n_estimators: Annotated[int, Ge(1)] = 100


@evaluator(
    "platform",
    label="RF on imaged counts",
    params=Params,
    kind="imaged",
    metrics=metrics("imaged", "as imaged"),
    noisy=True,
    libraries=("scikit-learn",),
    cite="Zhang et al. 2024",
)
def score(given: Evaluation, params: Params) -> Scores:
    """Simulate imaged counts of the panel (gpsFISH, Zhang et al. 2024) and train a forest on them.

    Each gene has an efficiency and a background of its own, the same for all cells of a draw and
    for every panel that holds it; counts follow the model and the numbers of
    `panelbench.scoring.detection.Platform`. How forests are trained and what the metrics are
    stands in `panelbench.scoring.detection.forests`. Needs counts; a gene's share of a cell is
    that of all genes that were measured, or, where their total is not known, of the genes kept.
    """
    model = Platform(spread=params.spread, size_per_gene=params.size_per_gene)
    position = {gene: number for number, gene in enumerate(given.train.genes.tolist())}
    columns = [position[gene] for gene in given.panel]

    def instrument(draw: int) -> Instrument:
        rng = given.rng(f"genes of draw {draw}")
        gamma, c = (part[columns] for part in model.genes(len(position), rng))
        return lambda cells, rng: model.seen(_shares(cells, given.panel), gamma, c, rng)

    draws = [instrument(draw) for draw in range(params.draws)]
    return forests(given, "imaged", draws, params.n_estimators)


def _shares(cells: Cells, panel: tuple[str, ...]) -> np.ndarray:
    """Share of each panel gene among a cell's counts, float64, cells x genes."""
    depth = cells.depth
    if depth is None:
        depth = np.asarray(cells.X(needs="counts").sum(axis=1), dtype=np.float64).ravel()
    return np.asarray(cells.dense(panel, "counts") / np.maximum(depth, 1)[:, None])
