"""Methods that break one rule of the contract each, and one that breaks none."""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
from dataclasses import replace
from typing import Any

import numpy as np

from panelbench.method import Selection, Task
from panelbench.ranking import gene_variances

_calls = iter(range(10**6))


def _ranked(task: Task, scores: np.ndarray, **more: Any) -> Selection:
    order = np.lexsort((-scores, gene_variances(task.X) == 0))
    return Selection(ranking=task.genes[order].tolist(), **more)


def _variance(task: Task) -> np.ndarray:
    return gene_variances(task.X)


def sound(task: Task, params: Any) -> Selection:
    """Rank genes by their variance."""
    return _ranked(task, _variance(task))


def telling(task: Task, params: Any) -> Selection:
    """Rank genes by how far apart the classes are, and return a predictor that lasts."""
    codes = task.target.values
    means = [task.dense()[codes == code].mean(axis=0) for code in np.unique(codes)]
    first = task.genes[:1].tolist()
    return _ranked(task, np.std(means, axis=0), predictor=Faithful(first, 1.0))


def twice(task: Task, params: Any) -> Selection:
    """Rank the best gene twice."""
    found = _ranked(task, _variance(task))
    return Selection(ranking=[found.ranking[0], *found.ranking])


def too_few(task: Task, params: Any) -> Selection:
    """Rank at most half of the genes."""
    return Selection(ranking=_ranked(task, _variance(task)).ranking[:30])


def moody(task: Task, params: Any) -> Selection:
    """Rank differently at every call."""
    return _ranked(task, np.random.default_rng(next(_calls)).random(task.n_genes))


def scribbler(task: Task, params: Any) -> Selection:
    """Write into the training data, write protection or not."""
    array = task.X if isinstance(task.X, np.ndarray) else task.X.data
    array.setflags(write=True)
    array[..., 0] += 1
    array.setflags(write=False)
    return _ranked(task, _variance(task))


def storage_bound(task: Task, params: Any) -> Selection:
    """Rank sparse input the other way round."""
    return _ranked(task, _variance(task) * (1 if isinstance(task.X, np.ndarray) else -1))


def deaf(task: Task, params: Any) -> Selection:
    """Ignore the labels, whatever is declared."""
    return _ranked(task, _variance(task))


