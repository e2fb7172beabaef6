"""The scores of a suite over seeds, in the suite's order: what tables and figures draw from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from panelbench.report.results import EvaluatorRef, Results, ScoreLine, Size
from panelbench.suite.runs import Row
from panelbench.suite.specs import CLEAN, NoiseLevel

if TYPE_CHECKING:
    from panelbench.report.panels import Group

STATUS = {
    "missing": "not run yet",
    "oom": "out of memory",
    "timeout": "timed out",
    "lost": "lost without a record",
}
"""Statuses in words, where they are not words already."""


@dataclass(frozen=True)
class Place:
    """Where a score stands: a data set, a task, a panel size and a level of label noise."""

    dataset: str
    task: str
    k: Size
    noise: NoiseLevel = CLEAN

    @property
    def uncut(self) -> Place:
        """The same place of a panel that is not cut."""
        return replace(self, k=None)


@dataclass(frozen=True)
class Entrant:
    """Who is scored: a method with its parameters, and the evaluator of its panels."""

    row: Row
    evaluator: EvaluatorRef


@dataclass(frozen=True)
class Problem:
    """Seeds that have no score, and why."""

    status: str
    reason: str
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        text = STATUS.get(self.status, self.status)
        reason = brief(self.reason)
        if not reason or reason.lower() == text:
            return text
        return reason if reason.startswith(text) else f"{text}: {reason}"


@dataclass(frozen=True)
class Score:
    """All seeds of one entrant at one place.

    Attributes
    ----------
    kind
        ``classification``, ``regression``, ``expression`` (reconstructed) or ``view``.
    seeds, metrics
        The seeds that have a score, ascending, and their metrics.
    planned
        Number of seeds asked for.
    problems
        Why the others have none.
    lines
        What the metrics of each class are taken from, for each of `seeds`.
    """

    kind: str
    seeds: tuple[int, ...]
    metrics: tuple[Mapping[str, float], ...]
    planned: int
    problems: tuple[Problem, ...]
    lines: tuple[ScoreLine, ...] = ()

    @cached_property
    def by_class(self) -> tuple[Mapping[str, Mapping[str, float]], ...]:
        """The same metrics of each class, for each of `seeds`; empty where none are known."""
        return tuple(line.by_class for line in self.lines)

    def of_class(self, name: str) -> Score:
        """Scores of the cells of one class; a seed whose test cells hold none has no metrics."""
        return replace(
            self, metrics=tuple(dict(found.get(name, {})) for found in self.by_class), lines=()
        )

    def values(self, metric: str) -> np.ndarray:
        """float64: the metric of each seed that has it."""
        if metric not in self._values:
            found = [values[metric] for values in self.metrics if metric in values]
            self._values[metric] = np.array(list(filter(isfinite, found)), dtype=np.float64)
        return self._values[metric]

    @cached_property
    def _values(self) -> dict[str, np.ndarray]:
        return {}

    def mean(self, metric: str) -> float:
        """Mean over seeds; NaN when no seed has the metric."""
        values = self.values(metric)
        return float(values.mean()) if len(values) else float("nan")

    def sd(self, metric: str) -> float:
        """Sample standard deviation over seeds (n - 1); NaN below two seeds."""
        values = self.values(metric)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def brief(text: str, limit: int = 160) -> str:
    """First line that says something, shortened."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return first if len(first) <= limit else first[: limit - 1].rstrip() + "…"


