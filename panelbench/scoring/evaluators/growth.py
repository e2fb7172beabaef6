"""What each further gene of a panel adds: scores of its first genes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.metrics import f1_macro
from panelbench.scoring.predictions import predictions


@dataclass(frozen=True)
class Params:
    """Growth of the sizes from one to the next, and the forest's trees."""

    step: Annotated[float, Gt(1), Le(10)] = 1.4
    n_estimators: Annotated[int, Ge(1)] = 100


@evaluator(
    "growth",
    label="RF of the first genes",
    params=Params,
    kind="growth",
    metrics=(
        Metric("f1_growth", "Macro F1, mean over sizes", "growth"),
        Metric("genes_95", "Genes for 95% of it", "growth", False, percent=False, high=inf),
    ),
    noisy=True,
    libraries=("scikit-learn",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Train a forest on the first genes of the panel, for growing sizes, and score each.

    Sizes are 1, 2, 3, ... and from where `step` makes more than one gene of it, `step` times the
    one before, up to the whole panel. ``f1_growth`` is the mean of macro F1 over the sizes,
    ``genes_95`` the smallest size from which on it stays at 95% of the largest or above. The
    arrays are the ``sizes``, the ``guesses`` (sizes x test cells, codes of classes) and the true
    ``codes``: the curve of any metric. The order is the method's: of a method whose smaller
    panels are others, it is a curve of this panel, not of the method.
    """
    from sklearn.ensemble import RandomForestClassifier

    if given.kind != "classification":
        raise NotApplicable("growth is measured by macro F1, which needs classes")
    train, test = given.train.dense(given.panel), given.test.dense(given.panel)
    sizes = growing(len(given.panel), params.step)
    truth, proba, guesses = given.test.target.values, np.empty(0), []
    for number, size in enumerate(sizes, start=1):
        model = RandomForestClassifier(
            params.n_estimators, random_state=given.seed, n_jobs=given.n_jobs
        )
        model.fit(train[:, :size], given.train.target.values)
        # Threads add up the trees in the order in which they finish: see the evaluator `rf`.
        model.n_jobs = 1
        proba = predictions(model, test[:, :size], given.test.target)
        guesses.append(proba.argmax(axis=1))
        given.progress(number / len(sizes), f"{size} of {len(given.panel)} genes")
    found = np.array([f1_macro(truth, guess) for guess in guesses])
    good = found >= 0.95 * found.max()
    # The first size of the last unbroken run of good ones; the largest where the last is not.
    broken = np.flatnonzero(~good)
    enough = sizes[min(int(broken[-1]) + 1, len(sizes) - 1)] if broken.size else sizes[0]
    return Scores(
        metrics={"f1_growth": float(found.mean()), "genes_95": float(enough)},
        arrays={
            "sizes": np.array(sizes, dtype=np.int64),
            "guesses": np.array(guesses, dtype=np.int32),
            "codes": truth,
        },
        predicted=proba,
    )


def growing(k: int, step: float) -> list[int]:
    """Sizes from 1 to k, each at least one more than the one before, or `step` times it."""
    sizes = [1]
    while sizes[-1] < k:
        sizes.append(min(k, max(sizes[-1] + 1, round(step * sizes[-1]))))
    return sizes
