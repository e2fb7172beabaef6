"""Metrics of the panel itself: stability over seeds, redundancy, known markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from panelbench.method import Matrix


def jaccard(panels: Sequence[Iterable[str]]) -> float:
    """Mean Jaccard index over all pairs of panels; NaN for fewer than two."""
    sets = [set(panel) for panel in panels]
    pairs = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(sets, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


class Stability(NamedTuple):
    """A stability estimate with its confidence interval; NaN where undefined."""

    value: float
    low: float
    high: float


def stability(panels: Sequence[Iterable[str]], n_genes: int, confidence: float = 0.95) -> Stability:
    """Stability of a selection over repetitions, corrected for chance.

    Nogueira, Sechidis & Brown 2018, "On the stability of feature selection algorithms": 1 when
    all panels are the same, 0 in expectation when genes are drawn at random, for any panel
    sizes.

    Parameters
    ----------
    panels
        One panel per repetition (at least two).
    n_genes
        Number of candidate genes.
    confidence
        Level of the interval, which is asymptotic in the number of repetitions: with three
        seeds take it as a rough guide. Its ends are not clipped.

    Returns
    -------
    NaN for fewer than two panels, or when the panels hold no gene or all genes.
    """
    from scipy.special import ndtri  # `scipy.stats` takes longer to import than a report to make

    sets = [set(panel) for panel in panels]
    runs = len(sets)
    names = sorted(set().union(*sets)) if sets else []
    if len(names) > n_genes:
        raise ValueError(f"the panels hold {len(names)} genes, more than the {n_genes} candidates")
    sizes = np.array([len(s) for s in sets], dtype=np.float64)
    mean_share = sizes.mean() / n_genes if runs and n_genes else 0.0
    chance = mean_share * (1 - mean_share)
    if runs < 2 or chance == 0:
        return Stability(*[float("nan")] * 3)
    chosen = np.array([[name in s for name in names] for s in sets], dtype=np.float64)
    share = chosen.mean(axis=0)
    # Genes that no panel holds have variance 0 and need no column.
    variance = runs / (runs - 1) * share * (1 - share)
    value = 1 - variance.sum() / n_genes / chance
    fractions = sizes / n_genes
    per_run = (
        chosen @ share / n_genes
        - fractions * mean_share
        + value / 2 * (2 * mean_share * fractions - fractions - mean_share + 1)
    ) / chance
    error = 2 / runs * np.sqrt(((per_run - per_run.mean()) ** 2).sum())
    half = float(ndtri(0.5 + confidence / 2) * error)
    return Stability(float(value), float(value) - half, float(value) + half)


def redundancy(X: Matrix) -> float:
    """Mean absolute Pearson correlation over all pairs of panel genes.

    Parameters
    ----------
    X
        Cells x panel genes, array or CSR. A constant gene correlates with none (0).

    Returns
    -------
    A value in [0, 1]; NaN for fewer than two genes.
    """
    absolute = _correlations(X)
    n = len(absolute)
    if n < 2:
        return float("nan")
    return float(min((absolute.sum() - np.trace(absolute)) / (n * (n - 1)), 1.0))


def largest_correlation(X: Matrix) -> float:
    """Largest absolute Pearson correlation of two panel genes; as `redundancy` otherwise."""
    absolute = _correlations(X)
    if len(absolute) < 2:
        return float("nan")
    return float(min(absolute[~np.eye(len(absolute), dtype=bool)].max(), 1.0))


def _correlations(X: Matrix) -> np.ndarray:
    """Absolute correlations of all pairs of genes; 0 for a constant gene."""
    dense = np.asarray(X if isinstance(X, np.ndarray) else X.toarray(), dtype=np.float64)
    varies = np.ptp(dense, axis=0) > 0
    centred = (dense - dense.mean(axis=0)) * varies
    scale = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(scale > 0, scale, 1.0)
    return np.asarray(np.abs(unit.T @ unit))


def marker_recovery(
    panel: Iterable[str], markers: Mapping[str, Iterable[str]], genes: Iterable[str] | None = None
) -> dict[str, float]:
    """How much of a known marker list a panel holds.

    Parameters
    ----------
    panel
        Gene names.
    markers
        Marker genes of each cell type.
    genes
        Candidate genes; markers that are not among them cannot be found and do not count.

    Returns
    -------
    ``marker_recall`` (share of the markers in the panel), ``marker_precision`` (share of the
    panel that is a marker) and ``marker_classes`` (share of cell types with at least one marker
    in the panel); empty when no marker is a candidate or the panel is empty.
    """
    chosen = set(panel)
    candidates: set[Any] | None = None if genes is None else set(genes)
    known = {
        name: set(items) if candidates is None else set(items) & candidates
        for name, items in markers.items()
    }
    known = {name: items for name, items in known.items() if items}
    every = set().union(*known.values()) if known else set()
    if not every or not chosen:
        return {}
    found = every & chosen
    return {
        "marker_recall": len(found) / len(every),
        "marker_precision": len(found) / len(chosen),
        "marker_classes": sum(bool(items & chosen) for items in known.values()) / len(known),
    }
