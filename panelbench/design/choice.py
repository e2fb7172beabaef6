"""Which selector, and how many genes: the rule, apart from where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from panelbench.errors import PanelbenchError

RULE = (
    "Selectors are compared by the macro F1 of a random forest on the cells of the part that was "
    "held away, part by part. Those whose mean falls short of the best one's by no more than one "
    "standard error of the difference are taken for as good. Of these the winner is the one whose "
    "panels agree most between the parts (Nogueira's index, by tenths); then the one with the "
    "higher score."
)
"""The rule, for people."""


@dataclass(frozen=True)
class Candidate:
    """A selector and how it did.

    Attributes
    ----------
    variant, label
        Unique name, with parameters; name for people.
    scores
        By panel size, the held-out score of each part; NaN where there is none.
    stability
        How much its panels agree between parts, mean over sizes; NaN where unknown.
    seconds
        Of one selection, mean.
    problem
        Why parts have no score.
    competes
        False for a control.
    """

    variant: str
    label: str
    scores: Mapping[int, np.ndarray]
    stability: float = float("nan")
    seconds: float = float("nan")
    problem: str = ""
    competes: bool = True

    @property
    def by_part(self) -> np.ndarray:
        """Score of each part, mean over sizes."""
        return np.asarray(np.mean(list(self.scores.values()), axis=0))

    @property
    def complete(self) -> bool:
        """Whether every part has a score at every size."""
        return bool(self.scores) and bool(np.isfinite(self.by_part).all())

    @property
    def mean(self) -> float:
        """Mean score over parts and sizes."""
        return float(self.by_part.mean()) if self.scores else float("nan")


@dataclass(frozen=True)
class Standing:
    """A candidate's place: what it lacks to the best, and whether that is within the noise."""

    candidate: Candidate
    behind: float
    error: float
    as_good: bool


@dataclass(frozen=True)
class Choice:
    """All candidates, the winner first, then those as good, then the others by score."""

    standings: tuple[Standing, ...]

    @property
    def winner(self) -> Candidate:
        """The selector that is taken."""
        return self.standings[0].candidate


def difference(best: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean of the differences part by part, and its standard error (0 for a single part)."""
    gap = best - other
    n = len(gap)
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0


def choose(candidates: Sequence[Candidate]) -> Choice:
    """Take a selector by the rule (`RULE`).

    Raises
    ------
    PanelbenchError
        When none has a score everywhere; with the reasons.
    """
    able = [item for item in candidates if item.competes and item.complete]
    if not able:
        reasons = "; ".join(f"{item.label}: {item.problem}" for item in candidates if item.problem)
        raise PanelbenchError(f"no selector has a score on all parts of the cells: {reasons}")
    best = max(able, key=lambda item: item.mean)
    standings = []
    for item in candidates:
        behind, error = float("nan"), float("nan")
        if item.complete:
            behind, error = difference(best.by_part, item.by_part)
        standings.append(Standing(item, behind, error, item in able and behind <= error))

    def place(standing: Standing) -> tuple[float, ...]:
        item = standing.candidate
        steady = -round(float(np.nan_to_num(item.stability)), 1) if standing.as_good else 0.0
        return (not item.competes, not item.complete, not standing.as_good, steady, -item.mean)

    return Choice(tuple(sorted(standings, key=place)))


def enough(curve: Mapping[int, np.ndarray]) -> int:
    """The elbow: the smallest size whose score is within one standard error of the best size's.

    Parameters
    ----------
    curve
        By size, the score of each part.
    """
    best = max(curve, key=lambda size: (curve[size].mean(), -size))
    for size in sorted(curve):
        behind, error = difference(curve[best], curve[size])
        if behind <= error:
            return size
    return best
