"""Genes that keep to what constraints say of single genes: those a method may choose among."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.errors import ConstraintError, near_matches
from panelbench.method import Matrix
from panelbench.ranking import auroc, class_means
from panelbench.stages.constraints import GROUPS, Constraints


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
