"""A selection under constraints: candidates before the method, a completed panel after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import ConstraintError, NotApplicable
from panelbench.method import Method, Needs, Selection, Task
from panelbench.ranking import gene_variances, rank_by_score
from panelbench.stages.candidates import Candidates, candidates
from panelbench.stages.completion import Rules, complete
from panelbench.stages.constraints import Constraints
from panelbench.stages.prepared import facts
from panelbench.stages.task import Labels, expression, target

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Constrained:
    """What is left of the training cells' genes, and what the panel is to keep to."""

    cells: AnnData
    wanted: Constraints
    found: Candidates

    def complete(self, selection: Selection, task: Task) -> tuple[Selection, dict[str, Any]]:
        """Make the panel of a ranking.

        Genes that the method did not rank follow in the order of their variance. A predictor is
        kept only where the panel is the one that it was trained for.

        Returns
        -------
        The selection with the panel first, and what a record says of it.

        Raises
        ------
        ConstraintError
            When there is no such panel.
        """
        ranked = [str(gene) for gene in selection.ranking]
        known = set(ranked)
        rest = rank_by_score(task, gene_variances(task.X)).ranking
        whole = [*ranked, *(gene for gene in rest if gene not in known)]
        wanted = self.wanted
        rules = Rules(wanted.include, wanted.markers, self.found.marks, wanted.costs, wanted.budget)
        if wanted.costs:
            rules = replace(rules, costs={gene: wanted.costs[gene] for gene in whole})
        done = complete(whole, task.k, rules)
        panel = set(done.panel)
        ranking = [*done.panel, *(gene for gene in whole if gene not in panel)]
        changed = selection
        if ranking[: len(ranked)] != ranked:
            scores = None
            if selection.scores is not None:
                # Genes that were not ranked have no score: the ranking speaks for itself then.
                of = dict(zip(ranked, np.asarray(selection.scores, dtype=float), strict=True))
                scores = [of[gene] for gene in ranking] if len(of) == len(ranking) else None
            changed = replace(selection, ranking=ranking, scores=scores)
        if done.moved_out:
            changed = replace(changed, predictor=None)
        return changed, self._told(done.panel, done.moved_in, done.moved_out)

    def _told(self, panel: Any, moved_in: Any, moved_out: Any) -> dict[str, Any]:
        """What the record says: candidates, what moved and why, cost and markers of the panel."""
        told: dict[str, Any] = {
            "candidates": int(self.found.allowed.sum()),
            "left_out": dict(self.found.left_out),
            "moved_in": dict(moved_in),
            "moved_out": list(moved_out),
        }
        if self.wanted.budget is not None:
            told["cost"] = float(sum(self.wanted.costs[gene] for gene in panel))
        if self.found.marks:
            told["markers"] = {
                name: sorted(genes & set(panel), key=list(panel).index)
                for name, genes in self.found.marks.items()
            }
        return told


_VALUES: tuple[Needs, ...] = ("lognorm", "counts", "binary")
"""Representations in which 0 is a gene that is not seen, the best for comparing cells first."""


def constrain(cells: AnnData, wanted: Constraints, method: Method, k: int) -> Constrained:
    """Leave training cells with the genes that a method may choose among.

    Parameters
    ----------
    cells
        Training cells, with the fold's genes.
    wanted
        The constraints.
    method, k
        What is to choose, and how many genes.

    Raises
    ------
    NotApplicable
        For a method whose result is no panel of k genes.
    ConstraintError
        When too few genes are left.
    """
    if method.expression or method.sizes_itself or not method.cut:
        raise NotApplicable("makes no panel of a size that is asked for: constraints say nothing")
    codes, classes = _classes(cells, wanted)
    there = {cells.uns["x"], *cells.layers}
    counts = expression(cells, "counts") if wanted.by_mean and "counts" in there else None
    # Scaled values have no zero; what was scaled lies beside them.
    values = expression(cells, next((needs for needs in _VALUES if needs in there), "prepared"))
    found = candidates(wanted, list(cells.var_names), values, codes, classes, counts)
    left = int(found.allowed.sum())
    if left < k:
        why = ", ".join(f"{name}: {count}" for name, count in found.left_out.items())
        raise ConstraintError(
            f"{left} of {cells.n_vars} genes are candidates, {k - left} fewer than k = {k}; left "
            f"out by {why or 'nothing'}"
        )
    kept = cells if found.allowed.all() else cells[:, found.allowed].copy()
    return Constrained(kept, wanted, found)


def _classes(cells: AnnData, wanted: Constraints) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Codes and names of the classes that count."""
    tasks = facts(cells)["tasks"]
    named = [name for name, task in tasks.items() if task["kind"] == "classification"]
    name = wanted.task if wanted.task is not None else next(iter(named), None)
    if name is None:
        return None, ()
    if name not in named:
        raise ConstraintError(f"constraints name the task {name}, which has no classes here")
    classes = tuple(tasks[name]["classes"])
    return target(cells, Labels(name, "classification", classes)).values, classes
