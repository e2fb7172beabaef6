"""The contract of an evaluator, checked on every evaluator that discovery finds.

A rule is a function with the decorator `rule`; all are applied to every evaluator, and each to one
that breaks just this rule.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from panelbench.errors import EvaluatorError, NotApplicable
from panelbench.evaluator import Evaluation, Evaluator, Metric, Scores
from panelbench.registry import discover_evaluators
from panelbench.scoring.metrics import CLASSIFICATION
from panelbench.scoring.predictions import scored
from panelbench.stages.evaluation import check, stored
from tests import tasks
from tests.evaluations import MARKERS, N_TRAIN, NOISE, planted, quick_params

FOUND = discover_evaluators()
RULES: dict[str, Callable[[Evaluator], None]] = {}


def rule(function: Callable[[Evaluator], None]) -> Callable[[Evaluator], None]:
    RULES[function.__name__] = function
    return function


def run(evaluator: Evaluator, panel: tuple[str, ...] = MARKERS, **options: Any) -> Scores:
    return evaluator.score(planted(panel, **options), quick_params(evaluator))


@lru_cache
def usual(evaluator: Evaluator) -> Scores:
    """The run that other runs are compared with."""
    return run(evaluator)


def assert_same(first: Scores, second: Scores, exactly: bool = True) -> None:
    """Compare all that evaluators return."""
    one, two = stored(first), stored(second)
    one["metrics"], two["metrics"] = dict(one["metrics"]), dict(two["metrics"])
    if exactly:
        assert one == two
    else:
        assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-4)
    assert first.arrays.keys() == second.arrays.keys()
    pairs = [(first.arrays[name], second.arrays[name]) for name in first.arrays]
    if first.predicted is not None and second.predicted is not None:
        pairs.append((first.predicted, second.predicted))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0 if exactly else 1e-3, atol=0 if exactly else 1e-3)


@rule
def says_what_it_is(evaluator: Evaluator) -> None:
    assert evaluator.label
    assert len(evaluator.doc) > 20, "the function has no docstring"
    assert evaluator.metrics or evaluator.kind == "view", "declares no metric"
    assert evaluator.minutes > 0 and evaluator.memory_gb > 0


@rule
def gives_what_it_declares(evaluator: Evaluator) -> None:
    found = usual(evaluator)
    check(found, evaluator, planted())
    assert found.metrics or found.arrays, "gives nothing"


@rule
def scores_or_declines_regression(evaluator: Evaluator) -> None:
    given = planted(regression=True)
    try:
        found = evaluator.score(given, quick_params(evaluator))
    except NotApplicable as reason:
        assert str(reason)
    else:
        check(found, evaluator, given)


@rule
def same_seed_same_scores(evaluator: Evaluator) -> None:
    assert_same(usual(evaluator), run(evaluator))


@rule
def leaves_inputs_alone(evaluator: Evaluator) -> None:
    for sparse in (False, True):
        given, fresh = planted(sparse=sparse), planted(sparse=sparse)
        evaluator.score(given, quick_params(evaluator))
        for side in ("train", "test"):
            used, unused = getattr(given, side), getattr(fresh, side)
            for needs in ("counts", "lognorm", "prepared"):
                assert (used.dense(needs=needs) == unused.dense(needs=needs)).all(), needs
            assert (used.target.values == unused.target.values).all(), "labels were changed"
            assert (used.inputs == unused.inputs).all()


@rule
def sparse_as_dense(evaluator: Evaluator) -> None:
    # Sums may run in another order, to which pictures are not robust.
    dense, sparse = usual(evaluator), run(evaluator, sparse=True)
    if evaluator.kind == "view":
        assert dense.arrays.keys() == sparse.arrays.keys()
    else:
        assert_same(dense, sparse, exactly=False)


@rule
def workers_change_nothing(evaluator: Evaluator) -> None:
    assert_same(usual(evaluator), run(evaluator, n_jobs=2))


@rule
def one_job_starts_no_process(evaluator: Evaluator) -> None:
    started: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.process.BaseProcess, "start", lambda *_: started.append(1))
        patch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args) or 1 / 0)
        run(evaluator)
    assert not started


@rule
def global_random_states_stay(evaluator: Evaluator) -> None:
    def state() -> list[Any]:
        torch = sys.modules.get("torch")
        numpy_state = np.random.get_state()  # noqa: NPY002
        return [
            [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
            random.getstate(),
            torch.get_rng_state().tolist() if torch else None,
        ]

    usual(evaluator)  # whatever is imported is imported now
    before = state()
    run(evaluator)
    assert state() == before


@rule
def a_panel_of_markers_beats_noise(evaluator: Evaluator) -> None:
    if not evaluator.metrics:
        pytest.skip("gives no metric to compare by")
    main = evaluator.metrics[0]
    good, bad = (run(evaluator, panel).metrics[main.id] for panel in (MARKERS, NOISE))
    assert good > bad if main.higher_is_better else good < bad, (main.id, good, bad)


@rule
def predicts_without_the_test_labels(evaluator: Evaluator) -> None:
    """With other test labels the same is predicted; without predictions nothing changes."""
    other = np.full(tasks.N_CELLS - N_TRAIN, 1)
    first, second = usual(evaluator), run(evaluator, test_labels=other)
    task_kinds = {"classification", "regression"} & {m.kind for m in evaluator.metrics}
    assert first.predicted is not None or not task_kinds, "does not say what it predicts"
    if first.predicted is None:
        assert dict(first.metrics) == dict(second.metrics)
    else:
        assert second.predicted is not None
        np.testing.assert_array_equal(first.predicted, second.predicted)
    for name in first.arrays.keys() - {"codes"}:
        np.testing.assert_array_equal(first.arrays[name], second.arrays[name])


@rule
def reads_training_labels_as_declared(evaluator: Evaluator) -> None:
    """What `noisy` says is true: noisy labels can be given to those that train on labels."""
    shuffled = np.random.default_rng(1).permutation(planted().train.target.values)
    first, second = usual(evaluator), run(evaluator, train_labels=shuffled)
    same = stored(first) == stored(second)
    assert same != evaluator.noisy, "reads them" if not same else "does not read them"


@rule
def copes_with_rare_classes(evaluator: Evaluator) -> None:
    # Class 1 has no training cell, class 2 no test cell.
    codes = planted().train.target.values, planted().test.target.values
    labels = [
        np.where(side == missing, 0, side) for side, missing in zip(codes, (1, 2), strict=True)
    ]
    given = planted(train_labels=labels[0], test_labels=labels[1])
    check(evaluator.score(given, quick_params(evaluator)), evaluator, given)


@rule
def copes_with_one_gene(evaluator: Evaluator) -> None:
    given = planted(MARKERS[:1])
    check(evaluator.score(given, quick_params(evaluator)), evaluator, given)


@rule
def can_be_written_down(evaluator: Evaluator) -> None:
    found = usual(evaluator)
    json.dumps(stored(found), allow_nan=False)
    np.savez(io.BytesIO(), allow_pickle=False, **dict(found.arrays))


def test_every_module_imports() -> None:
    assert not FOUND.broken, {item.place: item.error for item in FOUND.broken.values()}
    assert {"rf", "builtin", "reconstruct", "umap"} <= set(FOUND.declared)


def test_discovery_imports_nothing_heavy() -> None:
    heavy = ("anndata", "pandas", "pydantic", "scanpy", "scipy", "sklearn", "torch", "umap")
    code = (
        "import sys; from panelbench.registry import discover_evaluators; discover_evaluators()\n"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", "import heavy libraries inside functions"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("id", FOUND.declared)
def test_contract(id: str) -> None:
    """All rules in one test: what an evaluator compiles on its first call is compiled once."""
    broken = []
    for name, holds in RULES.items():
        try:
            holds(FOUND.declared[id])
        except pytest.skip.Exception:
            continue
        except Exception as error:
            error.add_note(f"rule {name}")
            broken.append(error)
    if broken:
        raise ExceptionGroup(f"evaluator {id}", broken)


# Evaluators that break one rule each: the check of that rule must notice.

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
    """Seed numpy globally."""
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


BREAKS: list[tuple[Callable[[Evaluation, Any], Scores], str, dict[str, Any]]] = [
    (nameless, "says_what_it_is", {}),
    (inventive, "gives_what_it_declares", {}),
    (blunt, "scores_or_declines_regression", {}),
    (moody, "same_seed_same_scores", {}),
    (scribbler, "leaves_inputs_alone", {}),
    (storage_bound, "sparse_as_dense", {}),
    (job_bound, "workers_change_nothing", {}),
    (forking, "one_job_starts_no_process", {}),
    (seeding, "global_random_states_stay", {}),
    (blind, "a_panel_of_markers_beats_noise", {}),
    (cheat, "predicts_without_the_test_labels", {}),
    (sly, "reads_training_labels_as_declared", {"noisy": False}),
    (fragile, "copes_with_rare_classes", {}),
    (paired, "copes_with_one_gene", {}),
    (pickling, "can_be_written_down", {}),
]


def declared(function: Callable[[Evaluation, Any], Scores], **changes: Any) -> Evaluator:
    given = {"label": "x", "metrics": CLASSIFICATION, "noisy": True} | changes
    return Evaluator(function.__name__, function, __name__, **given)


@pytest.mark.parametrize(
    ("function", "name", "changes"), BREAKS, ids=[function.__name__ for function, *_ in BREAKS]
)
def test_rules_can_fail(
    function: Callable[[Evaluation, Any], Scores], name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises((AssertionError, EvaluatorError, ArithmeticError, LookupError, ValueError)):
        RULES[name](declared(function, **changes))


def test_each_rule_has_an_evaluator_that_breaks_it() -> None:
    assert {name for _, name, _ in BREAKS} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rules_pass_a_sound_evaluator(name: str) -> None:
    RULES[name](declared(sound))


def test_declared_labels_that_are_not_read_are_noticed() -> None:
    with pytest.raises(AssertionError, match="does not read"):
        RULES["reads_training_labels_as_declared"](
            declared(blind, kind="own", metrics=(Metric("accuracy", "Accuracy", "own"),))
        )
