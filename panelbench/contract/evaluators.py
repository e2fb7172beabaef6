"""The rules that every evaluator keeps."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from panelbench.contract import tasks
from panelbench.contract.evaluations import MARKERS, N_TRAIN, NOISE, planted, quick_params
from panelbench.contract.imports import imports_late, imports_only, own_files
from panelbench.contract.rules import NotAsked, Rules, demand, lacking
from panelbench.contract.watch import leaves_random_states, starts_no_process
from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Evaluator, Scores
from panelbench.stages.evaluation import check, stored

OFFERED = ("evaluator", "method", "ranking", "scoring", "errors", "nn")
"""Parts of panelbench that an evaluator may import."""


class EvaluatorTrial:
    """An evaluator that is tried on small planted data, with its quick parameters.

    Parameters
    ----------
    evaluator
        The evaluator.
    given
        Parameters to try it with; the others are the defaults, with few trees and draws.
    """

    def __init__(self, evaluator: Evaluator, given: Mapping[str, Any] | None = None) -> None:
        self.evaluator = evaluator
        self.params = quick_params(evaluator, given)

    @property
    def files(self) -> set[str]:
        """Files of the evaluator's own code."""
        return {str(path) for path in own_files(self.evaluator.module).values()}

    @property
    def hindrance(self) -> str:
        """What is missing on this machine, if anything."""
        return lacking(self.evaluator.libraries)

    def score(self, given: Evaluation) -> Scores:
        """Score an evaluation."""
        return self.evaluator.score(given, self.params)

    def run(self, panel: tuple[str, ...] = MARKERS, **options: Any) -> Scores:
        """Score a panel on the planted data (see `evaluations.planted`), for a task it takes."""
        return self.score(self.planted(panel, **options))

    def planted(self, panel: tuple[str, ...] = MARKERS, **options: Any) -> Evaluation:
        """The planted data with a task that it takes."""
        return planted(panel, **{"expression": self.for_expression, **options})

    @property
    def for_expression(self) -> bool:
        """Whether it scores expression targets, and classes not."""
        return "classification" not in self.evaluator.takes

    @cached_property
    def usual(self) -> Scores:
        """The scores that others are compared with."""
        return self.run()


RULES: Rules[EvaluatorTrial] = Rules()


def _checked(trial: EvaluatorTrial, given: Evaluation) -> None:
    """What is checked after every run."""
    check(trial.score(given), trial.evaluator, given)


def _difference(first: Scores, second: Scores, tolerance: float = 0.0) -> str:
    """Name what two scorings do not share; with a tolerance metrics and arrays alone count."""
    if not tolerance and stored(first) != stored(second):
        one, two = stored(first), stored(second)
        return next(name for name in {**one, **two} if one.get(name) != two.get(name))
    pairs: dict[str, tuple[Any, Any]]
    pairs = {f"array {n}": (a, second.arrays.get(n)) for n, a in first.arrays.items()}
    pairs |= {f"metric {n}": (v, second.metrics.get(n)) for n, v in first.metrics.items()}
    pairs["predictions"] = first.predicted, second.predicted
    for name, (a, b) in pairs.items():
        if (a is None) != (b is None) or (a is not None and not _near(a, b, tolerance)):
            return name
    return ""


def _near(a: Any, b: Any, tolerance: float) -> bool:
    if np.shape(a) != np.shape(b):
        return False
    if np.asarray(a).dtype.kind not in "biuf" or not tolerance:
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol=tolerance, atol=tolerance)


@RULES.rule
def says_what_it_is(trial: EvaluatorTrial) -> None:
    """It has a label, a docstring of a sentence, metrics and limits above zero."""
    item = trial.evaluator
    demand(item.label, "has no label")
    demand(len(item.doc) > 20, "the function has no docstring that says what it does")
    demand(item.metrics or item.kind == "view", "declares no metric, and no kind='view'")
    demand(item.minutes > 0 and item.memory_gb > 0, "minutes or memory_gb are not above 0")


