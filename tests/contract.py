"""The rules that every method keeps, each a function of a method.

A rule is a function with the decorator `check`; ``test_contract.py`` applies all of them to all
methods that discovery finds.
"""

from __future__ import annotations

import json
import multiprocessing.process
import random
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from panelbench.errors import NotApplicable
from panelbench.method import Method, Selection, Target, Task
from panelbench.ranking import gene_variances
from tests import tasks

CHECKS: dict[str, Callable[[Method], None]] = {}


def check(function: Callable[[Method], None]) -> Callable[[Method], None]:
    CHECKS[function.__name__] = function
    return function


def select(method: Method, **options: Any) -> tuple[Task, Selection]:
    """Run a method; one that refuses classes gets a regression target."""
    params = tasks.quick_params(method)
    if not takes_classes(method):
        options.setdefault("target", tasks.expression())
    task = tasks.make_task(method, **options)
    return task, method.select(task, params)


@lru_cache
def takes_classes(method: Method) -> bool:
    if not (method.supervised and method.regression):
        return True
    try:
        method.select(tasks.make_task(method), tasks.quick_params(method))
    except NotApplicable:
        return False
    return True


@lru_cache
def usual(method: Method) -> tuple[Task, Selection]:
    """The run that other runs are compared with."""
    return select(method)


def assert_valid(task: Task, found: Selection) -> None:
    ranking = list(found.ranking)
    assert all(type(gene) is str or isinstance(gene, np.str_) for gene in ranking)
    assert len(set(ranking)) == len(ranking), "a gene is ranked twice"
    assert set(ranking) <= set(task.genes.tolist()), "unknown genes"
    assert len(ranking) >= task.k, f"{len(ranking)} genes for k = {task.k}"
    if found.scores is not None:
        assert len(found.scores) == len(ranking)
        assert np.isfinite(np.asarray(found.scores, dtype=np.float64)).all()


@check
def says_what_it_is(method: Method) -> None:
    assert method.label
    assert len(method.doc) > 20, "the function has no docstring"
    assert method.needs in {"counts", "lognorm", "binary", "prepared"}


@check
def ranks_known_genes_once(method: Method) -> None:
    assert_valid(*usual(method))


@check
def serves_every_k(method: Method) -> None:
    for k in (1, tasks.N_CLASSES - 1, tasks.N_GENES):
        assert_valid(*select(method, k=k))


@check
def same_seed_same_ranking(method: Method) -> None:
    if not method.deterministic:
        pytest.skip("declared not deterministic")
    assert list(select(method)[1].ranking) == list(usual(method)[1].ranking)


@check
def leaves_inputs_alone(method: Method) -> None:
    for sparse in (False, True):
        task, _ = select(method, sparse=sparse)
        fresh = tasks.make_task(method, sparse=sparse, target=only_target(task))
        for name in ("X", "counts", "inputs"):
            assert same_matrix(getattr(task, name), getattr(fresh, name)), f"{name} was changed"
        assert task.genes.tolist() == fresh.genes.tolist()
        for name, target in fresh.targets.items():
            assert np.array_equal(task.targets[name].values, target.values), "labels were changed"


def only_target(task: Task) -> Target | None:
    target = next(iter(task.targets.values()), None)
    return target if target is not None and target.kind == "regression" else None


def same_matrix(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return all(np.array_equal(getattr(a, p), getattr(b, p)) for p in ("data", "indices", "indptr"))


@check
def sparse_as_dense(method: Method) -> None:
    k = usual(method)[0].k
    assert list(select(method, sparse=True)[1].ranking)[:k] == list(usual(method)[1].ranking)[:k]


@check
def reads_its_labels(method: Method) -> None:
    if not method.supervised:
        task, _ = usual(method)
        assert not task.targets
        return
    order = np.random.default_rng(5).permutation(tasks.N_CELLS)
    if takes_classes(method):
        shuffled = tasks.cell_type(tasks.labels()[order])
        plain = select(method, target=tasks.cell_type())[1]
    else:
        shuffled, plain = tasks.expression(order), usual(method)[1]
    assert list(select(method, target=shuffled)[1].ranking) != list(plain.ranking)


@check
def copes_with_rare_classes(method: Method) -> None:
    if not (method.supervised and takes_classes(method)):
        pytest.skip("takes no classes")
    codes = tasks.labels().copy()
    codes[0] = 4  # class 4 has one training cell, class 3 none
    assert_valid(*select(method, target=tasks.cell_type(codes, classes=5)))


@check
def constant_genes_come_last(method: Method) -> None:
    if not method.nested:
        pytest.skip("ranks k genes only")
    task, found = usual(method)
    constant = set(task.genes[gene_variances(task.X) == 0].tolist())
    assert constant, "the data must hold a constant gene"
    flags = [gene in constant for gene in found.ranking]
    assert flags == sorted(flags), "a constant gene stands above one that varies"


@check
def nested_means_prefix(method: Method) -> None:
    if not method.nested:
        pytest.skip("not nested")
    few, many = select(method, k=5)[1].ranking, usual(method)[1].ranking
    assert list(few)[:5] == list(many)[:5]


@check
def workers_change_nothing(method: Method) -> None:
    if not method.deterministic:
        pytest.skip("declared not deterministic")
    assert list(select(method, n_jobs=2)[1].ranking) == list(usual(method)[1].ranking)


@check
def one_job_starts_no_process(method: Method) -> None:
    started: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.process.BaseProcess, "start", started.append)
        patch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args) or 1 / 0)
        select(method, n_jobs=1)
    assert not started


@check
def global_random_states_stay(method: Method) -> None:
    def state() -> list[Any]:
        torch = sys.modules.get("torch")
        numpy_state = np.random.get_state()  # noqa: NPY002
        return [
            [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
            random.getstate(),
            torch.get_rng_state().tolist() if torch else None,
        ]

    usual(method)  # whatever is imported is imported now
    before = state()
    select(method)
    assert state() == before


@check
def info_is_json(method: Method) -> None:
    json.dumps(dict(usual(method)[1].info), allow_nan=False)


@check
def predictor_survives_saving(method: Method) -> None:
    task, found = usual(method)
    if found.predictor is None:
        pytest.skip("returns no predictor")
    assert method.predictor is not None and isinstance(found.predictor, method.predictor)
    genes = list(found.predictor.genes)
    column = {gene: i for i, gene in enumerate(task.genes.tolist())}
    X = task.dense()[:, [column[gene] for gene in genes]]
    arrays, facts = found.predictor.save()
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    loaded = method.predictor.load(
        {name: value.copy() for name, value in arrays.items()},
        json.loads(json.dumps(facts, allow_nan=False)),
    )
    assert list(loaded.genes) == genes
    for name, target in task.targets.items():
        if target.kind == "classification":
            proba = loaded.predict_proba(name, X)
            assert proba.shape == (len(X), len(target.classes))
            assert np.allclose(proba.sum(axis=1), 1, atol=1e-4)
            assert np.array_equal(proba, found.predictor.predict_proba(name, X))
        else:
            assert np.array_equal(loaded.predict(name, X), found.predictor.predict(name, X))
            assert len(loaded.predict(name, X)) == len(X)
