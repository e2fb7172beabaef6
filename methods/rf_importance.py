"""Importance in a random forest: the mean decrease in impurity that a gene brings.

- `rf-importance`: scikit-learn's forest as it comes.
- `smash`: SMaSH in its random-forest variant, where every class counts alike.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from panelbench.errors import NotApplicable
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

    n_estimators: Annotated[int, Ge(1)] = 100
    max_depth: Annotated[int, Ge(1)] | None = None


_DECLARED: dict[str, Any] = {
    "params": Params,
    "supervised": True,
    "needs": "prepared",
    "libraries": ("scikit-learn",),
}


@method(
    "rf-importance",
    label="RF importance",
    regression=True,
    cite="Breiman 2001",
    doi="10.1023/A:1010933404324",
    **_DECLARED,
)
def select(task: Task, params: Params) -> Selection:
    """Genes by their impurity importance in a random forest (Breiman 2001).

    Trees are unchanged by any monotone transformation of a gene, so the prepared matrix serves
    as well as the log-normalised one.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if task.target.kind == "regression":
        return _rank(task, params, RandomForestRegressor)
    return _rank(task, params, RandomForestClassifier)


@method(
    "smash", label="SMaSH", cite="Nelson et al. 2022", doi="10.1186/s12859-022-04860-2", **_DECLARED
)
def smash(task: Task, params: Params) -> Selection:
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
    return _rank(task, params, RandomForestClassifier, class_weight="balanced")


def _rank(task: Task, params: Params, forest: Any, **options: Any) -> Selection:
    """Grow a forest of a scikit-learn class on all training cells; rank by its importance."""
    model = forest(
        n_estimators=params.n_estimators,
        max_depth=params.max_depth,
        random_state=task.int_seed("forest"),
        n_jobs=task.n_jobs,
        **options,
    )
    # Dense even where X is sparse: the trees are then the same, and grow faster.
    model.fit(task.dense(), task.target.values)
    importance = model.feature_importances_
    used = int((importance > 0).sum())
    if used < task.k:
        warnings.warn(
            f"the forest used {used} of {task.n_genes} genes, fewer than the {task.k} asked for: "
            "the rest follow in order of variance",
            stacklevel=3,
        )
    return rank_by_score(task, importance, genes_used=used)
