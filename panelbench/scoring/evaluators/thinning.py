"""What a panel tells when only a share of the molecules is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.evaluator import Cells, Evaluation, Scores, evaluator
from panelbench.scoring.detection import forests, metrics, thinned


@dataclass(frozen=True)
class Params:
    """Share of the molecules that is seen, how often it is drawn, and the forest's trees."""

    share: Annotated[float, Gt(0), Le(1)] = 0.2
    draws: Annotated[int, Ge(1)] = 3
    n_estimators: Annotated[int, Ge(1)] = 100


@evaluator(
    "thinning",
    label="RF on thinned counts",
    params=Params,
    kind="thinned",
    metrics=metrics("thinned", "counts thinned"),
    noisy=True,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """See each molecule with a probability, in training and test cells, and train a forest.

    A count x becomes Binomial(x, `share`): detection of equal efficiency for all genes, the
    binomial part of what gpsFISH (Zhang et al. 2024) finds between dissociated and imaged cells.
    How forests are trained and what the metrics are stands in
    `panelbench.scoring.detection.forests`. Needs counts.
    """

    def instrument(cells: Cells, rng: np.random.Generator) -> np.ndarray:
        return thinned(cells.dense(given.panel, "counts"), params.share, rng)

    return forests(given, "thinned", [instrument] * params.draws, params.n_estimators)
