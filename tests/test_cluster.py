"""Runs become jobs: which ones, with which limits, how many in a task, after which others."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.cluster import arguments, slurm
from panelbench.cluster.arrange import Arrangement, jobs_of
from panelbench.cluster.jobs import Job
from panelbench.cluster.slurm import ClusterError, Options, Slurm, driver
from panelbench.cluster.todo import KEY, Todo, again, standing
from panelbench.commands import queue as queue_of_list
from panelbench.commands.queue import with_queue
from panelbench.commands.submit import follow
from panelbench.errors import ConfigError, UnknownName
from panelbench.records.status import Status
from panelbench.records.store import Record, Store
from panelbench.running.needs import Need, need_of, need_of_stage, parse_needs, with_suite
from panelbench.running.settings import Settings
from panelbench.running.states import State, States
from panelbench.suite.choice import with_keys
from panelbench.suite.request import Request
from panelbench.suite.runs import EvaluateRun, Plan, Run

GiB = 1024**3
EXAMPLES = Path(__file__).parent.parent / "examples" / "slurm"
Planned = Callable[..., Plan]


def _settings(folder: Path, **more: Any) -> Settings:
    return Settings(folder / "results", folder / "cache", **more)


def _record(run: Run, status: Status, **more: Any) -> Record:
    result = {"ranking": [f"g{i}" for i in range(40)]} if status is Status.OK else {}
    return Record(run.stage, run.address, "a1", run.question_digest, status, asked=run.asked,
                  result=result, **more)  # fmt: skip


# -- what a run needs ----------------------------------------------------------------------


def test_what_is_said_of_a_method_goes_before_what_is_said_of_all(
    planned: Planned, tmp_path: Path
) -> None:
    plan = planned(methods=["exact", "nested"], limits={"time": "2m", "memory": "3G"},
                   needs={"exact": {"memory": "5G", "cores": 2}})  # fmt: skip
    settings = with_suite(_settings(tmp_path), plan.suite)
    exact = next(run for run in plan.selections if run.method == "exact")
    nested = next(run for run in plan.selections if run.method == "nested")
    assert need_of(exact, settings) == Need(120.0, 5 * GiB, 2)
    assert need_of(nested, settings) == Need(120.0, 3 * GiB)
    assert need_of(exact, _settings(tmp_path)) == Need(7 * 60.0, 2 * GiB)
    options = _settings(tmp_path, needs=parse_needs(["all.memory=1G", "exact.usual=5s"]))
    both = with_suite(options, plan.suite)
    assert need_of(exact, both) == Need(120.0, 5 * GiB, 2, usual=5.0)
    assert need_of(nested, both).memory == GiB
    assert need_of(exact, replace(both, memory_limit=7)).memory == 7
    gpu = replace(exact, declared=replace(exact.declared, gpu="required"))  # type: ignore[type-var]
    assert need_of(gpu, both).gpus == 1
    assert need_of(gpu, _settings(tmp_path, needs=parse_needs(["exact.gpus=0"]))).gpus == 0
    assert need_of_stage("report", both).memory == GiB


@pytest.mark.parametrize("item", ["exact", "exact.memory", "memory=1G", "exact.memory=much",
                                  "exact.colour=red", "exact.cores=0"])  # fmt: skip
def test_needs_that_mean_nothing_are_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="--need"):
        parse_needs([item])


def test_needs_of_nobody_are_refused(tmp_path: Path) -> None:
    from panelbench import api

    settings = _settings(tmp_path, needs=parse_needs(["randon.memory=1G"]))
    with pytest.raises(UnknownName, match="random"):
        api.plan_for(Request(method=["random"]), settings)


# -- what is to do -------------------------------------------------------------------------


def _stopped(status: Status, time: float, memory: int) -> State:
    outside = {"time_limit": time, "memory_limit": memory}
    record = Record("select", None, "a", "q", status, outside=outside)  # type: ignore[arg-type]
    return State(status, False, "", record)


def test_a_limit_that_was_hit_is_doubled_twice_at_most() -> None:
    need, memory = Need(60.0, GiB), GiB
    for times in (2, 4):
        more = again(_stopped(Status.OOM, 60.0, memory), need)
        assert more == Need(60.0, times * GiB)
        memory = more.memory  # type: ignore[union-attr]
    assert again(_stopped(Status.OOM, 60.0, memory), need) is None
    assert again(_stopped(Status.TIMEOUT, 60.0, 4 * GiB), need) == Need(120.0, 4 * GiB)
    assert again(_stopped(Status.TIMEOUT, 240.0, GiB), need) is None


def test_a_limit_below_what_is_declared_is_raised_to_it_first() -> None:
    assert again(_stopped(Status.OOM, 60.0, GiB), Need(60.0, 5 * GiB)) == Need(60.0, 5 * GiB)


def test_other_ends_are_not_tried_with_more() -> None:
    for status in (Status.FAILED, Status.SKIPPED, Status.DONE):
        assert again(_stopped(status, 60.0, GiB), Need(60.0, GiB)) is None
    inherited = replace(_stopped(Status.OOM, 60.0, GiB), inherited=True)
    assert again(inherited, Need(60.0, GiB)) is None


def _todo(
    plan: Plan, folder: Path, queued: Mapping[str, str] | None = None, **more: Any
) -> dict[str, Todo]:
    settings = with_suite(_settings(folder, **more), plan.suite)
    with States(Store(settings.results), settings.retry).one_look(10**6) as states:
        return {t.run.key: t for t in standing(plan, states, settings, queued or {}).todo}


def test_what_is_missing_is_to_do_and_what_ran_out_is_to_do_with_more(
    planned: Planned, tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[0, 1, 2, 3], ks=[4], evaluators=["rf"])
    done, failed, oom, new = plan.selections
    store = Store(tmp_path / "results")
    outside = {"time_limit": 7200.0, "memory_limit": 16 * GiB}
    store.write(_record(done, Status.OK, cost={"seconds": 3.0}))
    store.write(_record(failed, Status.FAILED))
    store.write(_record(oom, Status.OOM, outside=outside))
    todo = _todo(plan, tmp_path)
    scored = {run.select.key: run.key for run in plan.evaluations}
    expected = {oom.key, new.key, *(scored[run.key] for run in (done, oom, new))}
    assert todo.keys() == expected, "a failed selection stands, and so do its evaluations"
    assert todo[oom.key].retry == "oom" and todo[oom.key].need == Need(7200.0, 32 * GiB)
    assert todo[new.key].retry == "" and todo[new.key].need == Need(7200.0, 16 * GiB)
    assert todo[new.key].seconds == 3.0, "as long as the others of its kind took"
    assert todo[scored[new.key]].seconds == 720.0, "a tenth of the limit while nothing is known"
    again_ = _todo(plan, tmp_path, retry=frozenset({"failed"}))
    assert {failed.key, scored[failed.key]} == again_.keys() - todo.keys()
    assert again_[failed.key].retry == "failed"


def test_what_is_queued_is_not_sent_again_and_evaluations_wait_for_it(
    planned: Planned, tmp_path: Path
) -> None:
    plan = planned(methods=["nested"], seeds=[0, 1], ks=[4], evaluators=["rf"])
    first, second = plan.selections
    todo = _todo(plan, tmp_path, {first.key[:KEY]: "71"})
    scored = {run.select.key: run.key for run in plan.evaluations}
    assert todo.keys() == {second.key, scored[first.key], scored[second.key]}
    assert todo[scored[first.key]].after == "71" and todo[scored[second.key]].after == ""


# -- jobs ----------------------------------------------------------------------------------


def _jobs(plan: Plan, folder: Path, todo: Mapping[str, Todo], **more: Any) -> dict[str, Job]:
    given: dict[str, Any] = {"unprepared": [], "queued": {}, "how": Arrangement(), **more}
    request = Request(suite="demo")
    jobs = jobs_of(plan, request, _settings(folder), list(todo.values()), **given)
    return {job.name.removeprefix("panelbench-t-"): job for job in jobs}


def _keys(job: Job) -> set[str]:
    return {key for task in job.tasks for key, _ in task}


def test_runs_that_need_the_same_share_a_job_and_evaluations_follow(
    planned: Planned, tmp_path: Path
) -> None:
    plan = planned(methods=["nested", "exact"], needs={"rf": {"cores": 3}})
    todo = _todo(plan, tmp_path)
    jobs = _jobs(plan, tmp_path, todo, unprepared=plan.datasets)
    assert list(jobs) == ["preprocess", "select-1", "select-2", "evaluate-1", "evaluate-2",
                          "evaluate-3", "evaluate-4", "report"]  # fmt: skip
    runs: dict[str, Run] = {r.key[:KEY]: r for r in (*plan.selections, *plan.evaluations)}
    assert set().union(*map(_keys, jobs.values())) == runs.keys(), "each run is in one job"
    assert sum(job.runs for job in jobs.values()) == len(runs)
    assert jobs["preprocess"].after == () and jobs["preprocess"].command[0] == "preprocess"
    for name in ("select-1", "select-2"):
        assert jobs[name].after == ("panelbench-t-preprocess",)
        assert len({runs[key].address.method for key in _keys(jobs[name])}) == 1
    for name, job in jobs.items():
        for key in _keys(job) if name.startswith("evaluate") else ():
            run = runs[key]
            assert isinstance(run, EvaluateRun)
            (before,) = (job.name for job in jobs.values() if run.select.key[:KEY] in _keys(job))
            assert job.after == (before,), "an evaluation waits for its selection alone"
            assert job.need.cores == (3 if run.evaluator == "rf" else 1)
    assert jobs["report"].after == tuple(job.name for job in jobs.values())[1:-1]
    assert "--memory-limit" in jobs["select-1"].command


def test_short_runs_share_a_task_and_long_ones_do_not(planned: Planned, tmp_path: Path) -> None:
    plan = planned(methods=["nested"], seeds=range(40), ks=[4], evaluators=[])
    for usual, tasks in (("1s", 1), ("6m", 8), ("30m", 40), ("2h", 40)):
        todo = _todo(plan, tmp_path, needs=parse_needs([f"nested.usual={usual}"]))
        (job,) = (j for n, j in _jobs(plan, tmp_path, todo).items() if n.startswith("select"))
        assert len(job.tasks) == tasks, usual
        assert job.need.time >= 7200 + 600
        sizes = {len(task) for task in job.tasks}
        assert max(sizes) - min(sizes) <= 1
    wide = _jobs(plan, tmp_path, todo, how=Arrangement(most=15))
    sizes_ = [len(job.tasks) for name, job in wide.items() if name.startswith("select")]
    assert sizes_ == [15, 15, 10], "no array is larger than the cluster lets it be"


def test_data_that_are_being_prepared_are_waited_for(planned: Planned, tmp_path: Path) -> None:
    plan = planned(methods=["nested"])
    todo = _todo(plan, tmp_path)
    queued = {plan.datasets[0].file[:KEY]: "70"}
    jobs = _jobs(plan, tmp_path, todo, unprepared=plan.datasets, queued=queued)
    assert "preprocess" not in jobs and jobs["select-1"].after == ("70",)
    assert _jobs(plan, tmp_path, {}) == {}


# -- the command line of a job -------------------------------------------------------------


def _read(command: list[str]) -> tuple[Request, Settings]:
    import typer

    from panelbench.cli import _request, _settings, app

    group: Any = typer.main.get_command(app)
    values = group.commands[command[0]].make_context(command[0], command[1:]).params
    return _request(values), _settings(values)


def _said(request: Request) -> dict[str, Any]:
    """What a request says: nothing in whatever form is nothing."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items() if each not in ((), [])}
        return list(value) if isinstance(value, tuple) else value

    return {n: plain(v) for n, v in vars(request).items() if plain(v) not in ([], {}, None)}


