"""The wiring between the stages: who gets which cells, labels, seeds, panels and predictors.

Everything here runs in this process: the stages are called as a worker calls them, and the
executor is given a worker that does as the test says.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import re
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest

from panelbench import registry
from panelbench.data.catalogue import own_data
from panelbench.data.specs import DatasetSpec, SplitSpec
from panelbench.errors import Fault, MethodError, NotApplicable
from panelbench.evaluator import Cells, Evaluation
from panelbench.method import Method, NoParams, Selection, Target, Task
from panelbench.records.cache import Entry, StageCache
from panelbench.records.claims import Claims, holder
from panelbench.records.keys import digest
from panelbench.records.provenance import usable_cores
from panelbench.records.status import Status
from panelbench.records.store import Address, Record, Store
from panelbench.registry import discover, discover_evaluators
from panelbench.running import processes, supervisor, worker
from panelbench.running.executor import Executor
from panelbench.running.jobs import (
    Attempt,
    Done,
    Exited,
    Order,
    PrepareJob,
    Resources,
    RunJob,
    Started,
    decode_reply,
)
from panelbench.running.progress import Reporter
from panelbench.running.settings import Settings
from panelbench.running.states import States
from panelbench.running.supervisor import Outcome, Worker
from panelbench.schema import parse
from panelbench.stages import toolbox
from panelbench.stages.evaluation import at_hand, score_panel
from panelbench.stages.fold import Fold, fit_fold
from panelbench.stages.panel import panel_digest
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion
from panelbench.stages.selection import outputs, resolve_device, saved_predictor, select_panel
from panelbench.stages.task import Labels, build_task, target, with_noise
from panelbench.stages.toolbox import Meter, Toolbox
from panelbench.suite import plan as planning
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request, read_panel
from panelbench.suite.runs import EvaluateRun, Plan, SelectRun
from panelbench.suite.specs import SuiteSpec
from tests.tools import IN_ORDER, method_source, write_h5ad

GENES = 40
MISSING = 15
"""Cells without a cell type."""
SPY = '''
"""A method that says what it was given, and a predictor that knows its columns."""

from dataclasses import dataclass

import numpy as np

from panelbench.method import Selection, Task, method


class Columns:
    """Predicts class 1 by the first of its genes, which are in no order."""

    def __init__(self, genes, mark):
        self.genes, self.mark = genes, mark

    def predict_proba(self, task, X):
        p = 1 / (1 + np.exp(-np.asarray(X[:, 0], dtype=np.float64) - self.mark))
        return np.stack([1 - p, p, 0 * p], axis=1)

    def in_mode(self, name):
        return Columns(self.genes[:1], self.mark) if name == "hard" else self

    def save(self):
        return {"mark": np.array([self.mark])}, {"genes": list(self.genes)}

    @classmethod
    def load(cls, arrays, facts):
        return cls(facts["genes"], float(arrays["mark"][0]))


@dataclass(frozen=True)
class Params:
    shift: float = 0.0


@method("spy", params=Params, supervised=True, nested=True, needs="lognorm", predictor=Columns)
def select(task, params):
    """Rank genes backwards."""
    given = {
        "sum": float(task.dense().sum()),
        "labels": task.target.values,
        "validation": None if task.validation is None else np.flatnonzero(task.validation),
        "seed": task.seed,
        "k": task.k,
        "n_jobs": task.n_jobs,
        "groups": task.groups,
    }
    ranking = task.genes[::-1].tolist()
    return Selection(ranking, predictor=Columns(ranking[: task.k], params.shift), info=given)
'''


@dataclass
class Lab:
    """A prepared data set with a fold, and what the stages need beside a question."""

    spec: DatasetSpec
    cells: anndata.AnnData
    fold: Fold
    methods: Path
    cache: Path
    prepared: Path

    def tools(self, **more: Any) -> Toolbox:
        given: dict[str, Any] = {"methods_dirs": (self.methods,), "n_jobs": 3}
        return Toolbox(self.spec, [self.cells.copy()], self.cache, **(given | more))

    def select(self, **changes: Any) -> SelectQuestion:
        given: dict[str, Any] = {"tasks": (self.spec.tasks[0],), "k": 5, "seed": 1, "params": {}}
        return SelectQuestion(fold="fold", method="spy", **(given | changes))

    def evaluate(self, **changes: Any) -> EvaluateQuestion:
        given: dict[str, Any] = {
            "evaluator": "rf", "params": {"n_estimators": 3}, "task": self.spec.tasks[0], "k": 5,
            "seed": 1,
        }  # fmt: skip
        return EvaluateQuestion(select="select", fold="fold", **(given | changes))

    def labels(self, rows: np.ndarray) -> Target:
        """True labels of some cells."""
        names = tuple(self.cells.obs["cell_type"].cat.categories)
        return target(self.cells[rows], Labels("cell_type", "classification", names))

    def given(self, question: EvaluateQuestion, **more: Any) -> Evaluation:
        """What an evaluator receives."""
        evaluator = discover_evaluators().get(question.evaluator)
        params = evaluator.params(**question.params)
        return at_hand(question, self.tools(**{"selection": _record(), **more}), evaluator, params)


def _record(attempt: str = "a1", genes: int = 8, **result: Any) -> Record:
    ranking = [f"g{i}" for i in range(genes)]
    return Record(
        "select", Address("own", "spy", "select"), attempt, "q", Status.OK,
        result={"ranking": ranking, **result},
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    adata = anndata.read_h5ad(write_h5ad(folder / "own.h5ad", genes=GENES))
    types = adata.obs["cell_type"].astype(object)
    types.iloc[np.random.default_rng(0).choice(len(types), MISSING, replace=False)] = None
    adata.obs["cell_type"] = types.astype("category")
    adata.write_h5ad(folder / "own.h5ad")
    spec = own_data(folder / "own.h5ad", ["cell_type", "state"], group="donor")
    spec = spec.model_copy(update={"split": SplitSpec(test=0.2, validation=0.1)})
    prepared = folder / "prepared" / "own.h5ad"
    prepare(spec, prepared, folder / "downloads")
    cells = load(prepared)
    (folder / "methods").mkdir()
    (folder / "methods" / "spy.py").write_text(SPY)
    fold = fit_fold(cells, spec, 1)
    return Lab(spec, cells, fold, folder / "methods", folder / "cache", prepared)


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
    method = SimpleNamespace(predictor=predictor)
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
    record = replace(_record(), result=done.result)
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
    record = replace(_record(), result=done.result)
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
    done = score_panel(lab.evaluate(k=4), lab.tools(selection=_record("a7")))
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


def test_memory_is_that_of_the_family_shared_pages_by_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = [SimpleNamespace(full=70, share=30), SimpleNamespace(full=50, share=20)]
    monkeypatch.setattr(processes, "descendants", lambda pid: family)
    monkeypatch.setattr(processes, "_resident", lambda process: process.full)
    monkeypatch.setattr(processes, "_proportional", lambda process: process.share)
    assert processes.memory_held(1, limit=200) == 120, "the cheap sum will do"
    assert processes.memory_held(1, limit=100) == 50, "the exact one where it matters"
    assert supervisor._over(1, 5.0, None, 49) is not None
    assert supervisor._over(1, 5.0, None, 50) is None


# -- how a run ends ------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no room"), Status.OOM),
        (OutOfMemoryError("CUDA"), Status.OOM),
        (NotApplicable("not for this"), Status.SKIPPED),
        (Fault("the file is gone"), Status.FAULT),
        (OSError(28, "No space left on device"), Status.FAULT),
        (OSError(2, "No such file"), Status.FAILED),
        (MethodError("rubbish"), Status.FAILED),
        (IndexError("out of range"), Status.FAILED),
        (SystemExit(3), Status.FAILED),
    ],
)
def test_an_exception_has_a_status(error: BaseException, status: Status) -> None:
    found, reason = worker.classify(error)
    assert found is status and str(error).split("]")[-1].strip() in reason


def test_a_process_that_ends_without_a_word_has_a_status(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("last words")
    ends = {
        Exited(-signal.SIGKILL, memory_ran_out=True): (Status.OOM, "ran out of memory"),
        Exited(-signal.SIGKILL): (Status.FAULT, "killed from outside"),
        Exited(-signal.SIGSEGV): (Status.FAILED, "SIGSEGV\nlast words"),
        Exited(3): (Status.FAILED, "exit code 3"),
    }
    for exited, (status, said) in ends.items():
        found, reason = supervisor._crash(exited, log)
        assert found is status and said in reason


@pytest.mark.parametrize(
    ("held", "time_limit", "status"),
    [(99, None, Status.OOM), (0, 0.0, Status.TIMEOUT), (0, 60.0, Status.FAULT)],
)
def test_what_is_stopped_at_a_limit_says_so_and_not_that_it_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    time_limit: float | None,
    status: Status,
) -> None:
    monkeypatch.setattr(processes, "memory_held", lambda pid, limit: held)
    stopped: list[int] = []
    monkeypatch.setattr(processes, "stop_descendants", stopped.append)
    one = Worker(1)
    one._process = SimpleNamespace(pid=7, poll=lambda: None)  # type: ignore[assignment]
    said: Iterator[list[Any]] = iter([[Started(8)], [], [], [Exited(-signal.SIGKILL)]])
    monkeypatch.setattr(one, "_replies", lambda: next(said))
    monkeypatch.setattr(supervisor, "_stuck", lambda child, over: None)
    job = replace(_job(tmp_path), resources=Resources(1, "cpu", time_limit, 10))
    outcome = one._watch(job, lambda fraction, message: None, tmp_path / "log")
    assert outcome.status is status
    assert stopped == ([] if status is Status.FAULT else [7])


# -- in the process of a run ---------------------------------------------------------------


def _job(results: Path, **changes: Any) -> RunJob:
    given: dict[str, Any] = {
        "question": SelectQuestion("fold", "spy", {}, (), 5, 1),
        "place": Attempt("own", "spy", "k" * 8, "a2"),
        "stage": "select",
        "question_digest": "q",
        "identity": {"source": "s"},
        "asked": {"k": 5},
        "spec": DatasetSpec(id="own", title="own", reader="h5ad"),
        "prepared": results / "own.h5ad",
        "results": results,
        "cache": results / "cache",
        "cache_key": "key-5",
        "resources": Resources(2, "cpu", None, None),
    }
    return RunJob(**(given | changes))


def _do(lab: Lab, results: Path, job: RunJob) -> Any:
    order = Order(job, results / "scratch", results / "log")
    return worker.do_run(order, job, [lab.cells.copy()], lambda reply: None)


def _select_job(lab: Lab, results: Path, **changes: Any) -> RunJob:
    source = discover([lab.methods]).source_digest("spy")
    given = {"question": lab.select(), "spec": lab.spec, "methods_dirs": (lab.methods,),
             "identity": {"source": source}}  # fmt: skip
    return _job(results, **(given | changes))


def test_a_run_writes_its_record_where_it_was_told_to(lab: Lab, tmp_path: Path) -> None:
    job = _select_job(lab, tmp_path)
    done = _do(lab, tmp_path, job)
    assert (done.status, done.recorded, done.cached) == (Status.OK, True, False), done
    (record,) = Store(tmp_path)
    assert (record.address, record.attempt) == (Address("own", "spy", "k" * 8), "a2")
    assert record.result["ranking"][0] == "g39" and record.question == "q"
    assert Store(tmp_path).arrays(record)["mark"].tolist() == [0.0]
    assert record.outside["from_cache"] is False and record.started < record.ended


def test_the_cache_answers_for_the_same_key_only(lab: Lab, tmp_path: Path) -> None:
    place = Attempt("own", "spy", "k" * 8, "a3")
    _do(lab, tmp_path, _select_job(lab, tmp_path))
    again = _do(lab, tmp_path, _select_job(lab, tmp_path, place=place))
    other = _do(lab, tmp_path, _select_job(lab, tmp_path, place=place, cache_key="key-9"))
    assert (again.cached, other.cached) == (True, False)


def test_a_run_of_other_code_than_was_planned_is_no_result(lab: Lab, tmp_path: Path) -> None:
    done = _do(lab, tmp_path, _select_job(lab, tmp_path, identity={"source": "of yesterday"}))
    assert done.status is Status.FAULT and "method spy was changed" in done.reason
    stage = {"panelbench.stages.selection": "of yesterday"}
    done = _do(lab, tmp_path, _select_job(lab, tmp_path, code=stage))
    assert done.status is Status.FAULT and "stages.selection was changed" in done.reason


def test_an_evaluation_reads_the_attempt_that_it_is_told_to(lab: Lab, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for attempt, mark in (("a1", 1.0), ("a2", 2.0), ("a3", 3.0)):
        record = _record(attempt, genes=int(mark) + 3)
        store.write(replace(record, address=Address("own", "spy", "s")), {"mark": np.array([mark])})
    wanted = Attempt("own", "spy", "s", "a2")
    job = _job(tmp_path, question=lab.evaluate(), selection=wanted)
    tools = worker._toolbox(Order(job, tmp_path, tmp_path), job, [], lambda reply: None)
    assert tools.selection is not None and tools.selection.attempt == "a2"
    assert tools.arrays()["mark"].tolist() == [2.0]
    gone = replace(job, selection=replace(wanted, attempt="a9"))
    with pytest.raises(Fault, match="not there any more"):
        worker._toolbox(Order(gone, tmp_path, tmp_path), gone, [], lambda reply: None)


def test_preparing_fits_the_folds_that_are_missing(lab: Lab, tmp_path: Path) -> None:
    job = PrepareJob(
        lab.spec, tmp_path / "p.h5ad", tmp_path / "facts.json", tmp_path / "cache",
        tmp_path / "downloads", (), {"one": 1, "four": 4},
    )  # fmt: skip
    first = worker.do_prepare(job, [], lambda reply: None)
    assert (first.status, first.cached) == (Status.OK, False), first
    assert json.loads(job.facts.read_text())["cells"] == 120
    assert worker.do_prepare(job, [], lambda reply: None).cached
    tools = Toolbox(lab.spec, [], job.cache)
    assert np.array_equal(tools.fold("one", 1).test, lab.fold.test)
    assert np.array_equal(tools.fold("four", 4).test, fit_fold(lab.cells, lab.spec, 4).test)
    # The matrix is made again when it is gone, whatever the cache says.
    job.prepared.unlink()
    assert not worker.do_prepare(job, [], lambda reply: None).cached and job.prepared.exists()


def test_prepared_data_that_cannot_be_read_are_not_held(lab: Lab, tmp_path: Path) -> None:
    held, path = worker._Held(), tmp_path / "p.h5ad"
    path.write_bytes(lab.prepared.read_bytes()[:3000])
    held.read(path)
    assert held.problem and not held.cells
    path.write_bytes(lab.prepared.read_bytes())
    held.read(path)
    assert not held.problem and held.cells[0].n_obs == 120


def test_a_torn_entry_of_the_cache_is_made_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    cache.get("s", "k", lambda: Entry({"made": 1}))
    assert ("s", "k") in cache and cache.get("s", "k", lambda: Entry({"made": 2})).facts[
        "made"
    ] == 1
    (path,) = tmp_path.rglob("output.npz")
    path.write_bytes(path.read_bytes()[:40])
    assert ("s", "k") not in cache
    assert cache.get("s", "k", lambda: Entry({"made": 3})).facts["made"] == 3
    assert cache.get("s", "k", lambda: Entry({"made": 4})).facts["made"] == 3


def test_a_child_tells_that_the_data_are_damaged(tmp_path: Path) -> None:
    held, order = worker._Held(), Order(_job(tmp_path), tmp_path, tmp_path / "log")
    held.read(tmp_path / "there is no such file")
    reading, writing = os.pipe()
    pid, me = 0, os.getpid()
    pid = os.fork()
    if not pid:
        try:
            worker._child(order, held, writing, me)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        started, done = [decode_reply(line) for line in pipe.read().splitlines()]
    assert started == Started(pid)
    assert isinstance(done, Done) and (done.status, done.damaged) == (Status.FAULT, True)


# -- what is planned -----------------------------------------------------------------------

METHODS = '''
"""Methods of a plan."""
from panelbench.method import Selection, method

@method("nested", supervised=True)
def nested(task, params): ...

@method("exact", supervised=True, nested=False, minutes=7, memory_gb=2)
def exact(task, params): ...

class Network: ...

@method("several", supervised=True, multitask=True, predictor=Network, modes=("soft", "hard"))
def several(task, params): ...

@method("whole", cut=False)
def whole(task, params): ...
'''
SUITE: dict[str, Any] = {
    "name": "t",
    "datasets": [{"dataset": "own", "tasks": ["cell_type"]}],
    "methods": ["nested", "exact", "whole"],
    "ks": [4, 8],
    "seeds": [0, 1],
    "evaluators": ["rf", "knn"],
}


@pytest.fixture(scope="module")
def planned(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    folder = tmp_path_factory.mktemp("planned")
    (folder / "several.py").write_text(METHODS)
    registry = discover([folder])

    def made(shard: tuple[int, int] | None = None, **changes: Any) -> Plan:
        suite = parse(SuiteSpec, {**SUITE, **changes}, "test")
        return make_plan(suite, {"own": lab.spec}, registry, lambda spec: "sum", shard=shard)

    return made


def test_seeds_sizes_and_folds_of_a_plan(planned: Callable[..., Plan]) -> None:
    plan = planned()
    selected = {(r.method, r.question.k, r.question.seed) for r in plan.selections}
    assert selected == {
        *(("nested", 8, seed) for seed in (0, 1)),
        *(("exact", k, seed) for k in (4, 8) for seed in (0, 1)),
        *(("whole", 8, seed) for seed in (0, 1)),
    }  # fmt: skip
    (dataset,) = plan.datasets
    for run in plan.selections:
        assert run.question.fold == dataset.fold_key(run.seed)
    scored = {(r.select.method, r.k, r.question.seed, r.evaluator) for r in plan.evaluations}
    sizes = {"nested": (4, 8), "exact": (4, 8), "whole": (None,)}
    assert scored == {
        (method, k, seed, evaluator)
        for method, ks in sizes.items()
        for k in ks
        for seed in (0, 1)
        for evaluator in ("rf", "knn")
    }
    for evaluation in plan.evaluations:
        question, select = evaluation.question, evaluation.select
        assert question.fold == select.question.fold and question.select == select.key
        assert question.seed == select.seed
        assert select.method != "exact" or question.k == select.k


def test_noise_of_a_plan_is_where_the_suite_wants_it(planned: Callable[..., Plan]) -> None:
    plan = planned(noise={"fractions": [0, 0.2], "variants": ["both", "select"]}, seeds=[0], ks=[4])
    for run in plan.selections:
        assert run.noise in ((0.0,) if run.method == "whole" else (0.0, 0.2))
    nested = [(r.select.noise, r.question.noise) for r in plan.evaluations
              if (r.select.method, r.evaluator) == ("nested", "rf")]  # fmt: skip
    assert sorted(nested) == [(0.0, 0.0), (0.2, 0.0), (0.2, 0.2)]


def test_shards_share_the_work_and_do_each_run_once(planned: Callable[..., Plan]) -> None:
    whole = planned()
    for stage in ("selections", "evaluations"):
        parts = [[run.key for run in getattr(planned(shard=(i, 3)), stage)] for i in range(3)]
        assert sorted(itertools.chain(*parts)) == sorted(run.key for run in getattr(whole, stage))
        assert all(parts)


def test_keys_hold_the_code_and_the_libraries_that_each_stage_uses(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, lab: Lab
) -> None:
    monkeypatch.setattr(planning, "code_digest", lambda *names: json.dumps(names))
    monkeypatch.setattr(planning, "library_versions", lambda names: dict.fromkeys(names, "1"))
    plan = planned(methods=["exact"])
    (dataset,), run, evaluation = plan.datasets, plan.selections[0], plan.evaluations[0]
    reader = "panelbench.data.readers.h5ad"
    assert json.loads(dataset.identity["code"]) == ["panelbench.stages.preprocess", [reader]]
    assert {"anndata", "numpy", "scanpy"} <= set(dataset.identity["libraries"])
    assert json.loads(dataset.fold_identity["code"]) == ["panelbench.stages.fold", []]
    assert {"scikit-learn", "scikit-misc"} == set(dataset.fold_identity["libraries"])
    assert json.loads(run.identity["code"]) == ["panelbench.stages.selection", []]
    assert json.loads(evaluation.identity["code"]) == ["panelbench.stages.evaluation", []]
    evaluator = discover_evaluators().get(evaluation.evaluator)
    assert set(evaluation.identity["libraries"]) == set(evaluator.libraries) != set()
    found = discover_evaluators().source_digest(evaluation.evaluator)
    assert evaluation.identity["source"] == found
    for each, identity in ((run, run.identity), (evaluation, evaluation.identity)):
        assert each.key == digest(dict(identity))
    assert dataset.identity["source"] == "sum" and dataset.fold_identity["prep"] == dataset.key


def test_libraries_of_a_method_are_in_its_key() -> None:
    suite = parse(SuiteSpec, {**SUITE, "datasets": ["pbmc68k-reduced"], "methods": ["mrmr-f"],
                              "seeds": [0]}, "test")  # fmt: skip
    from panelbench.data.catalogue import find_catalogue, load_catalogue

    catalogue = load_catalogue(find_catalogue(None))
    (run, *_) = make_plan(suite, catalogue, discover(), lambda spec: "a").selections
    wanted = discover().get("mrmr-f").libraries
    assert wanted and set(run.identity["libraries"]) == set(wanted)


def test_the_source_of_a_method_is_in_its_key(tmp_path: Path, lab: Lab) -> None:
    keys = set()
    for text in (SPY, SPY, SPY.replace("[::-1]", "[::1]"), SPY.replace("1 / (1", "1 / (2")):
        (tmp_path / "spy.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("panelbench_extra_")]:
            del sys.modules[name]
        suite = parse(SuiteSpec, {**SUITE, "methods": ["spy"], "seeds": [0]}, "test")
        plan = make_plan(suite, {"own": lab.spec}, discover([tmp_path]), lambda spec: "sum")
        (run,) = plan.selections
        keys.add(run.key)
    assert len(keys) == 3


def test_a_question_is_of_its_data_set(planned: Callable[..., Plan]) -> None:
    first, second = (
        planned(datasets=[{"dataset": "own", "tasks": ["cell_type"], "split": {"test": share}}])
        for share in (0.2, 0.3)
    )
    for stage in ("selections", "evaluations"):
        questions = [{run.question_digest for run in getattr(p, stage)} for p in (first, second)]
        assert not questions[0] & questions[1]


def test_tasks_are_selected_for_at_once_or_one_by_one(planned: Callable[..., Plan]) -> None:
    two = [{"dataset": "own", "tasks": ["cell_type", "state"]}]
    plan = planned(datasets=two, methods=["nested", "several", "whole"], seeds=[0])
    tasks = {(run.method, run.tasks) for run in plan.selections}
    both = ("cell_type", "state")
    assert tasks == {
        ("nested", both[:1]), ("nested", both[1:]), ("several", both), ("whole", ()),
    }  # fmt: skip
    scored = {(run.select.method, run.task.name) for run in plan.evaluations}
    assert scored == {(m, task) for m in ("nested", "several", "whole") for task in both}


def test_a_predictor_is_scored_in_each_of_its_modes(planned: Callable[..., Plan]) -> None:
    plan = planned(methods=["several", "nested"], evaluators=["builtin"], seeds=[0], ks=[4])
    found = [(run.select.method, run.question.params["mode"]) for run in plan.evaluations]
    assert found == [("several", ""), ("several", "hard")]


# -- where runs stand ----------------------------------------------------------------------


def _write(store: Store, run: SelectRun | EvaluateRun, attempt: str, **changes: Any) -> Record:
    ranking = [f"g{i}" for i in range(8)]
    result: dict[str, Any] = {"ranking": ranking}
    if isinstance(run, EvaluateRun):
        result = {"metrics": {}, "panel": panel_digest(ranking[: run.k])}
    given: dict[str, Any] = {
        "stage": run.stage, "address": run.address, "attempt": attempt,
        "question": run.question_digest, "status": Status.OK, "identity": dict(run.identity),
        "asked": run.asked, "result": result,
    }  # fmt: skip
    record = Record(**(given | changes))
    store.write(record)
    return record


def _runs(plan: Plan, method: str = "nested") -> tuple[SelectRun, EvaluateRun]:
    select = next(run for run in plan.selections if run.method == method)
    return select, next(run for run in plan.evaluations if run.select is select)


def test_a_score_of_another_panel_is_stale(planned: Callable[..., Plan], tmp_path: Path) -> None:
    store, (select, evaluate) = Store(tmp_path), _runs(planned())
    states = States(store)
    assert states.of(evaluate).status is Status.WAITING
    _write(store, select, "a1")
    assert (states.of(select).status, states.of(evaluate).due) == (Status.DONE, True)
    _write(store, evaluate, "a1")
    assert (states.of(evaluate).status, states.of(evaluate).due) == (Status.DONE, False)
    _write(store, select, "a2", result={"ranking": [f"g{i}" for i in range(8)][::-1]})
    state = states.of(evaluate)
    assert (state.status, state.due, state.why) == (Status.STALE, True, "the panel has changed")


def test_failures_stand_until_they_are_to_be_retried(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, evaluate) = Store(tmp_path), _runs(planned())
    _write(store, select, "a1", status=Status.TIMEOUT, reason="too long", result={})
    for retry, due in ((frozenset(), False), ({"failed"}, False), ({"timeout"}, True)):
        states = States(store, frozenset(retry))
        assert (states.of(select).status, states.of(select).due) == (Status.TIMEOUT, due)
        inherited = states.of(evaluate)
        assert inherited.status is (Status.WAITING if due else Status.TIMEOUT)
        assert not inherited.due and inherited.inherited
    # What the machine did to a run is done again without being asked.
    _write(store, select, "a2", status=Status.FAULT, reason="disk full", result={})
    assert States(store).of(select).due
    # One that went well counts, whatever came after it.
    _write(store, select, "a3")
    _write(store, select, "a4", status=Status.FAILED, result={})
    assert States(store, frozenset({"failed"})).of(select).status is Status.DONE


def test_a_shorter_ranking_answers_for_fewer_genes_only(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    _write(store, select, "a1", asked={**select.asked, "k": 4}, result={"ranking": list("abcd")})
    state = States(store).of(select)
    assert (state.status, state.due) == (Status.TO_DO, True) and "fewer than 8" in state.why
    fewer = replace(select, question=replace(select.question, k=4))
    assert States(store).of(fewer).status is Status.DONE


def test_the_newest_of_stale_records_says_what_changed(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    for attempt, key, changes in (
        ("20260101", "b", {"version": 0, "source": "x"}),
        ("20260103", "a", {"source": "x"}),
        ("20260102", "c", {"libraries": {}}),
    ):
        _write(store, select, attempt, address=replace(select.address, key=key),
               identity={**select.identity, **changes})  # fmt: skip
    state = States(store).explain(select)
    assert (state.status, state.due) == (Status.STALE, True)
    assert state.why == "done before; since then changed: source"
    assert state.record is not None and state.record.attempt == "20260103"


def test_a_run_of_another_process_is_left_to_it(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    store, (select, _) = Store(tmp_path), _runs(planned())
    claims = Claims()
    claims.take(store.folder(select.address), "a1")
    assert States(store).of(select).status is Status.RUNNING
    assert States(store).select(select, claimed=True).due
    claims.close()
    assert States(store).of(select).status is Status.TO_DO
    problems = {select.dataset.file: "the source is gone"}
    state = States(store, problems=problems).of(select)
    assert (state.status, state.due, state.why) == (Status.NO_DATA, False, "the source is gone")


# -- what is done --------------------------------------------------------------------------


class Fake:
    """Stands for a worker: remembers its jobs, and ends them as the test says."""

    def __init__(self, *outcomes: Outcome, does: Callable[[Any], None] = lambda job: None) -> None:
        self.outcomes, self.does = list(outcomes), does
        self.jobs: list[Any] = []

    def run(self, job: Any, progress: Any) -> Outcome:
        self.jobs.append(job)
        self.does(job)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    def close(self) -> None: ...


def _executor(tmp_path: Path, fake: Fake, **settings: Any) -> Executor:
    given = {"results": tmp_path / "results", "cache": tmp_path / "cache", "jobs": 1, "quiet": True}
    executor = Executor(Settings(**(given | settings)))
    executor._all.append(fake)  # type: ignore[arg-type]
    executor._workers.put(fake)  # type: ignore[arg-type]
    return executor


OK = Outcome(Status.OK, recorded=True)


def test_jobs_say_what_their_runs_ask(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan, fake = planned(seeds=[1]), Fake(OK)
    executor = _executor(tmp_path, fake, device="cpu", methods_dirs=(tmp_path,))
    executor.select(plan)
    jobs = {(job.question.method, job.question.k): job for job in fake.jobs}
    assert len(fake.jobs) == len(jobs) == len(plan.selections)
    for run in plan.selections:
        job = jobs[run.method, run.k]
        assert job.question == run.question and job.identity == run.identity
        assert job.place.address == run.address and job.question_digest == run.question_digest
        assert job.asked == run.asked and job.spec == run.dataset.spec
        assert job.cache_key == f"{run.key}-{run.k}", "a longer ranking is another entry"
        assert job.prepared == tmp_path / "cache" / "prepared" / f"{run.dataset.file}.h5ad"
        assert job.code == {"panelbench.stages.selection": run.identity["code"]}
        assert job.methods_dirs == (tmp_path,) and job.resources.device == "cpu"
    exact = jobs["exact", 4].resources
    assert (exact.time_limit, exact.memory_limit) == (7 * 60, 2 * 1024**3), "as declared"
    assert len({job.place.attempt for job in fake.jobs}) == len(fake.jobs)
    limited = _executor(tmp_path / "other", again := Fake(OK), time_limit=5.0, memory_limit=9)
    limited.select(plan)
    assert {(j.resources.time_limit, j.resources.memory_limit) for j in again.jobs} == {(5.0, 9)}


def test_an_evaluation_is_of_the_newest_selection(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan, fake = planned(evaluators=["rf"]), Fake(OK)
    executor = _executor(tmp_path, fake)
    select, evaluate = _runs(plan)
    for attempt in ("a1", "a3", "a2"):
        _write(executor.store, select, attempt)
    executor.evaluate(replace(plan, evaluations=(evaluate,)))
    (job,) = fake.jobs
    assert job.question == evaluate.question and job.place.address == evaluate.address
    place = select.address
    assert job.selection == Attempt(place.dataset, place.method, place.key, "a3")
    panel = panel_digest([f"g{i}" for i in range(8)][: evaluate.k])
    assert job.cache_key == f"{evaluate.key}-{panel}"
    own = replace(evaluate, declared=replace(evaluate.declared, reads="predictor"))
    assert executor._evaluate_job(own, "a9").cache_key == f"{evaluate.key}-a3"


def test_a_run_that_could_not_write_its_record_is_recorded(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    fake = Fake(Outcome(Status.OOM, "too much", seconds=2.0))
    executor = _executor(tmp_path, fake)
    (run,) = plan.selections
    folder, held = executor.store.folder(run.address), []
    fake.does = lambda job: held.append(holder(folder))
    summary = executor.select(plan)
    assert summary.outcomes == {Status.OOM: 1}
    (record,) = executor.store.attempts(run.address)
    assert (record.status, record.reason) == (Status.OOM, "too much")
    assert record.attempt == fake.jobs[0].place.attempt
    assert record.identity == run.identity and record.asked == run.asked
    # The run was claimed while it went on, and is free again.
    assert held[0] is not None and held[0].attempt == record.attempt
    assert holder(folder) is None
    # It stands, until it is to be done again.
    assert executor.select(plan).ran == 0 and len(fake.jobs) == 1
    retry = _executor(tmp_path, again := Fake(OK), retry=frozenset({"oom"}))
    retry.select(plan)
    assert len(again.jobs) == 1


def test_damaged_data_are_made_again_and_the_run_is_done(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[1], evaluators=[])
    damaged = Outcome(Status.FAULT, "cannot be read", damaged=True)
    fake = Fake(damaged, Outcome(Status.OK), OK)
    executor = _executor(tmp_path, fake)
    assert executor.select(plan).outcomes == {Status.OK: 1}
    first, prepare, second = fake.jobs
    (run,) = plan.selections
    assert isinstance(prepare, PrepareJob) and first == second
    assert prepare.folds == {run.dataset.fold_key(1): 1} and prepare.prepared == first.prepared


def test_a_damaged_file_is_made_again_once(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(methods=["nested"], seeds=[1, 2], evaluators=[])
    fake = Fake(Outcome(Status.FAULT, "cut short"), Outcome(Status.OK))
    executor = _executor(tmp_path, fake)
    path = executor.prepared(plan.datasets[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    assert executor.preprocess(plan).outcomes == {Status.OK: 1}
    assert len(fake.jobs) == 2 and not path.exists()
    (dataset,) = plan.datasets
    assert fake.jobs[0].folds == {dataset.fold_key(1): 1, dataset.fold_key(2): 2}


def test_a_failure_overwrites_no_facts(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned(seeds=[0])
    executor = _executor(tmp_path, Fake(Outcome(Status.NO_DATA, "the source is gone")))
    path = executor.facts(plan.datasets[0])
    executor.preprocess(plan)
    assert json.loads(path.read_text()) == {"problem": "the source is gone"}
    assert executor.states.problems == {plan.datasets[0].file: "the source is gone"}
    path.write_text('{"cells": 3}')
    executor.preprocess(plan)
    assert json.loads(path.read_text()) == {"cells": 3}


def test_runs_that_were_done_meanwhile_are_not_done_again(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(OK))
    first, second = plan.selections

    def other_process(job: Any) -> None:
        for run in (first, second):
            _write(executor.store, run, "a1")

    fake.does = other_process
    summary = executor.select(plan)
    assert len(fake.jobs) == 1 and (summary.ran, summary.done_before) == (1, 1)
    mine = _executor(tmp_path / "elsewhere", fake := Fake(OK))
    claims = Claims()
    claims.take(mine.store.folder(first.address), "a1")
    summary = mine.select(plan)
    claims.close()
    assert len(fake.jobs) == 1 and (summary.ran, summary.running) == (1, 1)


def test_a_run_that_ends_while_it_is_claimed_is_not_done_again(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(OK))
    (run,) = plan.selections
    take = executor._claims.take

    def late(folder: Path, attempt: str) -> bool:
        _write(executor.store, run, "a1")
        return take(folder, attempt)

    monkeypatch.setattr(executor._claims, "take", late)
    summary = executor.select(plan)
    assert not fake.jobs and (summary.ran, summary.done_before) == (0, 1)


def test_a_record_is_written_once(planned: Callable[..., Plan], tmp_path: Path) -> None:
    """Whatever a worker says of its end: the record of the run itself stays."""
    plan = planned(methods=["nested"], seeds=[0], evaluators=[])
    executor = _executor(tmp_path, fake := Fake(Outcome(Status.FAULT, "the worker was silent")))
    (run,) = plan.selections
    fake.does = lambda job: _write(executor.store, run, job.place.attempt) and None
    executor.select(plan)
    (record,) = executor.store.attempts(run.address)
    assert record.status is Status.OK


def test_limits_that_are_asked_for_go_before_those_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panelbench import api

    class Stop(Exception): ...

    def stopped(settings: Settings) -> None:
        found.append((settings.time_limit, settings.memory_limit))
        raise Stop

    found: list[Any] = []
    monkeypatch.setattr(api, "Executor", stopped)
    suite = {**SUITE, "datasets": ["pbmc68k-reduced"], "methods": ["random"],
             "limits": {"time": "1m", "memory": "1G"}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(suite))
    for limits in ({}, {"time_limit": 5.0, "memory_limit": 7}):
        settings = Settings(tmp_path, tmp_path, **limits)  # type: ignore[arg-type]
        with pytest.raises(Stop):
            api.perform(Request(suite=str(tmp_path / "s.yaml")), settings)
    assert found == [(60.0, 1024**3), (5.0, 7)]


# -- what is asked for ---------------------------------------------------------------------


def test_options_replace_parts_of_a_suite(tmp_path: Path) -> None:
    forest = {"method": "rf-importance", "params": {"n_estimators": 7}}
    suite = {**SUITE, "methods": [forest, "random"], "ks": [4, 8], "seeds": [0, 1]}
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(suite))
    whole = Request(suite=str(path)).resolve()
    assert whole.ks == (4, 8) and whole.seeds == (0, 1) and whole.name == "t"
    part = Request(suite=str(path), seed=[5], sets={"rf-importance.max_depth": 3}).resolve()
    assert (part.seeds, part.ks, part.name) == ((5,), (4, 8), "t-part")
    assert {m.method: dict(m.params) for m in part.methods} == {
        "rf-importance": {"n_estimators": 7, "max_depth": 3}, "random": {},
    }  # fmt: skip
    other = Request(suite=str(path), method=["random"], k=[16], task=["state"]).resolve()
    assert [m.method for m in other.methods] == ["random"] and other.ks == (16,)
    assert other.datasets[0].tasks == ("state",)


def test_a_panel_file_is_read_by_rank(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = [(10, "last"), (2, "second"), (1, "first")]
    path.write_text("rank,gene\n" + "".join(f"{rank},{gene}\n" for rank, gene in rows))
    assert read_panel(path) == ["first", "second", "last"]


# -- plug-ins ------------------------------------------------------------------------------


def test_installed_packages_offer_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "methods_offered"
    folder.mkdir()
    (folder / "found.py").write_text(method_source("found", IN_ORDER))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("found", "methods_offered.found", "panelbench.methods")
    monkeypatch.setattr(registry, "_installed", lambda group: (point,) * (group == point.group))
    assert discover().get("found").module == "methods_offered.found"
    broken = EntryPoint("gone", "methods_offered.gone", "panelbench.methods")
    monkeypatch.setattr(registry, "_installed", lambda group: (broken,) * (group == point.group))
    assert "entry point gone" in discover().broken["gone"].place


def test_helpers_that_are_loaded_by_name_belong_to_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "helpers_of_found.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "methods").mkdir()
    source = method_source("found", IN_ORDER, 'helpers=("helpers_of_found",)')
    (tmp_path / "methods" / "found.py").write_text(source)
    digests = set()
    for number in (1, 2, 2):
        helper.write_text(f"NUMBER = {number}\n")
        importlib.invalidate_caches()
        digests.add(discover([tmp_path / "methods"]).source_digest("found"))
    assert len(digests) == 2


def test_another_text_of_a_broken_method_is_another_method(tmp_path: Path) -> None:
    digests = set()
    for number in (1, 2):
        text = f"import there_is_no_such_module_{number}\n" + method_source("broken", IN_ORDER)
        (tmp_path / "broken.py").write_text(text)
        digests.add(discover([tmp_path]).source_digest("broken"))
    assert len(digests) == 2


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


def test_cores_are_those_that_the_scheduler_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert usable_cores() == 6
    for name in names:
        with monkeypatch.context() as inside:
            inside.setenv(name, "3")
            assert usable_cores() == 3
            assert Settings(Path(), Path()).n_workers == 3
            assert Settings(Path(), Path(), jobs=2).n_jobs == 1
            inside.setenv(name, "64")
            assert usable_cores() == 6, "no more than this process may use"
            for nonsense in ("", "0", "all", "-2"):
                inside.setenv(name, nonsense)
                assert usable_cores() == 6
    assert Settings(Path(), Path(), jobs=2).n_jobs == 3


# -- progress ------------------------------------------------------------------------------


def test_a_log_gets_a_line_for_each_run() -> None:
    stream = io.StringIO()
    with Reporter("select", 3, stream) as reporter:
        reporter.update("one", 0.5, "half way")
        reporter.done("one", Status.OK, 1.25)
        reporter.done("two", Status.FAILED, 2.0, "ValueError: sad\nTraceback")
        reporter.done("three", Status.OK, 0.0, cached=True)
    assert stream.getvalue().splitlines() == [
        "[1/3] one: ok, 1.2 s",
        "[2/3] two: failed (ValueError: sad), 2.0 s",
        "[3/3] three: restored, 0.0 s",
    ]


def test_a_terminal_gets_bars_and_lines_of_what_went_wrong() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Reporter("evaluate", 2, stream) as reporter:
        reporter.update("one [b]", 0.5, "epoch [3]")
        assert reporter._bars is not None
        assert [task.description for task in reporter._bars.tasks] == [
            "evaluate", "  one [b] epoch [3]",
        ]  # fmt: skip
        reporter.done("one [b]", Status.OK, 1.0)
        reporter.done("two [b]", Status.TIMEOUT, 3.0, "too long")
        (whole,) = reporter._bars.tasks
        assert (whole.completed, whole.total) == (2, 2)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "[2/2] two [b]: timeout (too long), 3.0 s" in said
    assert "[1/2]" not in said


def test_nothing_is_said_where_nothing_is_to_do_or_nobody_listens() -> None:
    stream = io.StringIO()
    for total, quiet in ((0, False), (1, True)):
        with Reporter("select", total, stream, quiet=quiet) as reporter:
            reporter.done("one", Status.OK, 1.0)
    assert stream.getvalue() == ""
