"""A panel that is already there: genes from a file, a paper or a colleague."""

from __future__ import annotations

from dataclasses import dataclass

from panelbench.errors import MethodError, near_matches
from panelbench.method import Selection, Task, method
from panelbench.ranking import gene_variances, rank_by_score


@dataclass(frozen=True)
class Params:
    """Parameters.

    Attributes
    ----------
    genes
        Gene names, best first.
    """

    genes: tuple[str, ...] = ()


@method("given", params=Params, label="Given panel", needs="prepared")
def select(task: Task, params: Params) -> Selection:
    """Rank the given genes in their order; all other genes follow by variance."""
    known = set(task.genes.tolist())
    unknown = [gene for gene in params.genes if gene not in known]
    if unknown:
        near = near_matches(unknown[0], known)
        hint = f"; for {unknown[0]} there is {', '.join(near)}" if near else ""
        shown = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        raise MethodError(f"{len(unknown)} genes of the panel are not in the data: {shown}{hint}")
    first = list(dict.fromkeys(params.genes))
    given = set(first)
    others = rank_by_score(task, gene_variances(task.X)).ranking
    return Selection(ranking=[*first, *(gene for gene in others if gene not in given)])
