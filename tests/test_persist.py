"""PERSIST as a method: panels of exactly k genes, two readings of one network, honest records."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from panelbench.methods import persist

from panelbench.errors import InputError, MethodError, NotApplicable
from panelbench.method import Selection, Target, Task, frozen_mapping

PLANTED = 4


def planted(
    seed: int = 0, n_genes: int = 50, n_cells: int = 2000, k: int = 8, **given: Any
) -> Task:
    """Fair coins; the first four give 16 classes; then every entry is flipped with p = 0.05.

    The genes have random columns, so that no order favours the planted ones: see `columns`.
    """
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2, (n_cells, n_genes))
    codes = X[:, :PLANTED] @ 2 ** np.arange(PLANTED)
    X = X ^ (rng.random(X.shape) < 0.05)
    order = rng.permutation(n_genes)
    X = X[:, order].astype(np.float32)
    X.setflags(write=False)
    target = Target("class", "classification", codes, tuple(f"c{i}" for i in range(16)))
    options: dict[str, Any] = {
        "X": X,
        "genes": np.array([f"g{i:03d}" for i in order]),
        "targets": frozen_mapping({"class": target}),
        "k": k,
        "seed": seed,
    }
    return Task(**(options | given))


TRUE = {f"g{i:03d}" for i in range(PLANTED)}


def run(task: Task, **params: Any) -> Selection:
    quick: dict[str, Any] = {"select_epochs": 4, "eliminate_epochs": 4, "hidden": (64,)}
    return persist.select(task, persist.Params(**(quick | params)))


def predicted(selection: Selection, task: Task, mode: str, X: np.ndarray | None = None) -> Any:
    """Class probabilities of the predictor in a mode, for the task's cells."""
    assert isinstance(selection.predictor, persist.PersistPredictor)
    reader = selection.predictor.in_mode(mode)
    place = {gene: column for column, gene in enumerate(task.genes.tolist())}
    values = np.asarray(task.X if X is None else X)[:, [place[gene] for gene in reader.genes]]
    return reader.predict_proba("class", values)


def part(task: Task, cells: slice) -> Task:
    """Some of a task's cells."""
    target = replace(task.target, values=task.target.values[cells])
    X = np.ascontiguousarray(np.asarray(task.X)[cells])
    return replace(task, X=X, targets=frozen_mapping({"class": target}))


def hard_accuracy(selection: Selection, task: Task) -> float:
    found = predicted(selection, task, "hard").argmax(axis=1)
    return float((found == task.target.values).mean())


@pytest.fixture(scope="module")
def whole() -> Task:
    return planted(n_cells=2500)


@pytest.fixture(scope="module")
def task(whole: Task) -> Task:
    return part(whole, slice(2000))


@pytest.fixture(scope="module")
def selection(task: Task) -> Selection:
    return run(task, lr=1e-2, select_epochs=40)


def test_planted_genes_are_found_and_predict(whole: Task, selection: Selection) -> None:
    assert set(list(selection.ranking)[:PLANTED]) == TRUE
    # The ceiling is 0.95 ** 4 = 0.815.
    assert hard_accuracy(selection, part(whole, slice(2000, None))) > 0.7


def test_ranking_is_by_probability(selection: Selection) -> None:
    kept = len(selection.ranking) - selection.info["refilled"]
    assert len(selection.ranking) == 8
    scores = np.asarray(selection.scores)
    assert (np.diff(scores[:kept]) <= 0).all()
    assert (scores > 0).all() and (scores <= 1).all()


def test_soft_reads_all_genes_and_hard_the_panel(task: Task, selection: Selection) -> None:
    predictor = selection.predictor
    assert isinstance(predictor, persist.PersistPredictor)
    assert list(predictor.genes) == task.genes.tolist()
    assert list(predictor.in_mode("hard").genes) == list(selection.ranking)
    assert predictor.in_mode("hard").in_mode("soft").genes == predictor.genes
    with pytest.raises(ValueError, match="soft and hard"):
        predictor.in_mode("half")


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_predictor_survives_saving(task: Task, selection: Selection, mode: str) -> None:
    predictor = selection.predictor
    assert isinstance(predictor, persist.PersistPredictor)
    arrays, facts = predictor.save()
    twin = persist.PersistPredictor.load(arrays, json.loads(json.dumps(facts)))
    np.testing.assert_array_equal(
        predicted(selection, task, mode), predicted(replace(selection, predictor=twin), task, mode)
    )
    assert list(twin.in_mode(mode).genes) == list(predictor.in_mode(mode).genes)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_a_prediction_depends_on_its_cell_alone(
    task: Task, selection: Selection, mode: str
) -> None:
    whole = predicted(selection, task, mode)
    some = replace(task, X=np.asarray(task.X)[100:107])
    np.testing.assert_allclose(predicted(selection, some, mode), whole[100:107], atol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=1), 1)


