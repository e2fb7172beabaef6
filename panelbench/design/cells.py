"""What all cells say of single genes: expression by class, markers, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from panelbench.design.perform import Found
from panelbench.method import Matrix, Needs
from panelbench.ranking import auroc, class_means, gene_variances
from panelbench.registry import discover
from panelbench.running.settings import Settings
from panelbench.stages.constrained import constrain
from panelbench.stages.prepared import load
from panelbench.stages.selection import labels_of
from panelbench.stages.task import expression, target
from panelbench.stages.toolbox import Toolbox

if TYPE_CHECKING:
    from anndata import AnnData

PER_CLASS = 500
"""Cells of a class that pairs of classes are compared by, at most."""
_ZERO_IS_UNSEEN: tuple[Needs, ...] = ("lognorm", "counts", "binary")


@dataclass(frozen=True)
class Profile:
    """All cells with a label, and what is known of each gene in them.

    Attributes
    ----------
    genes
        Names, str array.
    values
        Expression, cells x genes, array or CSR; log-normalised where the data have it.
    counts
        Counts of the same form; None where there are none.
    codes, classes
        Class of each cell, names of the classes.
    allowed
        Genes that constraints let on a panel, bool.
    """

    genes: np.ndarray
    values: Matrix
    counts: Matrix | None
    codes: np.ndarray
    classes: tuple[str, ...]
    allowed: np.ndarray

    @classmethod
    def of(cls, found: Found, settings: Settings) -> Profile:
        """Read the cells that the final panel was chosen from."""
        run = found.final
        tools = Toolbox(run.dataset.spec, [load(found.prepared)], settings.cache)
        cells, _ = tools.training_cells(run.question.fold, run.seed)
        (task,) = [item for item in run.dataset.tasks if item.name == found.asked.task]
        (labels,) = labels_of(cells, [task])
        codes = target(cells, labels).values
        allowed = _allowed(cells, found, settings)
        seen = np.flatnonzero(codes >= 0)
        there = {cells.uns["x"], *cells.layers}
        needs: Needs = next((name for name in _ZERO_IS_UNSEEN if name in there), "prepared")
        return cls(
            genes=np.asarray(cells.var_names, dtype=str),
            values=expression(cells, needs)[seen],
            counts=expression(cells, "counts")[seen] if "counts" in there else None,
            codes=codes[seen],
            classes=labels.classes,
            allowed=allowed,
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Column of each gene."""
        return {gene: column for column, gene in enumerate(self.genes.tolist())}

    def columns(self, genes: Sequence[str]) -> np.ndarray:
        """Columns of some genes."""
        return np.array([self.place[gene] for gene in genes], dtype=np.intp)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Cells of each class."""
        return np.bincount(self.codes, minlength=len(self.classes))

    @property
    def amounts(self) -> Matrix:
        """What a mean is taken of: counts, or else the values."""
        return self.values if self.counts is None else self.counts

    @cached_property
    def means(self) -> np.ndarray:
        """Mean count (or value) of each gene in each class, classes x genes."""
        return class_means(self.amounts, self.codes, len(self.classes))

    @cached_property
    def levels(self) -> np.ndarray:
        """Mean value of each gene in each class, classes x genes."""
        return class_means(self.values, self.codes, len(self.classes))

    @cached_property
    def detection(self) -> np.ndarray:
        """Share of the cells of each class in which each gene is seen, classes x genes."""
        return class_means((self.values > 0).astype(np.float64), self.codes, len(self.classes))

    def overall(self, by_class: np.ndarray) -> np.ndarray:
        """Mean over all cells of what is known by class."""
        return np.asarray(self.sizes @ by_class / max(1, self.sizes.sum()))

    def marking(self, genes: Sequence[str]) -> np.ndarray:
        """AUROC of each class against the rest by each of some genes, classes x genes."""
        return auroc(self.values, self.codes, len(self.classes), self.columns(genes))

    @cached_property
    def sample(self) -> dict[int, np.ndarray]:
        """Rows of each class that has cells, at most `PER_CLASS` of one."""
        rng = np.random.default_rng(0)
        found = {}
        for code in np.flatnonzero(self.sizes).tolist():
            rows = np.flatnonzero(self.codes == code)
            if len(rows) > PER_CLASS:
                rows = np.sort(rng.choice(rows, PER_CLASS, replace=False))
            found[code] = rows
        return found

    def telling(self, a: int, b: int, columns: np.ndarray) -> np.ndarray:
        """AUROC of class `a` against class `b` by each of some genes, in either direction."""
        rows = np.concatenate([self.sample[a], self.sample[b]])
        codes = np.repeat([0, 1], [len(self.sample[a]), len(self.sample[b])])
        found = auroc(self.values[rows], codes, 2, columns)[0]
        return np.asarray(np.maximum(found, 1 - found))

    def correlations(self, genes: Sequence[str]) -> np.ndarray:
        """Pearson correlation of some genes with all, float64, genes x all genes; 0 if constant."""
        n, chosen = self.values.shape[0], self.columns(genes)
        products = self.values[:, chosen].astype(np.float64).T @ self.values
        products = products if isinstance(products, np.ndarray) else products.toarray()
        mean = np.asarray(self.values.mean(axis=0, dtype=np.float64)).ravel()
        spread = np.sqrt(gene_variances(self.values))
        covariance = products / n - np.outer(mean[chosen], mean)
        scale = np.outer(spread[chosen], spread)
        return np.asarray(np.where(scale > 0, covariance / np.where(scale > 0, scale, 1), 0.0))


def _allowed(cells: AnnData, found: Found, settings: Settings) -> np.ndarray:
    """Genes that constraints let on a panel."""
    wanted = found.final.question.constraints
    if wanted is None:
        return np.ones(cells.n_vars, dtype=bool)
    method = discover(settings.methods_dirs).get(found.final.method)
    return constrain(cells, wanted, method, found.k).found.allowed
