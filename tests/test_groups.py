"""Runs that a method does together: which, how each ends, what each is given, and the limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.method import Method, Selection
from panelbench.records.claims import holder
from panelbench.records.status import Status
from panelbench.records.store import Record, Store
from panelbench.registry import discover
from panelbench.running import child, groups
from panelbench.running.executor import Executor
from panelbench.running.groups import groups_of
from panelbench.running.jobs import Attempt, GroupJob, Order, Resources, RunJob
from panelbench.running.settings import Settings
from panelbench.running.supervisor import INTERRUPTED, Outcome
from panelbench.stages.selection import select_panel, select_panels
from panelbench.suite.runs import Plan
from tests.lab import Lab, planner
from tests.tools import Bench

CROWD = '''
"""A method that does several runs together."""
import os
from dataclasses import dataclass
from panelbench.method import Selection, method

@dataclass(frozen=True)
class Params:
    rate: float = 0.1
    depth: int = 1

def select_many(tasks, params):
    if len(tasks) > 1 and any(task.seed == 1 and task.k == 8 for task in tasks):
        os._exit(7)
    return [one(task, len(tasks)) for task in tasks]

def one(task, count):
    assert not (task.seed == 1 and task.k == 8), "this one is bad"
    mean = task.dense().mean(axis=0)
    # A lambda's scores would tell who was with it: what is kept of a run must not.
    return Selection(task.genes[(-mean).argsort(kind="stable")].tolist(), info={"seed": task.seed})

@method("crowd", params=Params, supervised=True, nested=False, minutes=3, memory_gb=1,
        gpu="optional", together=select_many, differ=("rate",))
def select(task, params):
    """Rank genes by their mean."""
    return one(task, 1)
'''


@pytest.fixture
def crowded(lab: Lab, tmp_path: Path) -> Callable[..., Plan]:
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "crowd.py").write_text(CROWD)
    made = planner(folder, lab)

    def plan(**changes: Any) -> Plan:
        return made(**({"methods": ["crowd"], "evaluators": [], "seeds": [0, 1, 2]} | changes))

    return plan


def _settings(tmp_path: Path, **given: Any) -> Settings:
    fixed = {"results": tmp_path / "results", "cache": tmp_path / "cache", "jobs": 1, "quiet": True}
    return Settings(**(fixed | given))


# -- which runs are done together ----------------------------------------------------------


def _sizes(plan: Plan, settings: Settings, facts: Path = Path("none")) -> list[int]:
    found = groups_of(plan.selections, settings, lambda dataset: facts)
    assert sorted(r.key for part in found for r in part) == sorted(r.key for r in plan.selections)
    return [len(part) for part in found]


def test_runs_of_one_method_on_one_data_set_are_done_together(
    crowded: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = crowded()
    assert _sizes(plan, _settings(tmp_path)) == [1] * 6, "alone on a CPU, if nothing is said"
    assert _sizes(plan, _settings(tmp_path, together=8)) == [6]
    assert _sizes(plan, _settings(tmp_path, together=4)) == [3, 3]
    assert _sizes(plan, _settings(tmp_path, together=8, jobs=3)) == [2, 2, 2], "all workers"
    assert _sizes(crowded(methods=["nested"]), _settings(tmp_path, together=8)) == [1] * 3


def test_parameters_that_must_be_equal_divide_groups(crowded: Callable[..., Plan]) -> None:
    methods = [
        {"method": "crowd", "params": {"rate": rate, "depth": depth}}
        for rate in (0.1, 0.2)
        for depth in (1, 2)
    ]
    plan = crowded(methods=methods, seeds=[0])
    found = groups_of(plan.selections, _settings(Path(), together=8), lambda dataset: Path("none"))
    assert [len(part) for part in found] == [4, 4]
    for part in found:
        assert len({run.question.params["depth"] for run in part}) == 1
        assert len({run.question.params["rate"] for run in part}) == 2


def test_a_gpu_is_filled_as_far_as_it_has_room(
    crowded: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, facts = crowded(), tmp_path / "facts.json"
    facts.write_text(json.dumps({"cells": 1000, "genes": 1000}))
    monkeypatch.setattr(groups, "gpu_memory", lambda: 64 * 10**6)  # half of it holds two
    assert _sizes(plan, _settings(tmp_path, jobs=4), facts) == [2, 2, 2]
    assert _sizes(plan, _settings(tmp_path, jobs=4, together=6), facts) == [6]
    assert _sizes(plan, _settings(tmp_path, jobs=4, device="cpu"), facts) == [1] * 6


def test_what_may_differ_are_parameters() -> None:
    with pytest.raises(ValueError, match="are not all parameters"):
        Method("x", lambda task, params: Selection([]), __name__, differ=("rate",))


# -- how each ends -------------------------------------------------------------------------


class Machine:
    """Stands for a worker: a group ends well unless a run in it is bad, and records its runs."""

    def __init__(self, store: Store, bad: set[str], outcome: Outcome) -> None:
        self.store, self.bad, self.outcome = store, bad, outcome
        self.jobs: list[RunJob | GroupJob] = []
        self.held: list[bool] = []

    def run(self, job: Any, progress: Any) -> Outcome:
        self.jobs.append(job)
        runs = job.runs if isinstance(job, GroupJob) else (job,)
        holders = [holder(self.store.folder(run.place.address)) for run in runs]
        self.held += [h is not None and h.attempt == r.place.attempt
                      for h, r in zip(holders, runs, strict=True)]  # fmt: skip
        if any(run.place.key in self.bad for run in runs):
            return self.outcome
        for run in runs:
            self.store.write(run.record(Status.OK, result={"ranking": ["g"] * 8}))
        return Outcome(Status.OK, recorded=True)

    def close(self) -> None: ...


def _executed(plan: Plan, tmp_path: Path, bad: set[str], outcome: Outcome) -> Machine:
    executor = Executor(_settings(tmp_path, together=8, time_limit=10.0, memory_limit=5))
    machine = Machine(executor.store, bad, outcome)
    executor._all.append(machine)  # type: ignore[arg-type]
    executor._workers.put(machine)  # type: ignore[arg-type]
    summary = executor.select(plan)
    assert summary.ran == len(plan.selections)
    assert all(machine.held), "every run of a group is claimed by its own attempt"
    assert not [run for run in plan.selections if holder(executor.store.folder(run.address))]
    return machine


def _lengths(machine: Machine) -> list[int]:
    return [len(job.runs) if isinstance(job, GroupJob) else 1 for job in machine.jobs]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.OOM, Status.SKIPPED])
def test_a_bad_run_spoils_no_other(
    crowded: Callable[..., Plan], tmp_path: Path, status: Status
) -> None:
    plan = crowded()
    bad = plan.selections[1]
    machine = _executed(plan, tmp_path, {bad.key}, Outcome(status, "it is bad"))
    assert _lengths(machine) == [6, 3, 2, 1, 1, 1, 3]
    records = {run.key: machine.store.attempts(run.address) for run in plan.selections}
    assert {key: [r.status for r in found] for key, found in records.items()} == {
        run.key: [status if run is bad else Status.OK] for run in plan.selections
    }
    assert records[bad.key][0].reason == "it is bad"


def test_limits_of_a_group_are_those_of_its_runs_together(
    crowded: Callable[..., Plan], tmp_path: Path
) -> None:
    machine = _executed(crowded(), tmp_path, set(), Outcome(Status.OK))
    (job,) = machine.jobs
    assert isinstance(job, GroupJob)
    assert (job.resources.time_limit, job.resources.memory_limit) == (60.0, 30)
    assert {r.resources.time_limit for r in job.runs} == {10.0}


def test_an_interrupted_group_is_not_divided(crowded: Callable[..., Plan], tmp_path: Path) -> None:
    plan = crowded()
    bad = {plan.selections[1].key}
    machine = _executed(plan, tmp_path, bad, Outcome(Status.FAULT, INTERRUPTED))
    assert _lengths(machine) == [6]
    ends = [machine.store.attempts(run.address)[0] for run in plan.selections]
    assert {(r.status, r.reason) for r in ends} == {(Status.FAULT, INTERRUPTED)}


# -- in the process of a group -------------------------------------------------------------


MANY = """
def select_many(tasks, params):
    return [select(*pair) for pair in zip(tasks, params)]


