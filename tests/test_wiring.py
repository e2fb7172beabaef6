"""The wiring of the stages: who gets which cells, labels, seeds, panels and predictors."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panelbench.errors import MethodError, NotApplicable
from panelbench.evaluator import Cells, Evaluation
from panelbench.method import Method, NoParams, Selection, Target, Task
from panelbench.registry import discover
from panelbench.stages import toolbox
from panelbench.stages.evaluation import score_panel
from panelbench.stages.fold import fit_fold
from panelbench.stages.panel import panel_digest
from panelbench.stages.selection import outputs, resolve_device, saved_predictor, select_panel
from panelbench.stages.task import Labels, build_task, with_noise
from panelbench.stages.toolbox import Meter
from tests.lab import GENES, Lab, selected

# -- select --------------------------------------------------------------------------------


def _seen(lab: Lab, part: np.ndarray) -> np.ndarray:
    """Cells of a part that have the label."""
    return part[lab.labels(part).observed]


def test_a_method_is_given_all_training_cells_and_no_other(lab: Lab) -> None:
    tools = lab.tools()
    done = select_panel(lab.select(), tools)
    rows = _seen(lab, np.sort(np.concatenate([lab.fold.train, lab.fold.validation])))
    info = done.result["info"]
    assert done.result["cells"] == len(rows) > 80 and done.result["genes"] == GENES
    assert info["sum"] == pytest.approx(float(lab.cells.X[rows].sum()), rel=1e-5)
    assert info["labels"] == lab.labels(rows).values.tolist()
    assert info["groups"] == lab.cells.obs["group"].iloc[rows].tolist()
    assert not tools.cells, "the process of a selection holds no test cell any more"
    assert (info["seed"], info["k"], info["n_jobs"]) == (1, 5, 3)


def test_the_validation_mask_marks_the_validation_cells(lab: Lab) -> None:
    info = select_panel(lab.select(), lab.tools()).result["info"]
    rows = _seen(lab, np.sort(np.concatenate([lab.fold.train, lab.fold.validation])))
    assert 0 < len(info["validation"]) < len(rows) / 2
    assert rows[info["validation"]].tolist() == _seen(lab, lab.fold.validation).tolist()


def test_a_fold_is_the_seeds_and_kept_under_its_key(lab: Lab, tmp_path: Path) -> None:
    tools = replace(lab.tools(), cache=tmp_path)
    fold = tools.fold("one", 7)
    assert np.array_equal(fold.test, fit_fold(lab.cells, lab.spec, 7).test)
    assert not np.array_equal(fold.test, lab.fold.test)
    assert np.array_equal(tools.fold("one", 1).test, fold.test), "the key decides"
    assert np.array_equal(tools.fold("two", 1).test, lab.fold.test)


def test_noise_reaches_the_labels_of_a_selection(lab: Lab) -> None:
    rows = np.sort(np.concatenate([lab.fold.train, lab.fold.validation]))
    noisy = select_panel(lab.select(noise=0.5), lab.tools()).result["info"]["labels"]
    truth = lab.labels(rows)
    assert noisy != truth.values[truth.observed].tolist()
    assert noisy == with_noise(truth, 0.5, 1).values[truth.observed].tolist()


def test_noise_is_of_the_seed_and_of_the_task() -> None:
    labels = Target("a", "classification", np.arange(200) % 4, tuple("wxyz"))
    drawn = with_noise(labels, 0.5, 0).values
    assert np.array_equal(drawn, with_noise(labels, 0.5, 0).values)
    assert not np.array_equal(drawn, with_noise(labels, 0.5, 1).values)
    assert not np.array_equal(drawn, with_noise(replace(labels, name="b"), 0.5, 0).values)
    # Of 100 labels that are drawn anew from four classes, a quarter stay what they were.
    assert 60 <= (drawn != labels.values).sum() <= 90
    gaps = replace(labels, values=np.where(np.arange(200) < 100, -1, labels.values))
    assert (with_noise(gaps, 1.0, 0).values[:100] == -1).all()


def test_what_a_method_is_given_cannot_be_written_into(lab: Lab) -> None:
    method = discover([lab.methods]).get("spy")
    for dense in (False, True):
        cells = lab.fold.take(lab.cells, lab.fold.train)
        if dense:
            cells.X, cells.layers["counts"] = cells.X.toarray(), cells.layers["counts"].toarray()
        task = build_task(cells, method, [Labels("cell_type", "classification", ("type 0",))],
                          k=3, seed=0)  # fmt: skip
        for matrix in (task.X, task.counts):
            parts = [matrix] if dense else [matrix.data, matrix.indices, matrix.indptr]  # type: ignore[union-attr]
            for part in parts:
                with pytest.raises(ValueError, match="read-only"):
                    part[0] = 1


def test_random_numbers_are_of_the_seed_and_of_the_purpose_for_good() -> None:
    """Pinned: another stream would change results that records say are of the same seed."""
    task = Task(np.ones((2, 2), np.float32), np.array(["a", "b"]), {}, k=1, seed=3)
    assert (task.int_seed("split"), task.int_seed("mask")) == (1435134584, 891307100)
    given = Evaluation(
        (), *(2 * [Cells(task.genes, Target("t", "regression", np.ones(2)), None)]), 3
    )  # type: ignore[arg-type]
    assert given.int_seed("split") == 1435134584
    assert given.rng("split").random() == task.rng("split").random()
    expected = np.random.default_rng(np.random.SeedSequence([3, zlib.crc32(b"split")]))
    assert task.rng("split").random() == expected.random()
    assert task.int_seed("split") != replace(task, seed=4).int_seed("split")


@pytest.mark.parametrize("needs", ["counts", "lognorm", "binary", "prepared"])
def test_a_method_gets_the_representation_that_it_needs(lab: Lab, needs: Any) -> None:
    cells = lab.fold.take(lab.cells, lab.fold.train)
    method = Method("m", lambda task, params: Selection([]), __name__, needs=needs)
    counts, X = cells.layers["counts"].toarray(), cells.X.toarray()
    wanted = {"counts": counts, "binary": (counts > 0) * 1.0}.get(needs, X)
    task = build_task(cells, method, [], k=3, seed=0)
    assert task.dense().dtype == np.float32 and np.array_equal(task.dense(), wanted)
    assert task.counts is not None and np.array_equal(task.counts.toarray(), counts)


def test_more_genes_than_there_are_fail_before_the_method_runs(lab: Lab) -> None:
    with pytest.raises(MethodError, match="k = 41, but only 40 genes"):
        select_panel(lab.select(k=GENES + 1), lab.tools())


# -- predictors ----------------------------------------------------------------------------


class Spy:
    """A predictor that remembers what it was asked, and may be wrong in several ways."""

    genes = ("g2", "g0", "g1")

    def __init__(self, row: tuple[float, ...] = (0.25, 0.75), twin: Spy | None = None) -> None:
        self.row, self.twin = row, twin
        self.asked: list[np.ndarray] = []

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        self.asked.append(X)
        return np.tile(np.array(self.row), (len(X), 1))

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        raise AssertionError

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {}, {}

    def load(self, arrays: Any, facts: Any) -> Spy:
        return self.twin or self


def _saved(predictor: Spy) -> Any:
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    labels = Target("t", "classification", np.zeros(4, np.int64), ("a", "b"))
    task = Task(X, np.array(["g0", "g1", "g2"]), {"t": labels}, k=2, seed=0)
    method = SimpleNamespace(predictor=predictor, reads="genes")
    found = Selection(["g0", "g1"], predictor=predictor)
    return saved_predictor(found, task, method)  # type: ignore[arg-type]


def test_a_predictor_is_tried_on_its_own_columns() -> None:
    spy = Spy()
    _, stored = _saved(spy)
    assert stored["genes"] == ["g2", "g0", "g1"]
    assert spy.asked[0].tolist() == [[2, 0, 1], [5, 3, 4], [8, 6, 7], [11, 9, 10]]


def test_a_predictor_that_saving_changes_is_refused() -> None:
    with pytest.raises(MethodError, match="changes when saved and loaded"):
        _saved(Spy(twin=Spy((0.5, 0.5))))


@pytest.mark.parametrize("row", [(0.25, 0.5), (0.9, 0.2), (-0.5, 1.5), (0.2, 0.3, 0.5)])
def test_what_is_no_probability_is_refused(row: tuple[float, ...]) -> None:
    with pytest.raises(MethodError, match=r"probabilities|gave \(4, 3\)"):
        _saved(Spy(row))
    labels = Target("t", "classification", np.zeros(2, np.int64), ("a", "b"))
    with pytest.raises(MethodError):
        outputs(Spy(row), labels, np.ones((2, 3), np.float32))


def test_what_is_scored_is_the_predictor_of_the_selection_on_its_columns(lab: Lab) -> None:
    done = select_panel(lab.select(params={"shift": 0.5}), lab.tools())
    record = replace(selected(), result=done.result)
    question = lab.evaluate(evaluator="builtin", params={})
    given = lab.given(question, selection=record, arrays=lambda: done.arrays)
    genes = ["g39", "g38", "g37", "g36", "g35"]
    assert list(given.predictor.genes) == genes == list(given.panel)
    first = given.test.dense(["g39"])[:, 0]
    expected = 1 / (1 + np.exp(-first.astype(np.float64) - 0.5))
    np.testing.assert_allclose(given.predictor.predict(given.test)[:, 1], expected)


def test_a_selection_without_a_predictor_cannot_be_scored_by_it(lab: Lab) -> None:
    with pytest.raises(MethodError, match="left no predictor"):
        lab.given(lab.evaluate(evaluator="builtin", params={}))


def test_a_predictor_is_read_in_the_mode_that_is_asked_for(lab: Lab) -> None:
    done = select_panel(lab.select(), lab.tools())
    record = replace(selected(), result=done.result)
    question = lab.evaluate(evaluator="builtin", params={"mode": "hard"})
    given = lab.given(question, selection=record, arrays=lambda: done.arrays)
    assert given.predictor.genes == ("g39",)


# -- evaluate ------------------------------------------------------------------------------


def test_a_classifier_is_trained_on_all_but_the_test_cells(lab: Lab) -> None:
    given = lab.given(lab.evaluate())
    known = _seen(lab, np.sort(np.concatenate([lab.fold.train, lab.fold.validation])))
    for side, rows in ((given.train, known), (given.test, _seen(lab, lab.fold.test))):
        assert side.n_cells == len(rows)
        assert np.array_equal(side.target.values, lab.labels(rows).values)
        np.testing.assert_array_equal(side.dense(), lab.cells.X[rows].toarray())
        assert np.array_equal(side.groups, lab.cells.obs["group"].iloc[rows])
    assert given.train.n_cells > 3 * given.test.n_cells
    assert given.seed == 1 and given.n_jobs == 3
    assert given.train.X(["g3", "g1"]).toarray().tolist() == lab.cells[known, ["g3", "g1"]].X.toarray().tolist()  # fmt: skip  # noqa: E501


def test_a_panel_is_the_first_genes_and_all_for_none(lab: Lab) -> None:
    assert lab.given(lab.evaluate(k=3)).panel == ("g0", "g1", "g2")
    assert len(lab.given(lab.evaluate(k=None)).panel) == 8


def test_noise_is_in_the_training_labels_alone_and_the_same_as_in_the_selection(lab: Lab) -> None:
    clean, noisy = lab.given(lab.evaluate()), lab.given(lab.evaluate(noise=0.6))
    assert np.array_equal(clean.test.target.values, noisy.test.target.values)
    assert not np.array_equal(clean.train.target.values, noisy.train.target.values)
    selected = select_panel(lab.select(noise=0.6), lab.tools()).result["info"]["labels"]
    assert noisy.train.target.values.tolist() == selected


def test_a_score_says_what_it_is_of(lab: Lab) -> None:
    done = score_panel(lab.evaluate(k=4), lab.tools(selection=selected("a7")))
    result = done.result
    assert result["selection"] == "a7" and result["panel_size"] == result["genes_read"] == 4
    assert result["panel"] == panel_digest(["g0", "g1", "g2", "g3"])
    given = lab.given(lab.evaluate())
    assert (result["train_cells"], result["test_cells"]) == (
        given.train.n_cells,
        given.test.n_cells,
    )
    assert result["classes"] == ["type 0", "type 1", "type 2"]
    assert set(result["metrics"]) >= {"accuracy", "f1_macro"} and done.cost["seconds"] > 0


# -- what a run costs ----------------------------------------------------------------------


def test_peak_memory_is_that_of_the_run_and_of_its_largest_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peaks = {toolbox.resource.RUSAGE_SELF: 3 * 1024, toolbox.resource.RUSAGE_CHILDREN: 512}
    monkeypatch.setattr(toolbox.sys, "platform", "linux")
    monkeypatch.setattr(
        toolbox.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peaks[who])
    )
    cost = Meter(1.25, 2.5).measured({}, {}).cost
    assert cost == {
        "seconds": 1.25, "cpu_seconds": 2.5, "peak_memory_mb": 3.5, "gpu_memory_mb": None,
    }  # fmt: skip


# -- devices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "asked", "there", "device"),
    [
        ("no", "auto", True, "cpu"),
        ("no", "cuda", True, "cpu"),
        ("optional", "cpu", True, "cpu"),
        ("optional", "auto", True, "cuda"),
        ("optional", "cuda:1", True, "cuda:1"),
        ("required", "auto", True, "cuda"),
        ("optional", "auto", False, "cpu"),
        ("optional", "cuda", False, "torch finds none"),
        ("required", "auto", False, "torch finds none"),
        ("required", "cpu", True, "--device cpu was asked for"),
    ],
)
def test_a_method_runs_where_it_can(
    monkeypatch: pytest.MonkeyPatch, gpu: Any, asked: str, there: bool, device: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    method = Method("m", lambda task, params: Selection([]), __name__, NoParams, gpu=gpu)
    if device in ("cpu", "cuda", "cuda:1"):
        assert resolve_device(method, asked) == device
    else:
        with pytest.raises(NotApplicable, match=device):
            resolve_device(method, asked)
