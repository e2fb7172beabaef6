"""How much the genes of a panel tell the same."""

from __future__ import annotations

from dataclasses import dataclass

from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring.metrics import METRICS
from panelbench.scoring.panel_metrics import redundancy


@dataclass(frozen=True)
class Params:
    """There are none."""


@evaluator(
    "redundancy",
    label="redundancy",
    params=Params,
    kind="panel",
    metrics=(METRICS["redundancy"],),
    libraries=("numpy",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Mean absolute Pearson correlation over pairs of panel genes, on the test cells.

    No labels are used; a panel of one gene has none.
    """
    value = redundancy(given.test.dense(given.panel))
    return Scores({"redundancy": value} if value == value else {})
