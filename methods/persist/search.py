"""The search for the penalty that leaves about the wanted number of gates open."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BISECTIONS = 4
"""Trials after those of the published search, when none of them came near the target."""


@dataclass(frozen=True)
class Trial:
    """One training of the gates: the penalty, and how probably each gate is open after it."""

    penalty: float
    probabilities: np.ndarray

    @property
    def n_open(self) -> int:
        """Gates more likely open than closed."""
        return int((self.probabilities > 0.5).sum())


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes
    ----------
    genes
        int64, ascending: the genes that stay candidates.
    trials
        All trials in their order.
    fallback
        ``"none"``; ``"bisection"`` when bisection came near the target; or ``"nearest"`` when
        nothing did and the nearest trial was taken, cut by probability where it left too many.
    """

    genes: np.ndarray
    trials: list[Trial]
    fallback: str


def search(
    train: Callable[[float, bool], np.ndarray],
    n_genes: int,
    target: int,
    *,
    at_least: int,
    tol: float,
    max_trials: int,
    start: float,
) -> Found:
    """Find a penalty that leaves `target` gates open, give or take a share of `tol`.

    Parameters
    ----------
    train
        Given a penalty and whether to start afresh, trains the gates (on from where they are,
        unless afresh) and returns the probability of each to be open. A closed gate hardly
        opens again, so a trial that closed too many is followed by a fresh one.
    n_genes
        Gates.
    target, tol
        What is wanted, and by how much it may be missed.
    at_least
        Fewest genes that can serve.
    max_trials
        Trials of the published search (Covert et al. 2023); `BISECTIONS` more follow if it fails.
    start
        First penalty.
    """
    trials: list[Trial] = []
    penalty, fresh = start, True
    while len(trials) < max_trials + BISECTIONS:
        trial = Trial(penalty, train(penalty, fresh))
        if abs(trial.n_open - target) <= tol * target:
            fallback = "none" if len(trials) < max_trials else "bisection"
            genes = np.flatnonzero(trial.probabilities > 0.5)
            if len(genes) >= at_least:
                return Found(genes, [*trials, trial], fallback)
        fresh = trial.n_open < target * (1 - tol)
        seen = [(0.0, n_genes), *((past.penalty, past.n_open) for past in trials)]
        trials.append(trial)
        if len(trials) < max_trials:
            penalty = next_penalty(seen, penalty, trial.n_open, target)
        else:
            penalty = between([*seen, (penalty, trial.n_open)], target)
    return Found(_nearest(trials, target, at_least, tol), trials, "nearest")


def next_penalty(
    seen: Sequence[tuple[float, int]], penalty: float, n_open: int, target: int
) -> float:
    """Secant step in 1 / (1 + open gates), of at most a factor of ten.

    The slope is the mean over past trials weighted by their closeness, in the form in which a
    penalty that comes back divides nothing by zero.

    Parameters
    ----------
    seen
        Penalties and open gates of the trials before, with (0, all genes).
    penalty, n_open
        The last trial.
    target
        Open gates wanted.
    """
    here, wanted = 1 / (1 + n_open), 1 / (1 + target)
    gaps = [past - penalty for past, _ in seen]
    rises = [math.copysign(1 / (1 + n) - here, gap * (1 / (1 + n) - here)) if gap else 0.0
             for gap, (_, n) in zip(gaps, seen, strict=True)]  # fmt: skip
    slope = max(sum(rises) / sum(map(abs, gaps)), 1e-6) if any(gaps) else 1e-6
    return min(max(penalty + (wanted - here) / slope, 0.1 * penalty), 10 * penalty)


def between(seen: Sequence[tuple[float, int]], target: int) -> float:
    """Geometric middle of the penalties next to the target; tenfold steps while one is missing."""
    few = [penalty for penalty, n in seen if n <= target]
    if not few:
        return 10 * max(penalty for penalty, _ in seen)
    high = min(few)
    low = max(penalty for penalty, n in seen if n > target and penalty < high)
    return math.sqrt(low * high) if low else high / 10


def _nearest(trials: list[Trial], target: int, at_least: int, tol: float) -> np.ndarray:
    """Genes of the trial nearest to the target that has enough, by probability."""
    usable = [trial for trial in trials if trial.n_open >= at_least]
    if usable:
        trial = min(usable, key=lambda trial: abs(math.log(trial.n_open / target)))
    else:
        trial = max(trials, key=lambda trial: trial.n_open)
    size = min(max(trial.n_open, at_least), max(at_least, math.floor(target * (1 + tol))))
    return np.sort(np.argsort(-trial.probabilities, kind="stable")[:size])
