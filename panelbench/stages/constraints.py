"""What a panel must keep to: genes that are on it or off it, their expression, cost, and classes.

Which genes a method may choose among is decided before it sees any (`Candidates`); what a ranking
alone cannot promise is mended afterwards (`completion`). Both look at training cells only.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from panelbench.errors import ConstraintError, near_matches
from panelbench.method import Matrix
from panelbench.schema import Model
from panelbench.scoring.markers import auroc, class_means

GROUPS: dict[str, tuple[str, ...]] = {
    "mitochondrial": ("MT-*", "mt-*"),
    "ribosomal": ("RPL[0-9]*", "RPS[0-9]*", "RPLP[0-9]*", "RPSA", "Rpl[0-9]*", "Rps[0-9]*",
                  "Rplp[0-9]*", "Rpsa"),
    "haemoglobin": ("HBA[12]", "HB[BDEGMQZ]", "HBG[12]", "HBE1", "HBQ1", "Hba-*", "Hbb-*",
                    "Hbq1?"),
}  # fmt: skip
"""Genes of human and mouse that are rarely wanted, by symbol."""


def _ordered(bounds: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = bounds
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lower bound {low:g} is above the upper bound {high:g}")
    return bounds


Bounds: TypeAlias = Annotated[tuple[float | None, float | None], AfterValidator(_ordered)]
"""Smallest and largest value; None for no bound."""
_FREE: Bounds = (None, None)


class Constraints(Model):
    """What every panel of a suite keeps to, whatever the method.

    include, exclude
        Genes that are always on the panel, counted within k; genes, patterns (``RP[LS]*``) or
        names of `GROUPS` that never are.
    mean, class_mean
        Bounds on the mean count of a gene per training cell: over all cells, or within the class
        where it is highest (a gene that is too high there crowds the others out of the image).
    detection, class_detection
        The same for the share of cells in which the gene is seen at all.
    costs, budget
        Cost of each gene, and the most that the genes of a panel may cost together. A gene without
        a cost cannot be ordered, and is no candidate.
    markers
        Genes on the panel, at least, that mark each class: AUROC of the class against the rest
        above `marker_auroc`, seen in more than `marker_detection` of its cells.
    task
        The task whose classes count; the first of the data set with classes otherwise.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mean: Bounds = _FREE
    class_mean: Bounds = _FREE
    detection: Bounds = _FREE
    class_detection: Bounds = _FREE
    costs: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    budget: Annotated[float, Field(gt=0)] | None = None
    markers: Annotated[int, Field(ge=0)] = 0
    marker_auroc: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    marker_detection: Annotated[float, Field(ge=0, lt=1)] = 0.2
    task: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Constraints:
        if (self.budget is None) == bool(self.costs):
            raise ValueError("costs and budget belong together")
        if len(set(self.include)) < len(self.include):
            raise ValueError("include: every gene only once")
        return self

    @property
    def by_size(self) -> bool:
        """Whether a panel's genes depend on its size beyond being the first of a ranking."""
        return self.budget is not None or self.markers > 0

    @property
    def by_mean(self) -> bool:
        """Whether means count."""
        return self.mean != _FREE or self.class_mean != _FREE

    @property
    def by_class(self) -> bool:
        """Whether classes have a part in it."""
        return self.markers > 0 or self.class_mean != _FREE or self.class_detection != _FREE


@dataclass(frozen=True)
class Candidates:
    """Genes that a method may choose among.

    Attributes
    ----------
    allowed
        Bool of shape (n_genes,).
    left_out
        How many genes each constraint leaves out; one may be left out by several.
    marks
        Classes with the candidate genes that mark them; empty unless markers are asked for.
    """

    allowed: np.ndarray
    left_out: Mapping[str, int]
    marks: Mapping[str, frozenset[str]]


