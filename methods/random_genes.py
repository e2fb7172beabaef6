"""Random genes: the control that every selector has to beat."""

from __future__ import annotations

from panelbench.method import NoParams, Selection, Task, method
from panelbench.ranking import rank_by_score


@method("random", label="Random", needs="prepared", libraries=("numpy",))
def select(task: Task, params: NoParams) -> Selection:
    """Genes in random order, constant genes last."""
    return rank_by_score(task, task.rng("genes").random(task.n_genes))
