"""Pairs of classes that a panel confuses, and the genes off the panel that tell them apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.design.cells import Profile

CONFUSED = 0.05
"""Share of the cells of a pair that are taken for the other class, from which it is listed."""
MOST = 15
"""Pairs that are listed, at most."""
ALPHA = 0.05


@dataclass(frozen=True)
class Pair:
    """Two classes that are taken for each other.

    Attributes
    ----------
    a, b
        Names, the class with more cells that are taken for the other first.
    share
        Of the cells of both that were predicted as either, those that were predicted wrong.
    wrong
        Cells of `a` taken for `b`, and the other way round.
    on_panel
        The panel's best gene for the pair with its AUROC.
    off_panel
        Genes that would tell them apart better, best first, with their AUROC.
    """

    a: str
    b: str
    share: float
    wrong: tuple[int, int]
    on_panel: tuple[str, float]
    off_panel: tuple[tuple[str, float], ...]


def confused(total: np.ndarray, profile: Profile, panel: Sequence[str]) -> list[Pair]:
    """The pairs that the panel confuses most.

    Parameters
    ----------
    total
        Cells by true and predicted class, each held away once.
    profile
        All cells.
    panel
        Genes.
    """
    found = []
    for a, b in itertools.combinations(range(len(profile.classes)), 2):
        wrong = int(total[a, b] + total[b, a])
        share = wrong / max(1, wrong + int(total[a, a] + total[b, b]))
        if wrong > 1 and share > CONFUSED:
            found.append((share, *((a, b) if total[a, b] >= total[b, a] else (b, a))))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [_pair(*item, total, profile, panel) for item in found[:MOST]]


def _pair(
    share: float, a: int, b: int, total: np.ndarray, profile: Profile, panel: Sequence[str]
) -> Pair:
    on = profile.columns(panel)
    here = profile.telling(a, b, on)
    best = int(here.argmax())
    off = _off_panel(profile, a, b, on, float(here[best]))
    return Pair(
        profile.classes[a],
        profile.classes[b],
        share,
        (int(total[a, b]), int(total[b, a])),
        (panel[best], float(here[best])),
        off,
    )


def _off_panel(
    profile: Profile, a: int, b: int, on: np.ndarray, least: float, most: int = 3
) -> tuple[tuple[str, float], ...]:
    """Allowed genes that tell two classes apart better than `least`, beyond what chance gives.

    Among thousands of genes some tell any few cells apart: an AUROC counts from where a rank-sum
    test corrected for the number of genes (Bonferroni, normal approximation) does. The genes are
    seen in more than a tenth of the cells of one of the two.
    """
    from scipy.stats import norm

    seen = profile.detection[[a, b]].max(axis=0) > 0.1
    free = profile.allowed & seen
    free[on] = False
    columns = np.flatnonzero(free)
    if not columns.size:
        return ()
    n, m = len(profile.sample[a]), len(profile.sample[b])
    chance = norm.isf(ALPHA / 2 / len(columns)) * np.sqrt((n + m + 1) / (12 * n * m))
    scores = profile.telling(a, b, columns)
    order = np.argsort(-scores, kind="stable")[:most]
    return tuple(
        (str(profile.genes[columns[i]]), float(scores[i]))
        for i in order
        if scores[i] > max(least, 0.5 + chance)
    )