def test_predictor_refuses_what_it_cannot_read(selection: Selection) -> None:
    predictor = selection.predictor
    assert isinstance(predictor, persist.PersistPredictor)
    with pytest.raises(ValueError, match="8 genes"):
        predictor.in_mode("hard").predict_proba("class", np.zeros((2, 50)))
    with pytest.raises(ValueError, match="no task"):
        predictor.predict_proba("other", np.zeros((2, 50)))


@pytest.mark.parametrize("preselected", [(), ("g030", "g007")])
def test_hard_predictor_equals_the_whole_network_with_the_hard_mask(
    task: Task, preselected: tuple[str, ...]
) -> None:
    """With and without preselected genes; genes outside the panel change no bit."""
    selection = run(task, preselected=preselected)
    predictor = selection.predictor
    assert isinstance(predictor, persist.PersistPredictor)
    mask = np.zeros(len(predictor.columns))
    mask[predictor.chosen] = 1
    hidden = np.asarray(task.X)[:, predictor.columns] * mask
    for depth, (weight, bias) in enumerate(predictor.layers):
        hidden = (np.maximum(hidden, 0) if depth else hidden) @ weight + bias
    whole = np.exp(hidden - hidden.max(axis=1, keepdims=True))
    whole /= whole.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predicted(selection, task, "hard"), whole, atol=1e-5)

    panel = np.isin(task.genes, list(selection.ranking))
    noisy = np.where(panel, task.X, 1 - np.asarray(task.X))
    np.testing.assert_array_equal(
        predicted(selection, task, "hard"), predicted(selection, task, "hard", noisy)
    )


def test_preselected_genes_head_the_ranking_and_count_within_k(task: Task) -> None:
    found = run(task, preselected=("g030", "g007"), target=20, max_trials=1)
    assert list(found.ranking)[:2] == ["g030", "g007"]
    assert len(set(found.ranking)) == 8
    assert not {"g030", "g007"} & set(found.info["rows"])
    assert isinstance(found.predictor, persist.PersistPredictor)
    assert (found.predictor.masks[:, :2] == 1).all()


@pytest.mark.parametrize(
    "names", [("nobody",), ("g001", "g001"), tuple(f"g{i:03d}" for i in range(8))]
)
def test_impossible_preselections_are_named(task: Task, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="preselected"):
        run(task, preselected=names)


def test_same_seed_same_bits_and_another_seed_differs(task: Task) -> None:
    first, again = (run(task, target=20, max_trials=1) for _ in range(2))
    other = run(replace(task, seed=1), target=20, max_trials=1)
    assert list(first.ranking) == list(again.ranking) != list(other.ranking)
    assert list(first.scores) == list(again.scores)
    assert dict(first.info) == dict(again.info)
    for mode in ("soft", "hard"):
        np.testing.assert_array_equal(predicted(first, task, mode), predicted(again, task, mode))


def test_threads_and_global_generators_are_left_alone(task: Task) -> None:
    import torch

    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run(task)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_class_without_training_cells_keeps_its_column(task: Task) -> None:
    target = replace(task.target, classes=(*task.target.classes, "unseen"))
    found = run(replace(task, targets=frozen_mapping({"class": target})), select_epochs=1)
    assert predicted(found, task, "soft").shape == (2000, 17)


