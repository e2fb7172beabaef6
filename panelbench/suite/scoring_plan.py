"""Which evaluators of a suite score which runs, and in which ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from panelbench.errors import UnknownName
from panelbench.method import Method
from panelbench.params import validated, variant_name
from panelbench.registry import Broken
from panelbench.scoring.evaluators import EVALUATORS, Evaluator
from panelbench.suite.runs import SelectRun
from panelbench.suite.specs import EvaluatorEntry, SuiteSpec


@dataclass(frozen=True)
class Scorer:
    """An evaluator of the suite with its parameters, and the runs that it is for."""

    evaluator: Evaluator
    params: Any
    entry: EvaluatorEntry

    @property
    def variant(self) -> str:
        """Name with the parameters that differ from the defaults."""
        return variant_name(self.evaluator.id, self.params)

    def scores(self, run: SelectRun, k: int | None) -> bool:
        """Whether the suite wants a panel scored in this way."""
        entry = self.entry
        return (
            (entry.methods is None or run.method in entry.methods)
            and (entry.ks is None or k in entry.ks)
            and (entry.seeds is None or run.seed in entry.seeds)
        )

    def ways(self, declared: Method | Broken) -> list[Scorer]:
        """In which ways it scores a method: not at all, once, or in each mode of a predictor."""
        if self.evaluator.reads == "panel":
            return [self]
        if not isinstance(declared, Method) or declared.predictor is None:
            return []
        if self.evaluator.reads == "reconstruction":
            return [self] if declared.reconstructs else []
        if not declared.supervised:
            return []
        if self.params.mode:
            return [self] if self.params.mode in declared.modes else []
        return [self, *(replace(self, params=replace(self.params, mode=mode))
                        for mode in declared.modes[1:])]  # fmt: skip


def make_scorer(
    entry: EvaluatorEntry, suite: SuiteSpec, methods: Sequence[Method | Broken]
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

    Raises
    ------
    ConfigError
        For an unknown evaluator, parameter, mode, method or panel size.
    """
    if entry.evaluator not in EVALUATORS:
        raise UnknownName("evaluator", entry.evaluator, EVALUATORS, f"suite {suite.name}")
    where = f"evaluator {entry.evaluator} in suite {suite.name}"
    evaluator = EVALUATORS[entry.evaluator]
    params = validated(evaluator.params, entry.params, where)
    modes = {mode for item in methods if isinstance(item, Method) for mode in item.modes}
    if getattr(params, "mode", "") not in modes | {""}:
        raise UnknownName("mode of a predictor", params.mode, modes, where)
    for kind, asked, known in (
        ("method", entry.methods or (), {item.method for item in suite.methods}),
        ("k", map(str, entry.ks or ()), set(map(str, suite.ks))),
    ):
        for name in asked:
            if name not in known:
                raise UnknownName(kind, name, known, where)
    return Scorer(evaluator, params, entry)
