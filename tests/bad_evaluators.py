"""Evaluators that break one rule of the contract each, and one that breaks none."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Scores
from panelbench.scoring.predictions import scored

_calls = iter(range(10**6))


def _centroids(given: Evaluation, labels: np.ndarray | None = None) -> np.ndarray:
    """Sound predictions: the class of the nearest mean of training cells."""
    y = given.train.target.values if labels is None else labels
    X, n = given.train.dense(given.panel), len(given.classes)
    means = np.stack([X[y == c].mean(axis=0) if (y == c).any() else X[0] + 1e3 for c in range(n)])
    distance = ((given.test.dense(given.panel)[:, None] - means[None]) ** 2).sum(axis=2)
    return np.asarray(np.eye(n)[distance.argmin(axis=1)])


def sound(given: Evaluation, params: Any) -> Scores:
    """Score the class of the nearest mean."""
    if given.kind != "classification":
        raise NotApplicable("classes only")
    return scored(given.test.target, _centroids(given))


def nameless(given: Evaluation, params: Any) -> Scores:
    return sound(given, params)


nameless.__doc__ = "x"


def inventive(given: Evaluation, params: Any) -> Scores:
    """Give a metric that is not declared."""
    return Scores({"cleverness": 1.0})


def blunt(given: Evaluation, params: Any) -> Scores:
    """Fail on numbers as labels."""
    return scored(given.test.target, _centroids(given))


def moody(given: Evaluation, params: Any) -> Scores:
    """Give another value at every call."""
    return Scores({"accuracy": 1 / (1 + next(_calls))})


def scribbler(given: Evaluation, params: Any) -> Scores:
    """Write into the test cells."""
    X = given.test.X()
    array = X if isinstance(X, np.ndarray) else X.data
    array.setflags(write=True)
    array[..., 0] += 1
    array.setflags(write=False)
    return sound(given, params)


def storage_bound(given: Evaluation, params: Any) -> Scores:
    """Score sparse cells otherwise."""
    return Scores({"accuracy": float(isinstance(given.test.X(), np.ndarray))})


def job_bound(given: Evaluation, params: Any) -> Scores:
    """Give the number of jobs."""
    return Scores({"accuracy": 1 / given.n_jobs})


def forking(given: Evaluation, params: Any) -> Scores:
    """Start a process whatever `n_jobs` says."""
    multiprocessing.Process(target=print).start()
    return sound(given, params)


def seeding(given: Evaluation, params: Any) -> Scores:
    """Seed the generator of numpy that all share."""
    np.random.seed(next(_calls))  # noqa: NPY002
    return sound(given, params)


def blind(given: Evaluation, params: Any) -> Scores:
    """Score every panel alike."""
    return Scores({"accuracy": 0.5})


def cheat(given: Evaluation, params: Any) -> Scores:
    """Predict the test labels from the test labels."""
    return scored(given.test.target, np.eye(len(given.classes))[given.test.target.values])


def sly(given: Evaluation, params: Any) -> Scores:
    """Train on labels without saying so."""
    return sound(given, params)


def fragile(given: Evaluation, params: Any) -> Scores:
    """Divide by the number of cells of each class, in integers."""
    sizes = np.bincount(given.train.target.values, minlength=len(given.classes))
    return Scores({"accuracy": sum(1 // int(size) for size in sizes) / len(sizes)})


def paired(given: Evaluation, params: Any) -> Scores:
    """Read the second gene of the panel."""
    return Scores({"accuracy": float(given.test.dense(given.panel[1:2]).max() >= 0)})


def pickling(given: Evaluation, params: Any) -> Scores:
    """Keep an object in an array."""
    return Scores({"accuracy": 1.0}, arrays={"x": np.array([given], dtype=object)})


def hopeful(given: Evaluation, params: Any) -> Scores:
    """Take it that every output is known for every cell."""
    if given.kind != "expression":
        raise NotApplicable("expression only")
    predicted = given.predictor.predict(given.test)
    error = float(np.square(predicted - given.test.target.values).mean())
    return Scores({"error": error}, predicted=predicted)
