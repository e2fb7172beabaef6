"""How a panel stands the loss of some of its genes, as when probes fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.evaluators import rf
from panelbench.scoring.metrics import f1_macro
from panelbench.scoring.predictions import predictions


@dataclass(frozen=True)
class Params:
    """Share of the genes that is lost at once, how often it is drawn, and the forest's."""

    share: Annotated[float, Gt(0), Le(1)] = 0.1
    draws: Annotated[int, Ge(1)] = 20
    n_estimators: Annotated[int, Ge(1)] = 100


@evaluator(
    "robustness",
    label="RF with genes lost",
    params=Params,
    kind="robustness",
    metrics=(
        Metric("f1_lost", "Macro F1, genes lost", "robustness"),
        Metric("f1_fall", "Fall of macro F1", "robustness", higher_is_better=False, low=-1.0),
        Metric("f1_fall_worst", "Fall of macro F1, worst tenth", "robustness", False, low=-1.0),
    ),
    noisy=True,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Take a random share of the panel's genes away from the test cells, forest not retrained.

    A forest is trained on all of the panel (as by ``rf``). In each draw some genes of the test
    cells read as if they had not been detected: 0, or, where values are scaled, the smallest
    value of the training cells. With f the macro F1 of all genes and f_d that of draw d:
    ``f1_lost`` is the mean of f_d, ``f1_fall`` the mean of f - f_d, and ``f1_fall_worst`` the
    0.9 quantile of f - f_d, which a tenth of the draws exceeds. The share is rounded to genes, at
    least one; all panels of a size and seed lose genes of the same ranks.

    That probes fail without notice is what gpsFISH models per gene (Zhang et al. 2024), and
    geneBasis (Missarova et al. 2021) loses one gene at a time.
    """
    if given.kind != "classification":
        raise NotApplicable("robustness is measured by macro F1, which needs classes")
    target = given.test.target
    model = rf.fitted(given, rf.Params(n_estimators=params.n_estimators))
    X = given.test.dense(given.panel)
    unseen = np.minimum(given.train.dense(given.panel).min(axis=0), 0)
    n_lost = max(1, round(params.share * len(given.panel)))
    rng = given.rng("lost genes")

    def macro_f1(proba: np.ndarray) -> float:
        return f1_macro(target.values, proba.argmax(axis=1))

    whole = predictions(model, X, target)
    found = []
    for draw in range(params.draws):
        lost = rng.choice(len(given.panel), size=n_lost, replace=False)
        poorer = X.copy()
        poorer[:, lost] = unseen[lost]
        found.append(predictions(model, poorer, target))
        given.progress((draw + 1) / params.draws, f"{n_lost} of {len(given.panel)} genes lost")
    scores = np.array([macro_f1(proba) for proba in found])
    falls = macro_f1(whole) - scores
    return Scores(
        metrics={
            "f1_lost": float(scores.mean()),
            "f1_fall": float(falls.mean()),
            "f1_fall_worst": float(np.quantile(falls, 0.9)),
        },
        notes=[f"{n_lost} of {len(given.panel)} genes lost, {params.draws} draws"],
        predicted=np.mean(found, axis=0),
    )