@RULES.rule
def imports_what_is_offered(trial: EvaluatorTrial) -> None:
    """Of panelbench its module imports evaluator, method, ranking, scoring, errors and nn only."""
    imports_only(trial.evaluator.module, OFFERED)


@RULES.rule
def imports_heavy_libraries_late(trial: EvaluatorTrial) -> None:
    """Heavy libraries (torch, scikit-learn, ...) are imported inside functions."""
    imports_late(trial.evaluator.module)


@RULES.rule
def gives_what_it_declares(trial: EvaluatorTrial) -> None:
    """It gives metrics that it declares, within their range, or arrays for pictures."""
    check(trial.usual, trial.evaluator, trial.planted())
    demand(trial.usual.metrics or trial.usual.arrays, "gives no metric and no array")


@RULES.rule
def scores_or_declines_regression(trial: EvaluatorTrial) -> None:
    """A task of numbers is scored, or declined by NotApplicable with a reason."""
    try:
        _checked(trial, planted(regression=True))
    except NotApplicable as reason:
        demand(str(reason), "declines a regression task without saying why")


@RULES.rule
def same_seed_same_scores(trial: EvaluatorTrial) -> None:
    """The same seed gives the same scores."""
    other = _difference(trial.usual, trial.run())
    demand(not other, f"two runs with one seed differ in {other}; take all randomness from "
                      "given.rng('purpose')")  # fmt: skip


@RULES.rule
def leaves_inputs_alone(trial: EvaluatorTrial) -> None:
    """It writes into nothing that it is given."""
    for sparse in (False, True):
        given, fresh = trial.planted(sparse=sparse), trial.planted(sparse=sparse)
        trial.score(given)
        for name in ("train", "test"):
            used, unused = getattr(given, name), getattr(fresh, name)
            for needs in ("counts", "lognorm", "prepared"):
                same = np.array_equal(used.dense(needs=needs), unused.dense(needs=needs))
                demand(same, f"changes the expression of the {name} cells ({needs})")
            same = np.array_equal(used.target.values, unused.target.values)
            demand(same, f"changes the labels of the {name} cells")
            demand(np.array_equal(used.inputs, unused.inputs), f"changes {name}.inputs")


@RULES.rule
def sparse_as_dense(trial: EvaluatorTrial) -> None:
    """Expression as CSR gives the same scores as an array."""
    sparse = trial.run(sparse=True)
    demand(trial.usual.arrays.keys() == sparse.arrays.keys(), "gives other arrays for CSR")
    # Sums may run in another order, to which pictures are not robust.
    if trial.evaluator.kind != "view":
        other = _difference(trial.usual, sparse, tolerance=1e-3)
        demand(not other, f"scores CSR matrices otherwise: {other}")


@RULES.rule
def workers_change_nothing(trial: EvaluatorTrial) -> None:
    """Two jobs give the same scores as one."""
    other = _difference(trial.usual, trial.run(n_jobs=2))
    demand(not other, f"scores otherwise with n_jobs = 2: {other}")


@RULES.rule
def one_job_starts_no_process(trial: EvaluatorTrial) -> None:
    """With one job it starts neither a process nor a program."""
    _ = trial.usual  # whatever is imported is imported now
    starts_no_process(trial.run)


@RULES.rule
def global_random_states_stay(trial: EvaluatorTrial) -> None:
    """It neither seeds nor uses the random state of numpy, torch or random."""
    _ = trial.usual
    leaves_random_states(trial.run)


@RULES.rule
def a_panel_of_markers_beats_noise(trial: EvaluatorTrial) -> None:
    """By its first metric, planted markers are a better panel than genes of noise."""
    if not trial.evaluator.metrics:
        raise NotAsked("gives no metric to compare by")
    main = trial.evaluator.metrics[0]
    if main.kind not in ("classification", "regression", "expression"):
        raise NotAsked(f"metrics of a kind of their own ({main.kind}) may like other panels best")
    good, bad = markers_and_noise(trial)
    better = good > bad if main.higher_is_better else good < bad
    demand(better, f"{main.id} is {good:.4g} of markers and {bad:.4g} of noise")


