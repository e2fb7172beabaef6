"""Which evaluators of a suite score which runs, and in which modes of a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from panelbench.data.specs import TaskSpec
from panelbench.errors import UnknownName
from panelbench.evaluator import Evaluator
from panelbench.method import Method
from panelbench.params import params_dict, validated, variant_name
from panelbench.registry import Broken, Evaluators
from panelbench.suite.runs import SelectRun
from panelbench.suite.specs import EvaluatorEntry, SuiteSpec


@dataclass(frozen=True)
class Scorer:
    """An evaluator of the suite with its parameters, and the runs that it is for."""

    evaluator: Evaluator
    source: str
    params: Any
    entry: EvaluatorEntry

    @cached_property
    def variant(self) -> str:
        """Name with the parameters that differ from the defaults."""
        return variant_name(self.evaluator.id, self.params)

    @cached_property
    def values(self) -> dict[str, Any]:
        """All parameters, JSON-ready."""
        return params_dict(self.params)

    def scores(self, run: SelectRun, task: TaskSpec, k: int | None) -> bool:
        """Whether the suite wants a panel scored in this way for a task, which may be none of
        those that the evaluator takes.
        """
        entry = self.entry
        return (
            task.kind in self.evaluator.takes
            and (entry.methods is None or run.method in entry.methods)
            and (entry.ks is None or k in entry.ks)
            and (entry.seeds is None or run.seed in entry.seeds)
        )

    def for_method(self, declared: Method | Broken) -> list[Scorer]:
        """How it scores a method: not at all, once, or in each mode of the method's predictor."""
        if not isinstance(declared, Method):
            return [] if self.evaluator.own else [self]
        if not self.evaluator.can_score(declared):
            return []
        if not has_modes(self.evaluator):
            return [self]
        if self.params.mode:
            return [self] if self.params.mode in declared.modes else []
        return [self, *(replace(self, params=replace(self.params, mode=mode))
                        for mode in declared.modes[1:])]  # fmt: skip


def has_modes(evaluator: Evaluator) -> bool:
    """Whether an evaluator scores each mode of a predictor."""
    return evaluator.own and "mode" in {item.name for item in fields(evaluator.params)}


def make_scorer(
    entry: EvaluatorEntry,
    suite: SuiteSpec,
    methods: Sequence[Method | Broken],
    evaluators: Evaluators,
) -> Scorer:
    """Check an entry of a suite.

    Parameters
    ----------
    entry
        The evaluator with its parameters.
    suite
        The suite, for its methods and panel sizes.
    methods
        What its methods declare, for the modes of their predictors.
    evaluators
        Evaluators by id.

    Raises
    ------
    ConfigError
        For an evaluator that is unknown or cannot be imported, and for an unknown parameter, mode,
        method or panel size.
    """
    evaluator = evaluators.get(entry.evaluator, f"suite {suite.name}")
    where = f"evaluator {entry.evaluator} in suite {suite.name}"
    params = validated(evaluator.params, entry.params, where)
    if has_modes(evaluator):
        modes = {mode for item in methods if isinstance(item, Method) for mode in item.modes}
        if params.mode not in modes | {""}:
            raise UnknownName("mode of a predictor", params.mode, modes, where)
    for kind, asked, known in (
        ("method", entry.methods or (), {item.method for item in suite.methods}),
        ("k", map(str, entry.ks or ()), set(map(str, suite.ks))),
    ):
        for name in asked:
            if name not in known:
                raise UnknownName(kind, name, known, where)
    return Scorer(evaluator, evaluators.source_digest(evaluator.id), params, entry)
