"""No test cell can reach a method: replaced by NaN, they change nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panelbench.data.catalogue import own_data
from panelbench.data.specs import DatasetSpec, TaskSpec
from panelbench.method import Method, Selection
from panelbench.registry import discover
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.selection import labels_of
from panelbench.stages.task import build_task
from panelbench.stages.toolbox import Toolbox
from tests.tools import need_libraries, write_h5ad

METHODS = discover().methods
EXPRESSION = TaskSpec(name="genes", kind="expression", primary=4, panel=("g1", "g2", "g3"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Fold]:
    """A prepared data set whose genes are chosen, and scaled, on the training cells."""
    folder = tmp_path_factory.mktemp("leak")
    spec = own_data(write_h5ad(folder / "own.h5ad", cells=150), ["cell_type"], hvg=30)
    spec = spec.model_copy(update={"tasks": (*spec.tasks, EXPRESSION)})
    prepare(spec, folder / "prepared.h5ad", folder)
    cells = load(folder / "prepared.h5ad")
    return cells, spec, fit_fold(cells, spec, 0)


def _spoiled(cells: Any, fold: Fold) -> Any:
    """The same data set with NaN in every value of a test cell, and without its labels."""
    from scipy import sparse

    spoiled = cells.copy()
    for holder, name in [(None, "X"), *((spoiled.layers, n) for n in cells.layers)]:
        matrix = spoiled.X if holder is None else holder[name]
        dense = np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix).copy()
        dense[fold.test] = np.nan
        if holder is None:
            spoiled.X = sparse.csr_matrix(dense)
        else:
            holder[name] = sparse.csr_matrix(dense)
    return spoiled


def _select(cells: Any, fold: Fold, method: Method) -> Selection:
    tools = Toolbox(spec=DatasetSpec(id="own", reader="h5ad"), cells=[cells], cache=Path())
    tools.fold = lambda key, seed: fold  # type: ignore[method-assign]
    training, _ = tools.training_cells("", 0)
    assert tools.cells == [], "the whole data set is let go of before the method runs"
    task = EXPRESSION if method.expression else TaskSpec(name="cell_type")
    labels = labels_of(training, [task]) if method.supervised else []
    task = build_task(training, method, labels, k=5, seed=0, scratch=Path())
    assert task.n_cells == len(fold.train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method.select(task, _quick(method))


def _quick(method: Method) -> Any:
    """Parameters with few epochs: what leaks does so in the first."""
    params = method.params()
    few = {name: 2 for name in vars(params) if name.endswith("epochs")}
    return type(params)(**{**vars(params), **few})


@pytest.mark.parametrize("id", sorted(METHODS))
def test_test_cells_change_no_ranking(id: str, prepared: tuple[Any, Any, Fold]) -> None:
    need_libraries(METHODS[id])
    cells, _, fold = prepared
    clean = _select(cells, fold, METHODS[id])
    blind = _select(_spoiled(cells, fold), fold, METHODS[id])
    assert list(clean.ranking) == list(blind.ranking)
    if clean.scores is not None:
        assert np.array_equal(np.asarray(clean.scores), np.asarray(blind.scores))


def test_genes_and_scaling_are_fitted_on_training_cells(prepared: tuple[Any, Any, Fold]) -> None:
    cells, spec, fold = prepared
    blind = fit_fold(_spoiled(cells, fold), spec, 0)
    assert fold.genes is not None and blind.genes is not None
    assert np.array_equal(fold.genes, blind.genes)


def test_train_and_test_share_no_cell(prepared: tuple[Any, Any, Fold]) -> None:
    _, _, fold = prepared
    parts = [fold.train, fold.validation, fold.test]
    together = np.concatenate(parts)
    assert len(together) == len(set(together.tolist())) == 150


def test_the_leak_test_can_fail(prepared: tuple[Any, Any, Fold]) -> None:
    """A method that sees other cells than its own gets caught."""
    cells, _, fold = prepared
    method = METHODS["random"]

    def peeking(task: Any, params: Any) -> Selection:
        totals = np.asarray(cells_seen.X.sum(axis=0)).ravel()[: task.n_genes]
        order = np.argsort(-np.nan_to_num(totals, nan=-1.0), kind="stable")
        return Selection(ranking=task.genes[order].tolist())

    leaky = SimpleNamespace(
        **{name: getattr(method, name) for name in vars(method)} | {"select": peeking}
    )
    cells_seen = cells
    clean = _select(cells, fold, leaky)  # type: ignore[arg-type]
    cells_seen = _spoiled(cells, fold)
    blind = _select(cells_seen, fold, leaky)  # type: ignore[arg-type]
    assert list(clean.ranking) != list(blind.ranking)
