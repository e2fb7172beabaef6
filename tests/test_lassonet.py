"""LassoNet: the library's path, its tie-breaking, its validation cells, planted genes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from panelbench.contract import tasks
from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task
from panelbench.registry import discover

pytest.importorskip("lassonet", reason="needs the library lassonet: pip install lassonet")

from panelbench.methods import lassonet

from tests.planted import columns, planted

METHOD = discover().methods["lassonet"]
SHORT: dict[str, Any] = {
    "hidden": (10,), "path_multiplier": 1.2, "dense_epochs": 100, "path_epochs": 20
}  # fmt: skip


def run(task: Task, **params: Any) -> Selection:
    return lassonet.select(task, lassonet.Params(**SHORT | params))


@pytest.fixture(scope="module")
def task() -> Task:
    return planted(shift=1.5, n_cells=400, n_genes=40)


@pytest.fixture(scope="module")
def found(task: Task) -> Selection:
    return run(task)


def library(task: Task, train: np.ndarray, validation: np.ndarray) -> Any:
    """The library's own run from the same first weights, with its own first penalty."""
    import torch
    from lassonet import LassoNetClassifier

    model = LassoNetClassifier(
        hidden_dims=SHORT["hidden"],
        path_multiplier=SHORT["path_multiplier"],
        n_iters=(SHORT["dense_epochs"], SHORT["path_epochs"]),
        device="cpu",
        verbose=0,
        torch_seed=task.int_seed("network"),
    )
    X, y = task.dense(), task.target.values
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        model.path(X[train], y[train], X_val=X[validation], y_val=y[validation])
    torch.set_num_threads(threads)
    return model


@pytest.mark.slow
def test_path_is_the_librarys(task: Task) -> None:
    """Same penalties, the first one included, and the same ranking up to ties."""
    held_out = np.arange(task.n_cells) % 8 == 0
    task = replace(task, validation=held_out)
    found = run(task)
    model = library(task, np.flatnonzero(~held_out), np.flatnonzero(held_out))
    assert found.info["path"]["lambda"] == [step.lambda_ for step in model.path_]
    assert found.info["path"]["validation_loss"] == [step.val_loss for step in model.path_]
    importances = model.feature_importances_.numpy()
    assert np.array_equal(np.asarray(found.scores), importances[columns(found)])
    assert (np.diff(importances[columns(found)]) <= 0).all()


@pytest.mark.parametrize("scale", [0.005, 0.02, 0.1])
def test_first_penalty_is_the_librarys(scale: float) -> None:
    import torch
    from lassonet.model import LassoNet

    rng = np.random.default_rng(0)
    model = LassoNet(30, 10, 4)
    with torch.no_grad():
        for weight in (model.skip.weight, model.layers[0].weight):
            weight.copy_(torch.tensor(scale * rng.normal(size=weight.shape), dtype=torch.float32))
    assert lassonet.lambda_start(model, 10.0) == model.lambda_start(M=10.0)


def test_planted_genes_stay_longest(found: Selection) -> None:
    assert set(columns(found, 10)) == set(range(10))


def test_path_runs_until_no_gene_is_left(task: Task, found: Selection) -> None:
    path = found.info["path"]
    assert path["genes"][0] == task.n_genes and path["genes"][-1] == 0
    assert len({len(values) for values in path.values()}) == 1
    steps = np.asarray(path["lambda"][1:])
    assert np.allclose(steps[1:] / steps[:-1], SHORT["path_multiplier"])
    # A gene's score is the penalty at which it left.
    assert set(np.asarray(found.scores)) <= set(np.float32(path["lambda"]).astype(np.float64))


def test_genes_that_leave_together_are_ordered_by_their_weights_before(task: Task) -> None:
    """One step so steep that many genes leave at once: position must not decide."""
    found = run(task, path_multiplier=3.0)
    first, size = 0, len(set(np.asarray(found.scores).tolist()))
    assert size < 8
    last = np.asarray(found.scores)[first]
    together = [g for g, score in zip(columns(found), found.scores, strict=True) if score != last]
    assert together != sorted(together)
    # The planted genes have the larger weights.
    assert len(set(columns(found, 10)) & set(range(10))) >= 9


@pytest.mark.parametrize("k", [1, tasks.N_CLASSES - 1, 50])
def test_panels_have_exactly_k_genes(k: int) -> None:
    found = METHOD.select(tasks.make_task(METHOD, k=k), tasks.quick_params(METHOD))
    assert len(set(list(found.ranking)[:k])) == k


def test_validation_cells_are_not_trained_on(task: Task) -> None:
    """With both trainings run to their end, they change the losses and nothing else."""
    held_out = np.arange(task.n_cells) % 8 == 0
    X = np.array(task.X)
    X[held_out] = np.random.default_rng(1).normal(size=X[held_out].shape)
    endless = {"dense_epochs": 30, "path_epochs": 3, "path_multiplier": 1.5}
    plain = run(replace(task, validation=held_out), **endless)
    other = run(replace(task, validation=held_out, X=X), **endless)
    assert list(plain.ranking) == list(other.ranking)
    losses = [found.info["path"]["validation_loss"] for found in (plain, other)]
    assert losses[0] != losses[1]


def test_cells_are_set_aside_where_the_split_has_none(task: Task) -> None:
    train, validation, _ = lassonet._parts(task, lassonet.Params())
    assert len(validation) == 40 and sorted([*train, *validation]) == list(range(400))
    again = lassonet._parts(replace(task, seed=1), lassonet.Params())
    assert list(again[1]) != list(validation)


def test_a_class_of_validation_cells_alone_is_left_out(task: Task) -> None:
    held_out = np.zeros(task.n_cells, bool)
    held_out[task.target.values == 4] = True
    held_out[:20] = True
    train, validation, codes = lassonet._parts(replace(task, validation=held_out), METHOD.params())
    values = task.target.values
    assert set(values[train]) == {0, 1, 2, 3} == set(codes[train]) and 4 not in values[validation]
    held_out[:20] = False
    train, validation, _ = lassonet._parts(replace(task, validation=values == 4), lassonet.Params())
    assert np.array_equal(train, validation), "the training cells stand in"


def test_one_class_is_explained() -> None:
    alone = tasks.cell_type(np.zeros(tasks.N_CELLS, np.int64))
    with pytest.raises(NotApplicable, match="same class"):
        run(tasks.make_task(METHOD, target=alone))