def test_a_job_is_asked_for_what_the_user_asked_for(tmp_path: Path) -> None:
    (tmp_path / "panel.csv").write_text("gene\ng1\n")
    own = {"group": "donor", "scheme": "groups", "hvg": 20, "layer": "raw", "gene_names": "id",
           "min_genes": 2, "min_cells": 3, "stratify": False, "make_unique": True, "log1p": True,
           "lognorm": True}  # fmt: skip
    request = Request(
        dataset=["a", "b"], method=["m"], task=["t"], k=[4, 8], seed=[0], evaluator=["rf"],
        sets={"m.alpha": 0.5, "m.name": "it's", "m.list": [1, 2], "m.on": True, "m.no": None},
        data=tmp_path / "own.h5ad", label=["cell type"], target=["age"],
        data_options=own, group="donor",
        panel=[tmp_path / "panel.csv"], datasets=tmp_path / "d.yaml", max_runs=7,
        constraints={"include": [tmp_path / "panel.csv"], "exclude": ["MT-*"], "mean": "0.1:5",
                     "costs": tmp_path / "panel.csv", "budget": 1.5, "markers": 2},
    )  # fmt: skip
    folders = {name: (tmp_path / name, tmp_path / "x") for name in
               ("mirrors", "methods_dirs", "evaluators_dirs")}  # fmt: skip
    settings = _settings(tmp_path, **folders)
    command = ["evaluate", *arguments.what(request), *arguments.where(settings)]
    found, where = _read(command)
    assert _said(found) == _said(request)
    assert where == settings
    options = {**own, "scheme": "leave-one-group-out"}
    for asked in (
        Request(suite="demo"),
        Request(suite="demo", split="groups", group="donor", max_cells=9),
        replace(request, data_options=options),
    ):
        assert _said(_read(["evaluate", *arguments.what(asked)])[0]) == _said(asked)
    (tmp_path / "s.yaml").touch()
    assert arguments.what(Request(suite=str(tmp_path / "s.yaml")))[1] == str(tmp_path / "s.yaml")


