"""All genes, as the predictor that a method trained reconstructs them."""

from __future__ import annotations

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.method import NoParams
from panelbench.scoring import reconstruction
from panelbench.scoring.metrics import EXPRESSION


@evaluator(
    "builtin-reconstruct",
    label="own reconstruction",
    reads="reconstruction",
    kind="expression",
    metrics=EXPRESSION,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: NoParams) -> Scores:
    """Score the expression of all genes as what the method trained reconstructs it."""
    own = given.predictor
    return reconstruction.scored(given.test, own.reconstruct(given.test), own.needs)
