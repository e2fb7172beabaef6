"""Whether the panel has genes that mark each class, and that tell each two classes apart."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.ranking import auroc, class_means
from panelbench.scoring.markers import pair_auroc


@dataclass(frozen=True)
class Params:
    """What counts as a marker.

    markers
        Genes that a class needs to be covered.
    auroc
        A marker tells its class from all others better than this.
    detection
        And is seen in more than this share of the cells of the class.
    """

    markers: Annotated[int, Ge(1)] = 2
    auroc: Annotated[float, Ge(0.5), Lt(1)] = 0.8
    detection: Annotated[float, Ge(0), Lt(1)] = 0.2


@evaluator(
    "coverage",
    label="marker coverage",
    params=Params,
    takes=("classification",),
    kind="coverage",
    describes=True,
    metrics=(
        Metric("class_coverage", "Classes covered", "coverage"),
        Metric("pair_coverage", "Pairs of classes told apart", "coverage"),
        Metric("n_markers", "Markers per class", "coverage", percent=False, high=inf),
    ),
    libraries=("scipy",),
)
def score(given: Evaluation, params: Params) -> Scores:
    """Count on test cells which classes have markers on the panel, and which pairs a gene for them.

    ``class_coverage`` is the share of classes with at least `markers` genes on the panel whose
    AUROC of the class against all others is above `auroc` and which are seen in more than
    `detection` of its cells; ``n_markers`` the mean number of such genes. ``pair_coverage`` is the
    share of pairs of classes that at least one gene tells apart with such an AUROC, in either
    direction. Classes without test cells are left out; the uncovered ones are named.
    """
    target = given.test.target
    if target.kind != "classification":
        raise NotApplicable("needs classes")
    values, codes, n = given.test.dense(given.panel), target.values, len(target.classes)
    present = np.flatnonzero(np.bincount(codes, minlength=n) > 0)
    if present.size < 2:
        return Scores(notes=["the test cells are all of one class"])
    alone = auroc(values, codes, n, np.arange(values.shape[1])) > params.auroc
    often = class_means(given.test.dense(given.panel, "binary") > 0, codes, n)
    counts = (alone & (often > params.detection)).sum(axis=1)[present]
    pairs = pair_auroc(values, codes, n)
    bare = [target.classes[code] for code in present[counts < params.markers]]
    blurred = [(a, b) for (a, b), value in pairs.items() if value <= params.auroc]
    notes = []
    if bare:
        notes.append(f"fewer than {params.markers} markers: {', '.join(bare)}")
    if blurred:
        told = ", ".join(f"{target.classes[a]} and {target.classes[b]}" for a, b in blurred[:10])
        more = f" and {len(blurred) - 10} more" if len(blurred) > 10 else ""
        notes.append(f"no gene tells apart: {told}{more}")
    metrics = {
        "class_coverage": float((counts >= params.markers).mean()),
        "pair_coverage": 1 - len(blurred) / len(pairs),
        "n_markers": float(counts.mean()),
    }
    return Scores(metrics, notes=notes)