def test_every_job_knows_the_options_that_it_is_given(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "panel.csv").write_text("gene\ng1\n")
    plan = planned(methods=["nested"])
    for panel in ([], [tmp_path / "panel.csv"]):
        request = Request(suite="demo", panel=panel, constraints={"exclude": ["MT-*"]})
        todo = list(_todo(plan, tmp_path).values())
        settings = _settings(tmp_path)
        jobs = jobs_of(plan, request, settings, todo, plan.datasets, {}, Arrangement())
        words = [job.command[0] for job in jobs]
        first = "evaluate" if panel else "select"
        assert words == ["preprocess", first, "evaluate", "report"]
        for job in jobs:
            found, _ = _read(list(job.command))
            assert found.suite == "demo"
            assert job.command[0] == "preprocess" or _said(found) == _said(request)


@pytest.mark.parametrize("memory", ["2G", "858993459"])
def test_a_job_is_given_the_limits_of_its_runs_to_the_byte(
    planned: Planned, tmp_path: Path, memory: str
) -> None:
    """A run that was stopped at a little less than its need would get the same again for ever."""
    plan = planned(methods=["nested"])
    todo = _todo(plan, tmp_path, needs=parse_needs([f"all.memory={memory}", "all.time=90.5"]))
    job = _jobs(plan, tmp_path, todo)["select-1"]
    (need,) = {item.need for item in todo.values() if item.run.stage == "select"}
    _, settings = _read(list(job.command))
    assert (settings.time_limit, settings.memory_limit) == (90.5, need.memory)
    assert settings.jobs == 1


