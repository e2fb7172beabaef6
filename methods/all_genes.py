"""All genes: the control that shows what selecting genes costs."""

from __future__ import annotations

from panelbench.method import NoParams, Selection, Task, method
from panelbench.ranking import gene_variances, rank_by_score


@method("all-genes", label="All genes", needs="prepared", cut=False)
def select(task: Task, params: NoParams) -> Selection:
    """Every gene, in order of decreasing variance; the panel is not cut to k."""
    return rank_by_score(task, gene_variances(task.X))
