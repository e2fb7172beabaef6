"""From a ranking to a panel that keeps to a budget and covers every class.

The panel is the one that the ranking says as far as it can be: genes leave it only where another
is needed or the money is. The rule, in this order:

1. Genes to include are on the panel.
2. Classes with too few markers, those with the fewest candidates first, get their best-ranked
   ones. A gene counts for all classes that it marks.
3. What is left is filled in the order of the ranking. With a budget a gene is passed over where
   the cheapest genes would not fill the panel any more after it.

Step 2 is greedy: a panel that covers all classes can exist where none is found (finding it is the
set cover problem); then the message says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from panelbench.errors import ConstraintError


@dataclass(frozen=True)
class Rules:
    """What the panel keeps to; see `panelbench.stages.constraints.Constraints`.

    `marks` are the genes that mark each class, `costs` those of all genes that are ranked.
    """

    include: Sequence[str] = ()
    markers: int = 0
    marks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    budget: float | None = None


@dataclass(frozen=True)
class Completed:
    """A panel, and how it differs from the first genes of the ranking.

    Attributes
    ----------
    panel
        Genes to include, then the others, both in the order of the ranking.
    moved_in
        Genes that the ranking alone would not have put on it, with the reason.
    moved_out
        Genes that it would have.
    """

    panel: tuple[str, ...]
    moved_in: Mapping[str, str]
    moved_out: tuple[str, ...]


def complete(ranking: Sequence[str], k: int, rules: Rules) -> Completed:
    """Make the panel of k genes.

    Parameters
    ----------
    ranking
        All candidate genes, best first.
    k
        Genes of the panel.
    rules
        What it keeps to.

    Raises
    ------
    ConstraintError
        When there is no such panel, or none is found; it says what is missing, and how much.
    """
    place = {gene: position for position, gene in enumerate(ranking)}
    chosen = dict.fromkeys(rules.include, "to be included")
    if len(chosen) > k:
        raise ConstraintError(f"{len(chosen)} genes are to be included, and k is {k}")
    if len(ranking) < k:
        raise ConstraintError(f"{len(ranking)} genes are candidates, and k is {k}")
    purse = _Purse(rules, k, chosen)
    for name, genes in sorted(rules.marks.items(), key=lambda item: (len(item[1]), item[0])):
        for gene in sorted(genes - chosen.keys(), key=place.__getitem__):
            if len(chosen.keys() & genes) >= rules.markers:
                break
            if purse.allows(gene, chosen):
                chosen[gene] = f"marks {name}"
        short = rules.markers - len(chosen.keys() & genes)
        if short > 0:
            why = "it has no more"
            if len(genes) >= rules.markers:
                why = f"those left do not fit into the budget of {rules.budget:g} beside the others"
            raise ConstraintError(f"{name} lacks {short} of {rules.markers} markers: {why}")
        if len(chosen) > k:
            raise ConstraintError(
                f"{rules.markers} markers of each class and the genes to be included take more "
                f"than k = {k} genes ({len(chosen)} when it came to {name})"
            )
    for gene in ranking:
        if len(chosen) == k:
            break
        if gene not in chosen and purse.allows(gene, chosen):
            chosen[gene] = "cheaper than what it replaces"
    first = set(ranking[:k])
    included = set(rules.include)
    panel = sorted(chosen, key=lambda gene: (gene not in included, place[gene]))
    return Completed(
        panel=tuple(panel),
        moved_in={gene: chosen[gene] for gene in panel if gene not in first},
        moved_out=tuple(gene for gene in ranking[:k] if gene not in chosen),
    )


class _Purse:
    """Whether a gene can be paid for, with as much left as the rest of the panel takes."""

    def __init__(self, rules: Rules, k: int, chosen: Mapping[str, str]) -> None:
        self._costs, self._budget, self._k = rules.costs, rules.budget, k
        self._by_cost = sorted(rules.costs, key=lambda gene: (rules.costs[gene], gene))
        if self._budget is None:
            return
        least = self._least(chosen, None)
        if least > self._budget:
            what = "the genes to be included and the cheapest others" if chosen else "the cheapest"
            raise ConstraintError(
                f"{what} cost {least:g} for k = {k}, {least - self._budget:g} more than the "
                f"budget of {self._budget:g}"
            )

    def allows(self, gene: str, chosen: Mapping[str, str]) -> bool:
        """Whether the panel can be filled within the budget when the gene joins it."""
        return self._budget is None or self._least(chosen, gene) <= self._budget

    def _least(self, chosen: Mapping[str, str], gene: str | None) -> float:
        """Cost of what is chosen, of the gene, and of the cheapest others up to k."""
        spent = sum(self._costs[name] for name in chosen)
        count = len(chosen)
        if gene is not None:
            spent, count = spent + self._costs[gene], count + 1
        free = self._cheapest(chosen, gene)
        return spent + sum(self._costs[next(free)] for _ in range(self._k - count))

    def _cheapest(self, chosen: Mapping[str, str], gene: str | None) -> Iterator[str]:
        return (name for name in self._by_cost if name not in chosen and name != gene)