def test_a_job_is_told_how_its_runs_are_done(planned: Planned, tmp_path: Path) -> None:
    plan, settings = planned(methods=["nested"]), _settings(tmp_path, together=3, device="cpu")
    todo = list(_todo(plan, tmp_path).values())
    jobs = jobs_of(plan, Request(suite="demo"), settings, todo, (), {}, Arrangement())
    for job in jobs[:-1]:
        _, told = _read(list(job.command))
        assert (told.together, told.device) == (3, "cpu")


def test_a_job_keeps_the_runs_of_its_keys(planned: Planned) -> None:
    plan = planned(methods=["nested", "whole"])
    scored, other = plan.evaluations[0], plan.selections[-1]
    kept = with_keys(plan, [scored.key[:KEY], other.key])
    assert kept.evaluations == (scored,)
    assert {run.key for run in kept.selections} == {scored.select.key, other.key}
    with pytest.raises(ConfigError, match="no run that is asked for has a key"):
        with_keys(plan, [scored.key[:KEY], "0" * KEY])


# -- Slurm's side --------------------------------------------------------------------------

TASKS = ((("a1" * 6, "select one"), ("b2" * 6, "select two; $(rm -rf ~) `id` 'x'")),
         (("c3" * 6, "evaluate three\n4 dddddddddddd no line of its own"),))  # fmt: skip