def candidates(
    wanted: Constraints,
    genes: Sequence[str],
    values: Matrix,
    codes: np.ndarray | None,
    classes: Sequence[str],
    counts: Matrix | None = None,
) -> Candidates:
    """Genes that keep to all constraints that are about single genes.

    Parameters
    ----------
    wanted
        The constraints.
    genes
        Names of the genes.
    values
        Expression of the training cells, cells x genes, array or CSR: 0 where a gene is not seen,
        comparable between cells (log-normalised, where there is such).
    codes, classes
        Class of each cell (-1 where unknown) and the classes' names; None where there are none.
    counts
        Counts of the same form, for bounds on means.

    Raises
    ------
    ConstraintError
        When a gene to include is unknown, excluded or without a cost, when classes or counts are
        needed and there are none, or when a class has too few markers.
    """
    names = np.asarray(genes, dtype=str)
    known = {name: column for column, name in enumerate(names.tolist())}
    for gene in wanted.include:
        if gene not in known:
            near = near_matches(gene, known)
            hint = f" (near: {', '.join(near)})" if near else ""
            raise ConstraintError(
                f"the gene {gene} is to be included and not among the {len(known):,} genes of this "
                f"split: not in the data, or left out by a step of the recipe, as hvg{hint}"
            )
    if wanted.by_class and codes is None:
        raise ConstraintError("markers and bounds within classes need a task with classes")
    if wanted.by_mean and counts is None:
        raise ConstraintError("bounds on a gene's mean need counts, which the data do not have")
    bad = {"exclude": _excluded(names, wanted.exclude)}
    bad |= _out_of_bounds(wanted, values, counts, codes, len(classes))
    if wanted.costs:
        bad["no cost"] = np.array([name not in wanted.costs for name in names.tolist()])
    for reason in ("exclude", "no cost"):
        wrong = [gene for gene in wanted.include if reason in bad and bad[reason][known[gene]]]
        if wrong:
            what = "excluded too" if reason == "exclude" else "without a cost"
            raise ConstraintError(f"genes to be included are {what}: {', '.join(wrong[:5])}")
    allowed = ~np.logical_or.reduce(list(bad.values()))
    # What is ordered in any case is not asked for its expression.
    allowed[[known[gene] for gene in wanted.include]] = True
    left_out = {reason: int(mask.sum()) for reason, mask in bad.items() if mask.any()}
    marks: dict[str, frozenset[str]] = {}
    if wanted.markers:
        assert codes is not None
        marks = _markers(wanted, names, values, codes, classes, allowed)
    return Candidates(allowed, left_out, marks)


def _excluded(names: np.ndarray, patterns: Sequence[str]) -> np.ndarray:
    found = np.zeros(len(names), dtype=bool)
    for pattern in patterns:
        for one in GROUPS.get(pattern, (pattern,)):
            found |= np.array([fnmatch.fnmatchcase(name, one) for name in names.tolist()])
    return found


def _out_of_bounds(
    wanted: Constraints,
    values: Matrix,
    counts: Matrix | None,
    codes: np.ndarray | None,
    n_classes: int,
) -> dict[str, np.ndarray]:
    """For each constraint with a bound, the genes that are beyond it."""
    found: dict[str, np.ndarray] = {}
    for name in ("mean", "class_mean", "detection", "class_detection"):
        low, high = getattr(wanted, name)
        if low is None and high is None:
            continue
        seen = counts if name.endswith("mean") else (values > 0)
        assert seen is not None
        if name.startswith("class"):
            assert codes is not None
            average = class_means(seen, codes, n_classes).max(axis=0)
        else:
            average = np.asarray(seen.mean(axis=0), dtype=np.float64).ravel()
        beyond = np.zeros(average.shape, dtype=bool)
        if low is not None:
            beyond |= average < low
        if high is not None:
            beyond |= average > high
        found[name] = beyond
    return found


def _markers(
    wanted: Constraints,
    names: np.ndarray,
    values: Matrix,
    codes: np.ndarray,
    classes: Sequence[str],
    allowed: np.ndarray,
) -> dict[str, frozenset[str]]:
    """Candidate genes that mark each class that has cells."""
    seen = class_means(values > 0, codes, len(classes)) > wanted.marker_detection
    columns = np.flatnonzero(allowed & seen.any(axis=0))
    scores = auroc(values, codes, len(classes), columns)
    marks: dict[str, frozenset[str]] = {}
    present = np.bincount(codes[codes >= 0], minlength=len(classes)) > 0
    for code in np.flatnonzero(present).tolist():
        good = (scores[code] > wanted.marker_auroc) & seen[code, columns]
        marks[str(classes[code])] = frozenset(names[columns[good]].tolist())
    few = {name: len(genes) for name, genes in marks.items() if len(genes) < wanted.markers}
    if few:
        listed = ", ".join(f"{name} has {count}" for name, count in few.items())
        raise ConstraintError(
            f"{wanted.markers} markers of each class are asked for, and among the candidates "
            f"{listed} (AUROC above {wanted.marker_auroc:g}, seen in more than "
            f"{wanted.marker_detection:.0%} of its cells; --marker-auroc asks for less)"
        )
    return marks