def fragile(task: Task, params: Any) -> Selection:
    """Divide by the number of cells of each class, in integers."""
    sizes = np.bincount(task.target.values, minlength=len(task.target.classes))
    return _ranked(task, _variance(task) * sum(100 // int(size) for size in sizes))


def flat(task: Task, params: Any) -> Selection:
    """Rank constant genes first."""
    return Selection(ranking=task.genes[np.argsort(_variance(task))].tolist())


def k_bound(task: Task, params: Any) -> Selection:
    """Rank in an order that depends on k."""
    return _ranked(task, np.roll(_variance(task), task.k))


def job_bound(task: Task, params: Any) -> Selection:
    """Rank in an order that depends on the number of workers."""
    return _ranked(task, np.roll(_variance(task), task.n_jobs))


def forking(task: Task, params: Any) -> Selection:
    """Start a process whatever `n_jobs` says."""
    multiprocessing.Process(target=print).start()
    return _ranked(task, _variance(task))


def calling(task: Task, params: Any) -> Selection:
    """Call a program, and hide when that fails."""
    with contextlib.suppress(Exception):
        subprocess.run(["true"], check=True)
    return _ranked(task, _variance(task))


def seeding(task: Task, params: Any) -> Selection:
    """Seed the generator of numpy that all share."""
    np.random.seed(next(_calls))  # noqa: NPY002
    return _ranked(task, _variance(task))


def unwritable(task: Task, params: Any) -> Selection:
    """Put an array into the info."""
    return _ranked(task, _variance(task), info={"variance": _variance(task)})


def nameless(task: Task, params: Any) -> Selection:
    return _ranked(task, _variance(task))


nameless.__doc__ = "x"


class Forgetful:
    """A predictor that forgets its weights when saved."""

    def __init__(self, genes: list[str], weight: float) -> None:
        self.genes, self.weight = genes, weight

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        first = 1 / (1 + np.exp(-self.weight * X[:, 0]))
        return np.stack([first, 1 - first, np.zeros(len(X))], axis=1)

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        return X[:, 0]

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {}, {"genes": self.genes}

    @classmethod
    def load(cls, arrays: Any, facts: Any) -> Forgetful:
        return cls(facts["genes"], 0.0)


class Faithful(Forgetful):
    """The same predictor, saved with its weight."""

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"weight": np.array(self.weight)}, {"genes": self.genes}

    @classmethod
    def load(cls, arrays: Any, facts: Any) -> Faithful:
        return cls(facts["genes"], float(arrays["weight"]))


class Moody(Faithful):
    """Gives two classes in its second mode, and reconstructs half of the genes."""

    def __init__(self, genes: list[str], weight: float, mode: str = "one") -> None:
        super().__init__(genes, weight)
        self.mode = mode

    def in_mode(self, name: str) -> Moody:
        return Moody(self.genes, self.weight, name)

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        return super().predict_proba(task, X)[:, : 3 if self.mode == "one" else 2]

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        return np.zeros((len(X), 30))


class Turned(Moody):
    """Mixes up the classes in its first mode, though not as it is returned."""

    def __init__(self, genes: list[str], weight: float, mode: str = "") -> None:
        super().__init__(genes, weight, mode)

    def in_mode(self, name: str) -> Turned:
        return Turned(self.genes, self.weight, name)

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        return Faithful.predict_proba(self, task, X)[:, :: 1 if self.mode == "" else -1]


def forgetful(task: Task, params: Any) -> Selection:
    """Return a predictor that cannot be saved."""
    return _trained(task, Forgetful)


def two_faced(task: Task, params: Any) -> Selection:
    """Return a predictor that gives two of three classes in its second mode."""
    return _trained(task, Moody)


def turned(task: Task, params: Any) -> Selection:
    """Return a predictor that predicts otherwise in its first mode."""
    return _trained(task, Turned)


def relabelling(task: Task, params: Any) -> Selection:
    """Write into the labels."""
    task.target.values.setflags(write=True)
    task.target.values[:5] = 0
    task.target.values.setflags(write=False)
    return telling(task, params)


def forgetting_half(task: Task, params: Any) -> Selection:
    """Return a predictor that reconstructs half of the genes."""
    return _trained(task, Moody)


def _trained(task: Task, kind: type[Forgetful]) -> Selection:
    found = telling(task, None)
    return Selection(found.ranking, predictor=kind(task.genes[:1].tolist(), 1.0))


def each_alone(tasks: Any, params: Any) -> list[Selection]:
    """Answer several runs as if each were alone."""
    return [telling(*pair) for pair in zip(tasks, params, strict=True)]


def all_alike(tasks: Any, params: Any) -> list[Selection]:
    """Answer the first run, and give its answer to all."""
    return [telling(tasks[0], params[0])] * len(tasks)


def one_answer(tasks: Any, params: Any) -> list[Selection]:
    """Answer the first of several runs only."""
    return [telling(tasks[0], params[0])]


def weighed(tasks: Any, params: Any) -> list[Selection]:
    """Rank as alone, and return predictors that know how many runs there are."""
    return [
        replace(found, predictor=Faithful(found.predictor.genes, float(len(tasks))))
        for found in each_alone(tasks, params)
    ]


class Averages:
    """Predicts constants, from no genes."""

    genes: tuple[str, ...] = ()

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        return np.tile(self.values, (len(X), 1))

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"values": self.values}, {}

    @classmethod
    def load(cls, arrays: Any, facts: Any) -> Averages:
        return cls(arrays["values"])


def averaging(task: Task, params: Any) -> Selection:
    """Predict every primary output by its mean over the cells that have it."""
    target = task.target
    values = np.nanmean(target.values[:, target.primary].astype(float), axis=0)
    names = np.array(target.outputs)[target.primary].tolist()
    return Selection(names, predictor=Averages(values), size=len(names))


def gappy(task: Task, params: Any) -> Selection:
    """Predict every primary output by its mean, also where one is missing."""
    found = averaging(task, params)
    values = task.target.values[:, task.target.primary].astype(float).mean(axis=0)
    return replace(found, predictor=Averages(values))


def sidelong(task: Task, params: Any) -> Selection:
    """Predict means, and look at the expression beside the targets."""
    found = averaging(task, params)
    assert isinstance(found.predictor, Averages)
    return replace(found, predictor=Averages(found.predictor.values + task.dense().mean()))
