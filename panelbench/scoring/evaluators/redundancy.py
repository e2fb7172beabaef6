"""How much the genes of a panel tell the same."""

from __future__ import annotations

from dataclasses import dataclass

from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.metrics import METRICS
from panelbench.scoring.panel_metrics import largest_correlation, redundancy


@dataclass(frozen=True)
class Params:
    """There are none."""


@evaluator(
    "redundancy",
    label="redundancy",
    params=Params,
    kind="panel",
    metrics=(
        METRICS["redundancy"],
        Metric("redundancy_max", "Largest correlation", "panel", higher_is_better=False,
               percent=False),
    ),
    libraries=("numpy",),
)  # fmt: skip
def score(given: Evaluation, params: Params) -> Scores:
    """Absolute Pearson correlations of pairs of panel genes, on the test cells.

    ``redundancy`` is their mean (1 - spapros' ``gene_corr`` mean), ``redundancy_max`` the largest.
    No labels are used; a panel of one gene has none.
    """
    X = given.test.dense(given.panel)
    found = {"redundancy": redundancy(X), "redundancy_max": largest_correlation(X)}
    return Scores({name: value for name, value in found.items() if value == value})
