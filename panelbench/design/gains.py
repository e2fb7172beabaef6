"""What each further gene adds: the pairs of classes that it is the first to tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.design.cells import Profile

APART = 0.8
"""AUROC from which a single gene is said to tell two classes apart."""


@dataclass(frozen=True)
class Gain:
    """What a gene adds to those before it.

    Attributes
    ----------
    gene
        Its name.
    first
        Pairs of classes that it is the first to tell apart.
    together
        Share of all pairs that one gene up to here tells apart.
    most
        The pair whose best AUROC it raises most, and from where to where; None if it raises none.
    """

    gene: str
    first: tuple[tuple[str, str], ...]
    together: float
    most: tuple[tuple[str, str], float, float] | None


def gains(profile: Profile, panel: Sequence[str]) -> list[Gain]:
    """What each gene of a panel adds, in the panel's order, by AUROC over pairs of classes."""
    columns = profile.columns(panel)
    pairs = list(itertools.combinations(sorted(profile.sample), 2))
    names = [(profile.classes[a], profile.classes[b]) for a, b in pairs]
    scores = np.array([profile.telling(a, b, columns) for a, b in pairs]).reshape(-1, len(columns))
    best = np.full(len(pairs), 0.5)
    found = []
    for number, gene in enumerate(panel):
        now = np.maximum(best, scores[:, number])
        new = np.flatnonzero((now > APART) & (best <= APART))
        new = new[np.argsort(-now[new], kind="stable")]
        raised = now - best
        top = int(raised.argmax()) if len(pairs) else -1
        most = None
        if top >= 0 and raised[top] > 0.005:
            most = (names[top], float(best[top]), float(now[top]))
        best = now
        share = float((best > APART).mean()) if len(pairs) else 1.0
        found.append(Gain(gene, tuple(names[i] for i in new), share, most))
    return found
