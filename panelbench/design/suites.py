"""What is run: suites made from what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from panelbench.data.catalogue import find_dataset
from panelbench.data.specs import DatasetSpec, SplitSpec
from panelbench.design.selectors import CEILING, CONTROL, SELECTORS
from panelbench.errors import ConfigError
from panelbench.schema import parse
from panelbench.suite.request import Request
from panelbench.suite.specs import DatasetEntry, EvaluatorEntry, MethodEntry, SuiteSpec

JUDGE = "rf"
METRIC = "f1_macro"
FOLDS = 5
STEP = 1.7
"""Growth of the sizes of the curve."""
_WHOLE = ("groups", "leave-one-group-out")
"""Splits of a data set that keep groups whole."""


@dataclass(frozen=True)
class Asked:
    """What a panel is designed from.

    Attributes
    ----------
    base
        The request as a suite: data set, selectors, sizes, constraints.
    spec, task
        The data set and the name of its classes.
    group
        Column of donors, batches or slides that no split divides; None without any.
    catalogue
        Data sets by id.
    """

    base: SuiteSpec
    spec: DatasetSpec
    task: str
    group: str | None
    catalogue: Mapping[str, DatasetSpec]

    @property
    def methods(self) -> tuple[MethodEntry, ...]:
        """The selectors."""
        return self.base.methods

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Read a request.

        Raises
        ------
        ConfigError
            Unless it is about one data set and one task with classes.
        """
        if request.suite is not None or request.panel:
            raise ConfigError("a design takes data, not a suite or a panel")
        if request.data is None and not request.dataset:
            raise ConfigError("name the data: --data FILE.h5ad --label COLUMN, or --dataset ID")
        if request.target:
            raise ConfigError("a panel is designed for classes: give --label, no --target")
        names = request.method or tuple(item.method for item in SELECTORS)
        if CONTROL in names or CEILING in names:
            raise ConfigError(f"{CONTROL} and {CEILING} are scored beside the others in any case")
        base = replace(request, method=names, seed=(), evaluator=()).resolve()
        if len(base.datasets) != 1:
            raise ConfigError("a design is for one data set")
        catalogue = request.catalogue()
        spec = find_dataset(base.datasets[0].dataset, catalogue)
        known = [task.name for task in spec.tasks if task.kind == "classification"]
        wanted = base.datasets[0].tasks or tuple(known)
        if len(wanted) != 1:
            raise ConfigError(
                f"a panel is designed for one column of classes, and there are {len(wanted)} "
                f"({', '.join(wanted)}): name one with --label or --task"
            )
        if wanted[0] not in known:
            raise ConfigError(f"a panel is designed for classes; {spec.id} has {', '.join(known)}")
        whole = spec.split.scheme in _WHOLE
        group = spec.split.group if whole else None
        return cls(base, spec, wanted[0], group, catalogue)

    # -- suites ----------------------------------------------------------------------------

    def parts(self, folds: int) -> SuiteSpec:
        """Selectors and a control on the cells less each part, scored on the part."""
        methods = [*self.methods, MethodEntry(method=CONTROL)]
        evaluators = [EvaluatorEntry(evaluator=JUDGE)]
        return self._suite("parts", self._cross(folds), methods, self.base.ks, folds, evaluators)

    def closer(self, folds: int, winner: MethodEntry, k: int, *, maps: bool = True) -> SuiteSpec:
        """The winner's panels of the same parts, scored in all other ways."""
        names = ("coverage", "redundancy", "load", "robustness")
        evaluators = [EvaluatorEntry(evaluator="growth", params={"step": STEP})]
        evaluators += [EvaluatorEntry(evaluator=name) for name in names]
        # These compare cells with cells, and are pictures or slow: one part is enough.
        evaluators += [
            EvaluatorEntry(evaluator=name, seeds=(0,))
            for name in ("neighbours", "gene-prediction", *(["umap"] if maps else []))
        ]
        return self._suite("closer", self._cross(folds), [winner], (k,), folds, evaluators)

    def ceiling(self, folds: int, k: int, *, maps: bool = True) -> SuiteSpec:
        """All genes on the first part, as a forest on all parts takes minutes; their picture."""
        evaluators = [EvaluatorEntry(evaluator=JUDGE)]
        evaluators += [EvaluatorEntry(evaluator="umap")] if maps else []
        methods = [MethodEntry(method=CEILING)]
        suite = self._suite("ceiling", self._cross(folds), methods, (k,), 1, evaluators)
        return suite.model_copy(update={"constraints": None})

    def final(self, methods: Sequence[MethodEntry], ks: Sequence[int]) -> SuiteSpec:
        """Panels from all cells; nothing is held out, and nothing scores them."""
        split = parse(SplitSpec, {"scheme": "all", "group": self.group}, "design")
        return self._suite("final", split, methods, ks, 1, ())

    def _cross(self, folds: int) -> SplitSpec:
        return parse(SplitSpec, {"scheme": "cross", "folds": folds, "group": self.group}, "design")

    def _suite(
        self,
        name: str,
        split: SplitSpec,
        methods: Sequence[MethodEntry],
        ks: Sequence[int],
        seeds: int,
        evaluators: Sequence[EvaluatorEntry],
    ) -> SuiteSpec:
        changes: dict[str, Any] = {
            "name": f"design-{name}",
            "datasets": (DatasetEntry(dataset=self.spec.id, tasks=(self.task,), split=split),),
            "methods": tuple(methods),
            "ks": tuple(ks),
            "seeds": tuple(range(seeds)),
            "evaluators": tuple(evaluators),
        }
        return self.base.model_copy(update=changes)