def test_info_tells_what_happened(selection: Selection) -> None:
    info = selection.info
    json.dumps(info, allow_nan=False)
    assert info["steps"] == info["epochs"] * (2000 // 64)
    assert info["unique"] + info["refilled"] == 8 == len(info["rows"])
    assert info["lambda"] == [] and info["fallback"] == "none"
    assert len(info["curves"]["loss"]) == len(info["curves"]["repaired"]) == info["epochs"]
    assert info["accuracy_on"] == "training cells"
    gap = info["train_accuracy_hard"] - info["train_accuracy_soft"]
    assert info["hard_minus_soft"] == pytest.approx(gap, abs=1e-5)
    assert "8000" in info["warning"]


def test_elimination_leaves_a_trace(task: Task) -> None:
    found = run(task, target=20, eliminate_epochs=1, max_trials=2)
    assert found.info["lambda"][0] == [1e-4, 50]
    assert found.info["fallback"] in ("none", "bisection", "nearest")
    assert 8 <= found.info["candidates"] <= 24


@pytest.mark.parametrize("target", [0, 45, 50, 500])
def test_nothing_is_eliminated_where_the_target_is_as_good_as_all(task: Task, target: int) -> None:
    found = run(task, target=target, select_epochs=1)
    assert found.info["lambda"] == []
    assert found.info["candidates"] == 50


@pytest.mark.parametrize(
    ("k", "n_genes", "target"), [(50, 500, 0), (8, 1000, 0), (8, 1002, 500), (100, 10_000, 1000)]
)
def test_default_target(k: int, n_genes: int, target: int) -> None:
    assert persist.elimination_target(k, n_genes) == target


def test_strict_fails_where_rows_agree(task: Task) -> None:
    many = replace(task, k=40)
    found = run(many, select_epochs=1)
    assert len(set(found.ranking)) == 40
    assert found.info["refilled"] == 40 - found.info["unique"] > 0
    with pytest.raises(MethodError, match="select_epochs"):
        run(many, select_epochs=1, strict=True)


def test_validation_cells_decide_nothing(task: Task) -> None:
    held_out = np.zeros(task.n_cells, dtype=bool)
    held_out[::5] = True
    marked = replace(task, validation=held_out)
    assert list(run(marked).scores) == list(run(task).scores)
    apart = run(marked, validate=True)
    assert apart.info["accuracy_on"] == "validation cells"
    assert len(apart.info["curves"]["validation loss"]) == apart.info["epochs"]
    swapped = np.array(task.target.values)
    swapped[held_out] = swapped[held_out][::-1]
    other = replace(task.target, values=swapped)
    blind = run(replace(marked, targets=frozen_mapping({"class": other})), validate=True)
    assert list(blind.scores) == list(apart.scores)


def test_a_target_below_the_panel_is_explained(task: Task) -> None:
    with pytest.raises(InputError, match="target = 3: elimination must leave the 8 genes"):
        run(task, target=3)


def test_progress_never_goes_back(task: Task) -> None:
    told: list[float] = []
    run(
        replace(task, progress=lambda fraction, text: told.append(fraction)),
        target=20,
        max_trials=1,
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def modules(n_cells: int = 1500, seed: int = 0, **given: Any) -> Task:
    """Counts of 40 genes: four switches turn on six genes each, 16 genes are noise."""
    rng = np.random.default_rng(seed)
    on = rng.integers(0, 2, (n_cells, 4))
    rates = np.full((n_cells, 40), 0.7)
    rates[:, :24] = np.repeat(np.where(on, 3.0, 0.02), 6, axis=1)
    counts = rng.poisson(rates).astype(np.float32)
    return Task(
        **{
            "X": np.log1p(counts),
            "genes": np.array([f"g{i:02d}" for i in range(40)]),
            "targets": frozen_mapping({}),
            "k": 4,
            "seed": seed,
            "counts": counts,
        }
        | given
    )


def unsupervised(task: Task, **params: Any) -> Selection:
    quick: dict[str, Any] = {"select_epochs": 30, "hidden": (64,), "lr": 1e-2}
    return persist.select_unsupervised(task, persist.UnsupParams(**(quick | params)))


@pytest.mark.parametrize("loss", ["hurdle", "mse"])
def test_one_gene_of_each_module_explains_the_others(loss: str) -> None:
    found = unsupervised(modules(), loss=loss)
    groups = sorted(int(gene[1:]) // 6 for gene in found.ranking)
    assert groups == [0, 1, 2, 3]
    assert found.predictor is None


def test_detection_comes_from_counts_or_from_what_is_not_scaled() -> None:
    task = modules(300)
    scaled = (task.X - np.asarray(task.X).mean(axis=0)).astype(np.float32)
    plain = unsupervised(task, select_epochs=2)
    assert list(unsupervised(replace(task, counts=None), select_epochs=2).scores) == list(
        plain.scores
    )
    unsupervised(replace(task, X=scaled), select_epochs=2)
    with pytest.raises(NotApplicable, match="counts"):
        unsupervised(replace(task, X=scaled, counts=None))


def test_sparse_and_dense_input_give_the_same_bits(task: Task) -> None:
    from scipy.sparse import csr_matrix

    assert list(run(task).scores) == list(run(replace(task, X=csr_matrix(task.X))).scores)
    counted = modules(300)
    sparse = replace(counted, X=csr_matrix(counted.X), counts=csr_matrix(counted.counts))
    dense = unsupervised(counted, select_epochs=2)
    assert list(dense.scores) == list(unsupervised(sparse, select_epochs=2).scores)


@pytest.mark.slow
def test_planted_genes_are_found_with_every_seed() -> None:
    """At k = 8, with a classifier near the ceiling of 0.815 on other cells."""
    for seed in range(8):
        task = planted(seed, n_cells=2500)
        found = run(part(task, slice(2000)), lr=3e-3, select_epochs=60)
        assert set(found.ranking) >= TRUE, seed
        assert hard_accuracy(found, part(task, slice(2000, None))) > 0.7, seed