@method("spy", together=select_many, """


@pytest.fixture
def spies(lab: Lab, tmp_path: Path) -> Lab:
    """The lab with its method, which tells what it was given, as one that answers several runs."""
    folder = tmp_path / "spies"
    folder.mkdir()
    source = (lab.methods / "spy.py").read_text()
    (folder / "spy.py").write_text(source.replace('@method("spy", ', MANY))
    return replace(lab, methods=folder, cache=tmp_path / "spies-cache")


def test_each_run_of_a_group_gets_its_own_training_cells(spies: Lab) -> None:
    other = replace(spies.select(seed=2), fold="other")
    asked = [spies.select(), spies.select(k=7), other, spies.select(noise=0.4)]
    alone = [select_panel(question, spies.tools()) for question in asked]
    tools = spies.tools()
    found = select_panels(asked, tools)
    assert not tools.cells, "the process of a group has let go of the data set"
    for one, several in zip(alone, found, strict=True):
        assert several is not None and several.result == one.result
        assert several.cost["shared"] == 4
    assert alone[0].result["info"]["sum"] != alone[2].result["info"]["sum"]


def test_a_run_that_cannot_be_asked_leaves_the_others_alone(spies: Lab) -> None:
    good, none, other = select_panels(
        [spies.select(), spies.select(k=400), spies.select(k=7)], spies.tools()
    )
    assert none is None and good is not None and other is not None
    assert good.cost["shared"] == other.cost["shared"] == 2


def test_a_group_shares_what_it_cost(
    lab: Lab, spies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panelbench.stages import toolbox

    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(toolbox.time, "perf_counter", lambda: float(next(clock)))
    found = select_panels([spies.select(), spies.select(k=7), spies.select(k=8)], spies.tools())
    assert [one.cost["seconds"] for one in found if one is not None] == [2.0] * 3


def test_a_group_writes_a_record_of_each_run(spies: Lab, tmp_path: Path) -> None:
    source = discover([spies.methods]).source_digest("spy")

    def job(key: str, fold: str = "fold", **changes: Any) -> RunJob:
        return RunJob(
            question=replace(spies.select(**changes), fold=fold),
            place=Attempt("own", "spy", key, f"a-{key}"),
            stage="select", question_digest="q", identity={"source": source}, asked={"key": key},
            spec=spies.spec, prepared=spies.prepared, results=tmp_path, cache=tmp_path / "cache",
            cache_key=key, resources=Resources(1, "cpu", 9.0, None), methods_dirs=(spies.methods,),
        )  # fmt: skip

    def do(*jobs: RunJob) -> dict[str, Record]:
        order = Order(GroupJob(jobs, jobs[0].resources), tmp_path / "scratch", tmp_path / "log")
        assert isinstance(order.job, GroupJob)
        done = child.do_group(order, order.job, [spies.cells.copy()], lambda reply: None)
        assert done.status is Status.OK, done
        return {record.asked["key"]: record for record in Store(tmp_path)}

    one, two, bad = job("one"), job("two", k=7, seed=2, fold="other"), job("bad", k=400)
    records = do(one, two, bad)
    assert records.keys() == {"one", "two"}, "what did not end well is left to be done alone"
    assert records["two"].result["info"]["seed"] == 2 and records["two"].attempt == "a-two"
    assert records["one"].cost["shared"] == 2 and not records["one"].outside["from_cache"]
    assert records["one"].outside["time_limit"] == 9.0
    assert Store(tmp_path).arrays(records["one"])["mark"].tolist() == [0.0]
    # What the cache has is restored; the others are done.
    again = do(replace(two, place=replace(two.place, key="again")), job("three", k=6))
    assert again["three"].result["info"]["k"] == 6
    restored = [r for r in Store(tmp_path) if r.address.key == "again"]
    assert [r.outside["from_cache"] for r in restored] == [True]
    assert restored[0].result == records["two"].result


# -- the command ---------------------------------------------------------------------------


def test_a_command_does_runs_together_and_finds_them_again(bench: Bench) -> None:
    # Without a GPU to ask for: that would import torch in every process.
    (bench.methods / "crowd.py").write_text(CROWD.replace('gpu="optional", ', ""))
    seeds = [arg for seed in "01" for arg in ("--seed", seed)]
    args = bench.own("--method", "crowd", "--k", "4", "--k", "8", "--jobs", "1", *seeds)
    found = bench.call("select", *args, "--together", "6")
    assert found.code == 3, found.err
    assert "select: 4 run (1 failed, 3 ok)" in found.err
    records = {(r.asked["seed"], r.asked["k"]): r for r in bench.read()}
    assert "this one is bad" in records[1, 8].reason
    assert len(records) == 4 and records[0, 4].cost["shared"] == 2
    again = bench.call_here("select", *args, "--dry-run", "--output", "json")
    assert [run["due"] for run in again.json["runs"]] == [False] * 4, "found by the same keys"
