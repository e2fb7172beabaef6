"""The predictor that a method trained with its panel."""

from __future__ import annotations

from dataclasses import dataclass

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring.metrics import CLASSIFICATION, REGRESSION
from panelbench.scoring.predictions import scored


@dataclass(frozen=True)
class Params:
    """The mode of the predictor, every mode in turn if not given."""

    mode: str = ""


@evaluator(
    "builtin",
    label="own predictor",
    params=Params,
    reads="predictor",
    metrics=(*CLASSIFICATION, *REGRESSION),
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Score the predictor that the method trained with its panel; nothing is trained here."""
    return scored(given.test.target, given.predictor.predict(given.test))