def _job(**more: Any) -> Job:
    given: dict[str, Any] = {"tasks": TASKS, **more}
    return Job("panelbench-s-select-1", ("select", "--data", "my cells.h5ad"),
               Need(3630.0, 2 * GiB, 4), **given)  # fmt: skip


def _run_script(text: str, task: int, folder: Path) -> list[str]:
    """What the command of a script is called with."""
    echo = folder / "python"
    echo.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    text = re.sub(r"^exec \S+", f"exec {echo}", text, flags=re.M)
    environment = {"SLURM_ARRAY_TASK_ID": str(task), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, check=True, env=environment
    )
    return found.stdout.splitlines()


def test_a_script_asks_for_what_its_runs_need_and_names_them(tmp_path: Path) -> None:
    options = Options(partition="long", account="a b", qos="q", constraint="c", throttle=3,
                      gres="gpu:a100:2", extra=("mail-type=END", "--nice"))  # fmt: skip
    text = Slurm(tmp_path, options).script(_job())
    for line in ("--array=0-1%3", "--time=1:01:00", "--mem=3072M", "--cpus-per-task=4",
                 "--partition=long", "--account='a b'", "--qos=q", "--constraint=c",
                 "--mail-type=END", "--nice", "--requeue"):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "gres" not in text
    gpus = Slurm(tmp_path, options).script(_job(tasks=(), makes=TASKS[0]))
    assert "--array" not in gpus and "%j.log" in gpus
    job = replace(_job(), need=Need(60.0, GiB, gpus=2))
    assert "--gres=gpu:a100:2\n" in Slurm(tmp_path, options).script(job)
    assert "--gres=gpu:2\n" in Slurm(tmp_path).script(job)
    start = ["-m", "panelbench.cli", "select", "--data", "my cells.h5ad", "--key"]
    assert _run_script(text, 0, tmp_path) == [*start, f"{'a1' * 6},{'b2' * 6}"]
    assert _run_script(text, 1, tmp_path) == [*start, "c3" * 6]


