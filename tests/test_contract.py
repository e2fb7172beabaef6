"""The contract of a method, checked on every method that discovery finds.

The checks are in ``contract.py``; here they are applied to all methods, and each of them to a
method that breaks just its rule.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from panelbench.method import Method, Selection, Task
from panelbench.ranking import gene_variances
from panelbench.registry import discover
from tests.contract import CHECKS
from tests.tools import need_libraries

REGISTRY = discover()
HEAVY = ("anndata", "jinja2", "matplotlib", "pandas", "scanpy", "scipy", "sklearn", "torch")


def test_every_module_imports() -> None:
    assert not REGISTRY.broken, {item.place: item.error for item in REGISTRY.broken.values()}
    assert len(REGISTRY.methods) > 0


def test_discovery_imports_nothing_heavy() -> None:
    code = textwrap.dedent(f"""
        import sys
        from panelbench.registry import discover
        found = discover()
        print(*(name for name in {HEAVY} if name in sys.modules))
        sys.exit(not found.methods)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", "import heavy libraries inside functions"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("id", REGISTRY.methods)
def test_contract(id: str, name: str) -> None:
    method = REGISTRY.methods[id]
    if method.gpu == "required":
        pytest.skip("needs a GPU")
    need_libraries(method)
    CHECKS[name](method)


# Methods that break one rule each: the check of that rule must notice.

_calls = iter(range(10**6))


def _ranked(task: Task, scores: np.ndarray, **more: Any) -> Selection:
    order = np.lexsort((-scores, gene_variances(task.X) == 0))
    return Selection(ranking=task.genes[order].tolist(), **more)


def _variance(task: Task) -> np.ndarray:
    return gene_variances(task.X)


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
    """Ignore the labels."""
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


def seeding(task: Task, params: Any) -> Selection:
    """Seed numpy globally."""
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


def faithful(task: Task, params: Any) -> Selection:
    """Return a predictor that can be saved."""
    return _ranked(task, _variance(task), predictor=Faithful(task.genes[:1].tolist(), 1.0))


def forgetful(task: Task, params: Any) -> Selection:
    """Return a predictor that cannot be saved."""
    return _ranked(task, _variance(task), predictor=Forgetful(task.genes[:1].tolist(), 1.0))


BREAKS: list[tuple[Callable[[Task, Any], Selection], str, dict[str, Any]]] = [
    (nameless, "says_what_it_is", {}),
    (twice, "ranks_known_genes_once", {}),
    (too_few, "serves_every_k", {}),
    (moody, "same_seed_same_ranking", {}),
    (scribbler, "leaves_inputs_alone", {}),
    (storage_bound, "sparse_as_dense", {}),
    (deaf, "reads_its_labels", {"supervised": True}),
    (fragile, "copes_with_rare_classes", {"supervised": True}),
    (flat, "constant_genes_come_last", {}),
    (k_bound, "nested_means_prefix", {}),
    (job_bound, "workers_change_nothing", {}),
    (forking, "one_job_starts_no_process", {}),
    (seeding, "global_random_states_stay", {}),
    (unwritable, "info_is_json", {}),
    (forgetful, "predictor_survives_saving", {"supervised": True, "predictor": Forgetful}),
]


def broken(function: Callable[[Task, Any], Selection], declared: dict[str, Any]) -> Method:
    return Method(
        id=function.__name__.replace("_", "-"),
        select=function,
        module=__name__,
        label=function.__name__,
        **declared,
    )


@pytest.mark.parametrize(
    ("function", "name", "declared"), BREAKS, ids=[function.__name__ for function, *_ in BREAKS]
)
def test_checks_can_fail(
    function: Callable[[Task, Any], Selection], name: str, declared: dict[str, Any]
) -> None:
    with pytest.raises((AssertionError, TypeError, ZeroDivisionError)):
        CHECKS[name](broken(function, declared))


def test_each_check_has_a_method_that_breaks_it() -> None:
    assert {name for _, name, _ in BREAKS} == set(CHECKS)


def test_checks_pass_a_plain_method() -> None:
    plain = replace(broken(deaf, {}), id="plain")
    for name in ("serves_every_k", "leaves_inputs_alone", "sparse_as_dense", "info_is_json"):
        CHECKS[name](plain)
    CHECKS["predictor_survives_saving"](
        broken(faithful, {"supervised": True, "predictor": Faithful})
    )
