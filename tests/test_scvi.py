"""scVI: what its predictor draws, and that it draws the same again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panelbench.contract import tasks
from panelbench.method import Selection, Task
from panelbench.ranking import gene_variances
from panelbench.registry import discover

METHOD = discover().methods["scvi"]


def needs_library() -> None:
    pytest.importorskip("scvi", reason="needs the library scvi-tools: pip install scvi-tools")


@pytest.fixture(scope="module")
def task() -> Task:
    return tasks.make_task(METHOD)


@pytest.fixture(scope="module")
def found(task: Task) -> Selection:
    needs_library()
    return METHOD.select(task, METHOD.params(max_epochs=60))


def test_it_keeps_all_genes_by_variance(task: Task, found: Selection) -> None:
    assert not METHOD.cut and METHOD.reconstructs and not METHOD.supervised
    variances = dict(zip(task.genes.tolist(), gene_variances(task.X), strict=True))
    order = [variances[gene] for gene in found.ranking]
    assert len(order) == task.n_genes and order == sorted(order, reverse=True)


def test_loss_falls(found: Selection) -> None:
    losses = found.info["loss"]
    assert len(losses) == 60 and losses[-1] < 0.9 * losses[0]


def test_draws_are_counts_like_those_of_the_cells(task: Task, found: Selection) -> None:
    X = task.dense()
    drawn = found.predictor.reconstruct(X)
    assert drawn.shape == X.shape and (drawn >= 0).all() and (drawn == drawn.round()).all()
    # A sample, not a mean: it spreads about as widely as the counts do.
    assert np.corrcoef(X.mean(axis=0), drawn.mean(axis=0))[0, 1] > 0.9
    assert 0.5 < np.median(drawn.var(axis=0)[:50] / X.var(axis=0)[:50]) < 3
    depth = np.corrcoef(X.sum(axis=1), drawn.sum(axis=1))[0, 1]
    assert depth > 0.4, "deep cells stay deep"


def test_draws_are_the_same_again_and_after_loading(task: Task, found: Selection) -> None:
    X = task.dense()
    first = found.predictor.reconstruct(X)
    assert np.array_equal(first, found.predictor.reconstruct(X))
    assert np.array_equal(first, METHOD.predictor.load(*found.predictor.save()).reconstruct(X))


def test_training_depends_on_the_seed_alone(task: Task) -> None:
    needs_library()

    def drawn(seed: int) -> np.ndarray:
        found = METHOD.select(replace(task, seed=seed), METHOD.params(max_epochs=2))
        return np.asarray(found.predictor.reconstruct(task.dense()))

    np.random.seed(1)  # noqa: NPY002
    first = drawn(0)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first, drawn(0))
    assert not np.array_equal(first, drawn(1))


def test_other_genes_than_its_own_are_refused(task: Task, found: Selection) -> None:
    with pytest.raises(ValueError, match="60 genes"):
        found.predictor.reconstruct(task.dense()[:, :5])


def test_epochs_shrink_for_many_cells(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library's own rule: 400 for up to 20,000 cells, then inversely."""
    needs_library()
    from panelbench.methods import scvi

    monkeypatch.setattr(scvi, "_FULL_EPOCHS", 15)
    assert len(METHOD.select(task, METHOD.params(max_epochs=30)).info["loss"]) == 3
