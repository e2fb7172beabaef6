"""How a panel stands the loss of some of its genes, as when probes fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    """Which genes are lost at once, what is known of it, and the forest's trees.

    share, draws
        Share of the genes that is lost at once, and how often it is drawn.
    each
        Instead of that, every gene is lost once, alone.
    retrained
        That they are lost is known: the forest is trained again without them.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.1
    draws: Annotated[int, Ge(1)] = 20
    each: bool = False
    retrained: bool = False
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
    """Take genes of the panel away from the test cells, with the forest retrained or not.

    A forest is trained on all of the panel (as by ``rf``). In each draw some genes of the test
    cells read as if they had not been detected: 0, or, where values are scaled, the smallest
    value of the training cells. With f the macro F1 of all genes and f_d that of draw d:
    ``f1_lost`` is the mean of f_d, ``f1_fall`` the mean of f - f_d, and ``f1_fall_worst`` the
    0.9 quantile of f - f_d, which a tenth of the draws exceeds. The share is rounded to genes, at
    least one; all panels of a size and seed lose genes of the same ranks. With `each` there is a
    draw per gene, and the genes that cost most are named. With `retrained` a forest is trained
    in each draw on the genes that are left (where none is, the test cells read as undetected).

    That probes fail without notice is what gpsFISH models per gene (Zhang et al. 2024); geneBasis
    (Missarova et al. 2021) loses one gene at a time.
    """
    if given.kind != "classification":
        raise NotApplicable("robustness is measured by macro F1, which needs classes")
    target, size = given.test.target, len(given.panel)
    forest = rf.Params(n_estimators=params.n_estimators)
    model = rf.fitted(given, forest)
    X = given.test.dense(given.panel)
    unseen = np.minimum(given.train.dense(given.panel).min(axis=0), 0)

    def macro_f1(proba: np.ndarray) -> float:
        return f1_macro(target.values, proba.argmax(axis=1))

    def without(lost: np.ndarray) -> np.ndarray:
        kept = np.setdiff1d(np.arange(size), lost)
        if params.retrained and len(kept):
            left = replace(given, panel=tuple(given.panel[g] for g in kept))
            return predictions(rf.fitted(left, forest), X[:, kept], target)
        poorer = X.copy()
        poorer[:, lost] = unseen[lost]
        return predictions(model, poorer, target)

    whole, draws, found = macro_f1(predictions(model, X, target)), list(_lost(given, params)), []
    for draw, lost in enumerate(draws):
        found.append(without(lost))
        given.progress((draw + 1) / len(draws), f"{len(lost)} of {size} genes lost")
    scores = np.array([macro_f1(proba) for proba in found])
    falls = whole - scores
    if params.each:
        worst = [g for g in np.argsort(-falls, kind="stable")[:5] if falls[g] > 0]
        notes = [f"{given.panel[g]} lost costs {falls[g]:.3f}" for g in worst]
    else:
        notes = [f"{len(draws[0])} of {size} genes lost, {params.draws} draws"]
    return Scores(
        metrics={
            "f1_lost": float(scores.mean()),
            "f1_fall": float(falls.mean()),
            "f1_fall_worst": float(np.quantile(falls, 0.9)),
        },
        notes=notes,
        predicted=np.mean(found, axis=0),
    )


def _lost(given: Evaluation, params: Params) -> Iterator[np.ndarray]:
    """Positions of the genes that are lost in each draw."""
    size = len(given.panel)
    if params.each:
        yield from np.arange(size)[:, None]
        return
    rng = given.rng("lost genes")
    for _ in range(params.draws):
        yield rng.choice(size, size=max(1, round(params.share * size)), replace=False)
