"""How many molecules a panel makes visible at once: what crowds an image."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np
from annotated_types import Gt, Le

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.ranking import class_means


@dataclass(frozen=True)
class Params:
    """How counts are read.

    efficiency
        Molecules seen by the instrument for each that was counted here.
    share
        Genes that make more than this of the highest class are named.
    """

    efficiency: Annotated[float, Gt(0)] = 1.0
    share: Annotated[float, Gt(0), Le(1)] = 0.05


@evaluator(
    "load",
    label="expression load",
    params=Params,
    takes=("classification",),
    kind="load",
    describes=True,
    metrics=(
        Metric("load_max", "Counts per cell, highest class", "load", higher_is_better=False,
               percent=False, high=inf),
        Metric("load_mean", "Counts per cell", "load", higher_is_better=False, percent=False,
               high=inf),
        Metric("load_top_gene", "Share of the largest gene", "load", higher_is_better=False),
    ),
)  # fmt: skip
def score(given: Evaluation, params: Params) -> Scores:
    """Sum the counts of the panel's genes per test cell: the mean, and that of the highest class.

    With c_gk the mean count of gene g in class k, ``load_max`` is the largest sum over g of c_gk,
    ``load_top_gene`` the share of its largest gene there, and ``load_mean`` the mean over all
    cells; the first and last times `efficiency`. Needs counts.
    """
    target = given.test.target
    if target.kind != "classification":
        raise NotApplicable("needs classes")
    counts = given.test.dense(given.panel, "counts")
    means = class_means(counts, target.values, len(target.classes)) * params.efficiency
    sums = means.sum(axis=1)
    highest = int(sums.argmax())
    metrics = {"load_max": float(sums[highest]),
               "load_mean": float(counts.sum(axis=1).mean() * params.efficiency)}  # fmt: skip
    if sums[highest] == 0:
        return Scores(metrics)
    shares = means[highest] / sums[highest]
    metrics["load_top_gene"] = min(float(shares.max()), 1.0)
    order = np.argsort(-shares, kind="stable")
    named = [f"{given.panel[g]} {shares[g]:.0%}" for g in order if shares[g] > params.share]
    listed = f": {', '.join(named[:10])}" if named else ""
    return Scores(metrics, notes=[f"highest in {target.classes[highest]}{listed}"])