def ordered(found: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """What was found: first in the known order, the rest sorted."""
    items = set(found)
    return (*(name for name in known if name in items), *sorted(items - set(known)))


class Summary:
    """Scores of a suite by place and entrant.

    Parameters
    ----------
    results
        What was read from the records.

    Attributes
    ----------
    results
        The same, every text fit to be shown.
    scores
        Score by (place, entrant).
    datasets, tasks, ks, evaluators, levels
        What the scores hold, in the suite's order; `tasks` by data set, `ks` ascending, `levels`
        of label noise.
    metrics
        The shared metrics and those that evaluators declare, by id.
    """

    def __init__(self, results: Results) -> None:
        self.results = results = results.printable()
        grouped: dict[tuple[Place, Entrant], list[ScoreLine]] = {}
        for line in results.scores:
            grouped.setdefault(_whose(line), []).append(line)
        self.scores = {key: _score(group) for key, group in grouped.items()}
        suite = results.suite
        self.datasets = ordered(
            (line.dataset for line in results.scores), [entry.dataset for entry in suite.datasets]
        )
        self.tasks = {name: self._tasks_of(name) for name in self.datasets}
        self.ks = tuple(sorted({place.k for place, _ in self.scores if place.k is not None}))
        self.evaluators = self._evaluators()
        self.metrics = results.evaluators.metrics
        self.levels = suite.noise_levels

    def _tasks_of(self, dataset: str) -> tuple[str, ...]:
        found = {place.task for place, _ in self.scores if place.dataset == dataset}
        entry = next((e for e in self.results.suite.datasets if e.dataset == dataset), None)
        catalogue = list(self.results.datasets.get(dataset, {}).get("tasks", {}))
        return ordered(found, (entry.tasks if entry and entry.tasks else None) or catalogue)

    def _evaluators(self) -> tuple[EvaluatorRef, ...]:
        found = {entrant.evaluator.variant: entrant.evaluator for _, entrant in self.scores}
        every, suite = self.results.evaluators, self.results.suite
        known = [EvaluatorRef.of(e.evaluator, e.params, every) for e in suite.evaluators]
        return tuple(found[name] for name in ordered(found, [ref.variant for ref in known]))

    @cached_property
    def entrants(self) -> tuple[Entrant, ...]:
        """All entrants, in the order of the suite's methods, then of its evaluators."""
        found = {entrant for _, entrant in self.scores}
        every = (Entrant(row, e) for row in self.results.rows for e in self.evaluators)
        return tuple(entrant for entrant in every if entrant in found)

    def kinds(self) -> set[str]:
        """Kinds of tasks that have scores planned."""
        return {score.kind for score in self.scores.values()}

    def get(self, place: Place, entrant: Entrant) -> Score | None:
        """Score at a place, or that of the uncut panel; None when nothing was planned there."""
        return self.scores.get((place, entrant)) or self.scores.get((place.uncut, entrant))

    def runs(self, place: Place, entrant: Entrant) -> list[ScoreLine]:
        """Lines of what ran to the end at a place, by seed."""
        return self._runs.get((place, entrant)) or self._runs.get((place.uncut, entrant), [])

    @cached_property
    def _runs(self) -> dict[tuple[Place, Entrant], list[ScoreLine]]:
        found: dict[tuple[Place, Entrant], list[ScoreLine]] = {}
        for line in sorted(self.results.scores, key=lambda line: line.seed):
            if line.status == "ok":
                found.setdefault(_whose(line), []).append(line)
        return found

    @cached_property
    def panels(self) -> dict[Group, dict[int, tuple[str, ...]]]:
        """Panels by seed, as `panels.panels` finds them."""
        from panelbench.report.panels import panels

        return panels(self.results)

    def competes(self, entrant: Entrant) -> bool:
        """Whether a row competes for the best; controls that keep all genes do not."""
        return entrant.row.declared.cut

    def leaky(self, entrant: Entrant) -> bool:
        """Whether the row is a method's own predictor that reads more than the panel."""
        return entrant in self._beyond

    @cached_property
    def _beyond(self) -> set[Entrant]:
        return {Entrant(x.row, x.evaluator) for x in self.results.scores if x.beyond}

    def kinds_of(self, dataset: str, task: str) -> set[str]:
        """Kinds of scores that a task of a data set has."""
        return self._kinds.get((dataset, task), set())

    @cached_property
    def _kinds(self) -> dict[tuple[str, str], set[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for (place, _), score in self.scores.items():
            found.setdefault((place.dataset, place.task), set()).add(score.kind)
        return found

    def kind(self, entrant: Entrant) -> set[str]:
        """Kinds of an entrant's scores."""
        return self._kinds_of_entrants.get(entrant, set())

    @cached_property
    def _kinds_of_entrants(self) -> dict[Entrant, set[str]]:
        found: dict[Entrant, set[str]] = {}
        for (_, entrant), score in self.scores.items():
            found.setdefault(entrant, set()).add(score.kind)
        return found

    def label(self, entrant: Entrant, among: Sequence[Entrant]) -> str:
        """Name of a row among other rows: the evaluator is named where it tells rows apart.

        A method's own predictor bears the method's name, and its mode if it has several: "YOTO",
        "PERSIST (hard)", and "YOTO, RF" when a forest is trained on its panel. With one downstream
        evaluator in the table, methods that have no other row do not repeat it.
        """
        label = entrant.row.label
        if entrant.evaluator.own:
            return f"{label} ({entrant.evaluator.mode})" if entrant.evaluator.mode else label
        downstream = {e.evaluator for e in among if not e.evaluator.own}
        mine = {e.evaluator for e in among if e.row == entrant.row}
        if len(downstream) == 1 and len(mine) == 1:
            return label
        return f"{label}, {entrant.evaluator.label}"


def _whose(line: ScoreLine) -> tuple[Place, Entrant]:
    """Where a line of scores stands, and who is scored there."""
    place = Place(line.dataset, line.task, line.k, line.noise)
    return place, Entrant(line.row, line.evaluator)


def _score(lines: Sequence[ScoreLine]) -> Score:
    lines = sorted(lines, key=lambda line: line.seed)
    done = [line for line in lines if line.status == "ok"]
    reasons: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        if line.status != "ok":
            reasons.setdefault((line.status, line.reason), []).append(line.seed)
    return Score(
        kind=lines[0].kind,
        seeds=tuple(line.seed for line in done),
        metrics=tuple(line.metrics for line in done),
        planned=len(lines),
        problems=tuple(Problem(*key, tuple(seeds)) for key, seeds in reasons.items()),
        lines=tuple(done),
    )
