"""A small data set with a fold, and what the stages need beside it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from panelbench.data.catalogue import own_data
from panelbench.data.specs import DatasetSpec, SplitSpec
from panelbench.evaluator import Evaluation
from panelbench.method import Target
from panelbench.records.status import Status
from panelbench.records.store import Address, Record
from panelbench.registry import discover, discover_evaluators
from panelbench.schema import parse
from panelbench.stages.evaluation import at_hand
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion
from panelbench.stages.task import Labels, target
from panelbench.stages.toolbox import Toolbox
from panelbench.suite.plan import make_plan
from panelbench.suite.runs import Plan
from panelbench.suite.specs import SuiteSpec
from tests.tools import write_h5ad

GENES = 40
MISSING = 15
"""Cells without a cell type."""
SPY = '''
"""A method that says what it was given, and a predictor that knows its columns."""

from dataclasses import dataclass

import numpy as np

from panelbench.method import Selection, Task, method


class Columns:
    """Predicts class 1 by the first of its genes, which are in no order."""

    def __init__(self, genes, mark):
        self.genes, self.mark = genes, mark

    def predict_proba(self, task, X):
        p = 1 / (1 + np.exp(-np.asarray(X[:, 0], dtype=np.float64) - self.mark))
        return np.stack([1 - p, p, 0 * p], axis=1)

    def in_mode(self, name):
        return Columns(self.genes[:1], self.mark) if name == "hard" else self

    def save(self):
        return {"mark": np.array([self.mark])}, {"genes": list(self.genes)}

    @classmethod
    def load(cls, arrays, facts):
        return cls(facts["genes"], float(arrays["mark"][0]))


@dataclass(frozen=True)
class Params:
    shift: float = 0.0


@method("spy", params=Params, supervised=True, nested=True, needs="lognorm", predictor=Columns)
def select(task, params):
    """Rank genes backwards."""
    given = {
        "sum": float(task.dense().sum()),
        "labels": task.target.values,
        "validation": None if task.validation is None else np.flatnonzero(task.validation),
        "seed": task.seed,
        "k": task.k,
        "n_jobs": task.n_jobs,
        "groups": task.groups,
    }
    ranking = task.genes[::-1].tolist()
    return Selection(ranking, predictor=Columns(ranking[: task.k], params.shift), info=given)
'''


@dataclass
class Lab:
    """A prepared data set with a fold, and what the stages need beside a question."""

    spec: DatasetSpec
    cells: anndata.AnnData
    fold: Fold
    methods: Path
    cache: Path
    prepared: Path

    def tools(self, **more: Any) -> Toolbox:
        given: dict[str, Any] = {"methods_dirs": (self.methods,), "n_jobs": 3}
        return Toolbox(self.spec, [self.cells.copy()], self.cache, **(given | more))

    def select(self, **changes: Any) -> SelectQuestion:
        given: dict[str, Any] = {"tasks": (self.spec.tasks[0],), "k": 5, "seed": 1, "params": {}}
        return SelectQuestion(fold="fold", method="spy", **(given | changes))

    def evaluate(self, **changes: Any) -> EvaluateQuestion:
        given: dict[str, Any] = {
            "evaluator": "rf", "params": {"n_estimators": 3}, "task": self.spec.tasks[0], "k": 5,
            "seed": 1,
        }  # fmt: skip
        return EvaluateQuestion(select="select", fold="fold", **(given | changes))

    def labels(self, rows: np.ndarray) -> Target:
        """True labels of some cells."""
        names = tuple(self.cells.obs["cell_type"].cat.categories)
        return target(self.cells[rows], Labels("cell_type", "classification", names))

    def given(self, question: EvaluateQuestion, **more: Any) -> Evaluation:
        """What an evaluator receives."""
        evaluator = discover_evaluators().get(question.evaluator)
        params = evaluator.params(**question.params)
        return at_hand(question, self.tools(**{"selection": selected(), **more}), evaluator, params)


def selected(attempt: str = "a1", genes: int = 8, **result: Any) -> Record:
    """Record of a selection that went well."""
    ranking = [f"g{i}" for i in range(genes)]
    return Record(
        "select", Address("own", "spy", "select"), attempt, "q", Status.OK,
        result={"ranking": ranking, **result},
    )  # fmt: skip


METHODS = '''
"""Methods of a plan."""
from panelbench.method import Selection, method

@method("nested", supervised=True)
def nested(task, params): ...

@method("exact", supervised=True, nested=False, minutes=7, memory_gb=2)
def exact(task, params): ...

class Network: ...

@method("several", supervised=True, multitask=True, predictor=Network, modes=("soft", "hard"))
def several(task, params): ...

@method("whole", cut=False)
def whole(task, params): ...
'''
SUITE: dict[str, Any] = {
    "name": "t",
    "datasets": [{"dataset": "own", "tasks": ["cell_type"]}],
    "methods": ["nested", "exact", "whole"],
    "ks": [4, 8],
    "seeds": [0, 1],
    "evaluators": ["rf", "knn"],
}


def make_lab(folder: Path) -> Lab:
    """A small data set, prepared, with a fold and the method `SPY`."""
    adata = anndata.read_h5ad(write_h5ad(folder / "own.h5ad", genes=GENES))
    types = adata.obs["cell_type"].astype(object)
    types.iloc[np.random.default_rng(0).choice(len(types), MISSING, replace=False)] = None
    adata.obs["cell_type"] = types.astype("category")
    adata.write_h5ad(folder / "own.h5ad")
    spec = own_data(folder / "own.h5ad", ["cell_type", "state"], group="donor")
    spec = spec.model_copy(update={"split": SplitSpec(test=0.2, validation=0.1)})
    prepared = folder / "prepared" / "own.h5ad"
    prepare(spec, prepared, folder / "downloads")
    cells = load(prepared)
    (folder / "methods").mkdir()
    (folder / "methods" / "spy.py").write_text(SPY)
    fold = fit_fold(cells, spec, 1)
    return Lab(spec, cells, fold, folder / "methods", folder / "cache", prepared)


def planner(folder: Path, lab: Lab) -> Callable[..., Plan]:
    """What plans `SUITE`, with changes, for the methods of `METHODS`."""
    (folder / "several.py").write_text(METHODS)
    registry = discover([folder])

    def made(shard: tuple[int, int] | None = None, **changes: Any) -> Plan:
        suite = parse(SuiteSpec, {**SUITE, **changes}, "test")
        return make_plan(suite, {"own": lab.spec}, registry, lambda spec: "sum", shard=shard)

    return made