def markers_and_noise(trial: EvaluatorTrial) -> tuple[float, float]:
    """First metric of a panel of planted markers, and of one of noise.

    Raises
    ------
    Breach
        When it is not given.
    """
    id = trial.evaluator.metrics[0].id
    good, bad = (trial.run(panel).metrics.get(id) for panel in (MARKERS, NOISE))
    demand(good is not None and bad is not None, f"does not give its first metric, {id}")
    assert good is not None and bad is not None
    return good, bad


@RULES.rule
def predicts_without_the_test_labels(trial: EvaluatorTrial) -> None:
    """With other test labels it predicts the same; where it predicts nothing, nothing changes."""
    first = trial.usual
    if trial.evaluator.describes:
        demand(first.predicted is None, "declares describes=True, and predicts")
        raise NotAsked("describes the panel in the classes of the test cells, and predicts nothing")
    other = np.full(tasks.N_CELLS - N_TRAIN, 1)
    if trial.for_expression:
        other = trial.planted().test.target.values[:, ::-1]
    second = trial.run(test_labels=other)
    about_tasks = {"classification", "regression"} & {m.kind for m in trial.evaluator.metrics}
    about_tasks |= {"expression"} if trial.for_expression else set()
    demand(first.predicted is not None or not about_tasks,
           "does not say what it predicts: Scores(predicted=...)")  # fmt: skip
    if first.predicted is None:
        same = dict(first.metrics) == dict(second.metrics)
        demand(same, "metrics that are not about a task change with the test labels")
    else:
        same = np.array_equal(first.predicted, np.asarray(second.predicted))
        demand(same, "its predictions change with the test labels")
    # How well each output is predicted is told in arrays too.
    for name in () if trial.for_expression else first.arrays.keys() - {"codes"}:
        same = np.array_equal(first.arrays[name], second.arrays[name])
        demand(same, f"its array {name!r} changes with the test labels")


@RULES.rule
def reads_training_labels_as_declared(trial: EvaluatorTrial) -> None:
    """What noisy declares is true: it trains on the labels of the training cells, or not."""
    if trial.for_expression:
        raise NotAsked("scores expression targets, which have no label noise")
    # Where a suite asks for label noise, those that train on labels are given noisy ones.
    shuffled = np.random.default_rng(1).permutation(planted().train.target.values)
    same = stored(trial.usual) == stored(trial.run(train_labels=shuffled))
    demand(same != trial.evaluator.noisy, "shuffled training labels change "
           + ("nothing: it does not read them; declare noisy=False" if same
              else "its scores: it reads them; declare noisy=True"))  # fmt: skip


@RULES.rule
def copes_with_rare_classes(trial: EvaluatorTrial) -> None:
    """A class may have no training cell, or no test cell."""
    if trial.for_expression:
        raise NotAsked("takes no classes")
    # Class 1 has no training cell, class 2 no test cell.
    sides = (planted().train.target.values, 1), (planted().test.target.values, 2)
    train, test = (np.where(codes == missing, 0, codes) for codes, missing in sides)
    _checked(trial, planted(train_labels=train, test_labels=test))


@RULES.rule
def copes_with_one_gene(trial: EvaluatorTrial) -> None:
    """A panel may be one gene."""
    _checked(trial, trial.planted(MARKERS[:1]))


@RULES.rule
def copes_with_missing_outputs(trial: EvaluatorTrial) -> None:
    """Of expression targets, a cell may lack some, and one may be lacking in all test cells."""
    if not trial.for_expression:
        raise NotAsked("takes no expression targets")
    values = trial.planted().test.target.values.copy()
    values[::4, 1], values[:, 2] = np.nan, np.nan
    _checked(trial, trial.planted(test_labels=values))


@RULES.rule
def can_be_written_down(trial: EvaluatorTrial) -> None:
    """What it returns can be written as JSON and arrays, without pickles."""
    try:
        json.dumps(stored(trial.usual), allow_nan=False)
        np.savez(io.BytesIO(), allow_pickle=False, **dict(trial.usual.arrays))
    except (TypeError, ValueError) as error:
        demand(False, f"what it returns cannot be written: {error}")
