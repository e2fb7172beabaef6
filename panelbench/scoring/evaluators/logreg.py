"""Logistic regression on the panel's genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring.metrics import CLASSIFICATION
from panelbench.scoring.predictions import predictions, scored, standardised


@dataclass(frozen=True)
class Params:
    """Inverse strength of the L2 penalty, and steps at most."""

    C: Annotated[float, Gt(0)] = 1.0
    max_iter: Annotated[int, Ge(1)] = 1000


@evaluator(
    "logreg",
    label="logistic regression",
    params=Params,
    metrics=CLASSIFICATION,
    noisy=True,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Fit a multinomial logistic regression to the panel's genes, for classes only.

    Columns are standardised by the training cells. A convex fit without randomness, on one core.
    """
    from sklearn.linear_model import LogisticRegression

    if given.kind != "classification":
        raise NotApplicable("logreg predicts classes only; use rf or knn for regression tasks")
    train, test = standardised(given)
    labels = given.train.target.values
    present = np.unique(labels)
    if len(present) == 1:
        certain = np.eye(len(given.classes))[np.repeat(present, len(test))]
        return scored(given.test.target, certain)
    model = LogisticRegression(C=params.C, max_iter=params.max_iter).fit(train, labels)
    return scored(given.test.target, predictions(model, test, given.test.target))
