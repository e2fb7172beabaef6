"""A random forest on the panel's genes. To make an evaluator of your own, copy this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring.metrics import CLASSIFICATION, REGRESSION
from panelbench.scoring.predictions import predictions, scored


@dataclass(frozen=True)
class Params:
    """scikit-learn's defaults."""

    n_estimators: Annotated[int, Ge(1)] = 100
    max_depth: Annotated[int, Ge(1)] | None = None
    min_samples_leaf: Annotated[int, Ge(1)] = 1


@evaluator(
    "rf",
    label="RF",
    params=Params,
    metrics=(*CLASSIFICATION, *REGRESSION),
    noisy=True,
    libraries=("scikit-learn",),
    cite="Breiman 2001",
)
def score(given: Evaluation, params: Params) -> Scores:
    """Train a random forest (Breiman 2001) on the panel's genes and predict the test cells.

    scikit-learn's forest with the run's seed as its ``random_state``.
    """
    model = fitted(given, params)
    predicted = predictions(model, given.test.dense(given.panel), given.test.target)
    return scored(given.test.target, predicted)


def fitted(given: Evaluation, params: Params) -> Any:
    """A forest that is trained on the panel's genes of the training cells."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestClassifier if given.kind == "classification" else RandomForestRegressor
    model = forest(
        n_estimators=params.n_estimators,
        max_depth=params.max_depth,
        min_samples_leaf=params.min_samples_leaf,
        random_state=given.seed,
        n_jobs=given.n_jobs,
    )
    model.fit(given.train.dense(given.panel), given.train.target.values)
    # Threads add up the trees in the order in which they finish: sums differ in the last bit
    # and ties with them. Predicting on one thread keeps the result independent of n_jobs.
    model.n_jobs = 1
    return model
