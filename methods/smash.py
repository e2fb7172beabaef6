"""SMaSH, the random-forest variant: impurity importance with every class counting alike."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import rank_by_score


@dataclass(frozen=True)
class Params:
    """Parameters of the forest.

    Attributes
    ----------
    n_estimators
        Number of trees.
    max_depth
        Depth of a tree; None grows it until its leaves are pure.
    """

    n_estimators: int = 100
    max_depth: int | None = None


@method(
    "smash",
    params=Params,
    label="SMaSH",
    supervised=True,
    needs="prepared",
    libraries=("scikit-learn",),
    cite="Nelson et al. 2022",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by importance in a forest with balanced classes (SMaSH, Nelson et al. 2022).

    A cell of class c weighs N / (C N_c), so that C classes of any size weigh the same. This is
    what the MarkerMap benchmark calls SMaSH: genes ranked over all classes at once, forest grown
    on all training cells. The variant with a neural network and SHAP values is not here.

    Raises
    ------
    NotApplicable
        When all training cells have one class: no split, no importance.
    """
    from sklearn.ensemble import RandomForestClassifier

    if len(set(task.target.values.tolist())) < 2:
        raise NotApplicable(f"task {task.target.name}: all training cells have the same class")
    model = RandomForestClassifier(
        n_estimators=params.n_estimators,
        max_depth=params.max_depth,
        class_weight="balanced",
        random_state=task.int_seed("forest"),
        n_jobs=task.n_jobs,
    )
    # Dense even where X is sparse: the trees are then the same, and grow faster.
    model.fit(task.dense(), task.target.values)
    importance = model.feature_importances_
    used = int((importance > 0).sum())
    if used < task.k:
        warnings.warn(
            f"the forest used {used} of {task.n_genes} genes, fewer than the {task.k} asked for: "
            "the rest follow in order of variance",
            stacklevel=2,
        )
    return rank_by_score(task, importance, genes_used=used)
