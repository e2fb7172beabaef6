"""All genes, predicted from the panel's by least squares."""

from __future__ import annotations

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.method import NoParams
from panelbench.scoring import reconstruction
from panelbench.scoring.metrics import EXPRESSION


@evaluator(
    "reconstruct",
    label="linear reconstruction",
    kind="expression",
    metrics=EXPRESSION,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: NoParams) -> Scores:
    """Predict all genes from the panel's by ordinary least squares, fitted on training cells."""
    known, seen = given.train.dense(given.panel), given.test.dense(given.panel)
    again = reconstruction.linear(known, given.train.dense(), seen)
    return reconstruction.scored(given.test, again, "prepared")
