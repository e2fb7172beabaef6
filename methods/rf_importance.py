"""Random-forest importance: the mean decrease in impurity that a gene brings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from panelbench.method import Selection, Task, method
from panelbench.ranking import rank_by_score


@dataclass(frozen=True)
class Params:
    """Parameters of the forest, with scikit-learn's defaults.

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
    "rf-importance",
    params=Params,
    label="RF importance",
    supervised=True,
    regression=True,
    needs="prepared",
    libraries=("scikit-learn",),
    cite="Breiman 2001",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by their impurity importance in a random forest (Breiman 2001).

    Trees are unchanged by any monotone transformation of a gene, so the prepared matrix serves
    as well as the log-normalised one.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = (
        RandomForestClassifier if task.target.kind == "classification" else RandomForestRegressor
    )
    model = forest(
        n_estimators=params.n_estimators,
        max_depth=params.max_depth,
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
