"""Whether a panel serves cells of donors, batches or technologies that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.scoring.cells import some
from panelbench.scoring.evaluators import rf
from panelbench.scoring.metrics import f1_macro
from panelbench.scoring.predictions import predictions


@dataclass(frozen=True)
class Params:
    """The forest's."""

    n_estimators: Annotated[int, Ge(1)] = 100


@evaluator(
    "transfer",
    label="RF on other groups",
    params=Params,
    takes=("classification",),
    kind="transfer",
    metrics=(
        Metric("f1_across", "Macro F1, other groups", "transfer"),
        Metric("f1_within", "Macro F1, same groups", "transfer"),
        Metric("f1_across_fall", "Fall of macro F1 on other groups", "transfer",
               higher_is_better=False, low=-1.0),
    ),
    noisy=True,
    libraries=("scikit-learn",),
)  # fmt: skip
def score(given: Evaluation, params: Params) -> Scores:
    """Predict the test cells of each group from training cells of the other groups.

    For each group (donor, batch, technology) a forest is trained on the panel's genes of the
    training cells of all other groups and predicts the group's test cells; ``f1_across`` is the
    macro F1 over all test cells. ``f1_within`` is that of forests trained on as many cells drawn
    from all groups, so that ``f1_across_fall``, the difference, is what the change of group costs
    and not what fewer cells cost.

    The classifier alone is kept from the group: cells of all groups took part in choosing the
    panel. With a split by groups (``scheme: leave-one-group-out``) the whole run is, and any
    evaluator then scores transfer.
    """
    target = given.test.target
    if target.kind != "classification":
        raise NotApplicable("transfer is measured by macro F1, which needs classes")
    if given.train.groups is None or given.test.groups is None:
        raise NotApplicable("needs groups of cells (group: a column of obs), which the data lack")
    names = np.unique(given.test.groups)
    across, within = (np.zeros((given.test.n_cells, len(target.classes))) for _ in range(2))
    rng, scored = given.rng("cells"), np.zeros(given.test.n_cells, dtype=bool)
    for number, name in enumerate(names):
        others = np.flatnonzero(given.train.groups != name)
        if not 0 < len(others) < given.train.n_cells:
            continue
        rows = given.test.groups == name
        X, scored[rows] = given.test.dense(given.panel)[rows], True
        drawn = np.sort(rng.choice(given.train.n_cells, size=len(others), replace=False))
        for trained_on, found in ((others, across), (drawn, within)):
            known = replace(given, train=some(given.train, trained_on))
            model = rf.fitted(known, rf.Params(n_estimators=params.n_estimators))
            found[rows] = predictions(model, X, target)
        given.progress((number + 1) / len(names), f"group {name}")
    if not scored.any():
        raise NotApplicable("no group is on both sides of the split: any evaluator scores transfer")
    one, two = (
        f1_macro(target.values[scored], proba[scored].argmax(axis=1)) for proba in (across, within)
    )
    notes = [f"{len(np.unique(given.test.groups[scored]))} groups"]
    return Scores(
        {"f1_across": one, "f1_within": two, "f1_across_fall": two - one},
        notes=notes,
        predicted=across,
    )