def test_scripts_are_sound_shell(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    jobs = [_job(), Job("panelbench-s-report", ("report",), Need(60.0, GiB), makes=TASKS[0],
                        after=("panelbench-s-select-1", "71"))]  # fmt: skip
    files = {job.name: f"{job.name}.sh" for job in jobs}
    texts = [*(Slurm(tmp_path).script(job) for job in jobs), driver(jobs, files)]
    for text in texts:
        found = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + text


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_examples_are_sound_shell(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    found = subprocess.run(["shellcheck", EXAMPLES / name], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A scheduler that holds two jobs of this results folder and others."""
    mine, other = Slurm(tmp_path), Slurm(tmp_path / "other")
    scripts = {"7": mine.script(_job()), "8": other.script(_job()),
               "9": mine.script(_job(tasks=(), makes=(("e5" * 6, "preprocess own"),)))}  # fmt: skip
    shown = ("7|0|PENDING|panelbench-s-select-1\n7|1|RUNNING|panelbench-s-select-1\n"
             "8|0|RUNNING|panelbench-s-select-1\n9|N/A|COMPLETING|panelbench-s-report\n"
             "10|N/A|RUNNING|others\n")  # fmt: skip

    def ask(command: list[str], script: str | None = None, **options: object) -> str:
        if command[0] == "squeue":
            return shown
        if command[1] == "show":
            return "Configuration data\nMaxArraySize            = 33\nMaxJobCount = 10\n"
        return scripts[command[3]]

    monkeypatch.setattr(slurm, "_ask", ask)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    return mine


def test_the_queue_is_read_back_from_the_scripts(queue: Slurm) -> None:
    found = queue.queue()
    assert {key: run.place for key, run in found.items()} == {
        "a1" * 6: "7_0", "b2" * 6: "7_0", "c3" * 6: "7_1"}  # fmt: skip
    assert found["c3" * 6].state == "running"
    assert queue.most_tasks() == 33


def test_a_list_of_runs_shows_those_in_the_queue(queue: Slurm, tmp_path: Path) -> None:
    lines = [
        {"key": "a1" * 5, "stage": "select", "status": "oom", "attempts": 1, "reason": "r"},
        {"key": "c3" * 5, "stage": "evaluate", "status": "ok", "attempts": 1, "reason": ""},
    ]
    found = {line["key"]: line for line in with_queue(lambda: lines, Settings(tmp_path, tmp_path))}
    assert found["a1" * 5]["status"] == "queued"
    assert found["a1" * 5]["reason"] == "job 7_0; before: oom r"
    assert found["c3" * 5] == lines[1], "what is done is done"
    assert found["b2" * 5]["reason"].startswith("job 7_0: two") and len(found) == 3


def test_where_slurm_does_not_answer_the_records_are_shown_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.answers()
    settings, alone = Settings(tmp_path, tmp_path), [{"key": "a"}]
    assert with_queue(lambda: alone, settings) == alone and capsys.readouterr().err == ""
    with pytest.raises(ClusterError, match="is this a machine of the cluster"):
        Slurm(tmp_path).most_tasks()
    broken = tmp_path / "squeue"
    broken.write_text("#!/bin/sh\necho 'slurm_load_jobs error: no' >&2; exit 1\n")
    broken.chmod(0o755)
    assert not slurm.answers()
    with pytest.raises(ClusterError, match="squeue says: slurm_load_jobs error: no"):
        slurm.waiting()
    broken.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(queue_of_list, "PATIENCE", 0.05)
    assert with_queue(lambda: alone, settings) == alone
    assert "squeue does not answer within 0.05 seconds" in capsys.readouterr().err


def test_jobs_are_followed_until_all_are_over(capsys: pytest.CaptureFixture[str]) -> None:
    other = {"8": {"-": "running"}}
    looks = iter([{"7": {"0": "pending", "1": "running"}, **other}, {"7": {"1": "running"}}, other])
    pauses: list[float] = []
    follow({"7"}, lambda: next(looks), pauses.append)
    said = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in said] == [
        "queue: 0 of 2 tasks over, 1 pending, 1 running",
        "queue: 1 of 2 tasks over, 1 running",
        "queue: 2 of 2 tasks over",
    ]
    assert len(pauses) == 2


def test_a_job_waits_for_others_however_they_end() -> None:
    """With ``afterok`` one failed task would cancel all that comes after it."""
    assert slurm.dependency(["7", "8"]) == ["--dependency=afterany:7:8"]
    assert slurm.dependency([]) == []
