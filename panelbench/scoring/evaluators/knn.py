"""Nearest neighbours by the panel's genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring.metrics import CLASSIFICATION, REGRESSION
from panelbench.scoring.predictions import predictions, scored, standardised


@dataclass(frozen=True)
class Params:
    """Five neighbours, one vote each."""

    n_neighbors: Annotated[int, Ge(1)] = 5
    weights: Literal["uniform", "distance"] = "uniform"


@evaluator(
    "knn",
    label="kNN",
    params=Params,
    metrics=(*CLASSIFICATION, *REGRESSION),
    noisy=True,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Let the nearest training cells vote, by the panel's genes.

    Euclidean distance on columns standardised by the training cells. With fewer training cells
    than neighbours, all of them vote. No randomness.
    """
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    train, test = standardised(given)
    neighbours = KNeighborsClassifier if given.kind == "classification" else KNeighborsRegressor
    model = neighbours(
        n_neighbors=min(params.n_neighbors, len(train)),
        weights=params.weights,
        n_jobs=given.n_jobs,
    )
    model.fit(train, given.train.target.values)
    return scored(given.test.target, predictions(model, test, given.test.target))
