"""Dask takes jobs as Slurm does: in order, by what they need, with nobody waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from panelbench.cluster import dask
from panelbench.cluster.dask import Dask
from panelbench.cluster.engine import ClusterError
from panelbench.cluster.jobs import Job
from panelbench.cluster.todo import Standing
from panelbench.commands.submit import follow
from panelbench.errors import ConfigError, UnknownName
from panelbench.records.status import Status
from panelbench.running.needs import Need
from panelbench.running.settings import Settings
from panelbench.submission import Submission, engine_of
from tests.tools import Bench

MiB = 1024**2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and a worker of two threads, in this process."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    offers = {"CPU": 2, "MEMORY": 4096 * MiB}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1",
        dashboard_address=None, memory_limit=0, resources=offers,
    ) as found:  # fmt: skip
        yield found


def _job(name: str, script: str, tasks: int = 1, **need: Any) -> Job:
    """A job whose command is a script of the shell, which is told its keys."""
    runs = tuple(((f"{name}{n}".rjust(12, "0"), f"select {name} {n}"),) for n in range(tasks))
    given = {"time": 60.0, "memory": 64 * MiB, **need}
    return Job(f"panelbench-t-{name}", (script,), Need(**given), tasks=runs)


@pytest.fixture
def engine(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dask]:
    plain = dask._command

    def shell(job: Job, task: Any) -> list[str]:
        return ["bash", "-c", job.command[0], *plain(job, task)[-1:]]

    monkeypatch.setattr(dask, "_command", shell)
    found = Dask(tmp_path, cluster.scheduler_address)
    yield found
    found._client.close()


def _until(holds: Callable[[], object]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it does not happen")


def test_jobs_wait_for_others_however_these_end(engine: Dask, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.1; done; echo $0 >>{tmp_path}/first; exit 3"
    first = engine.submit(_job("aa", wait, tasks=2), [])
    after = f"cat {tmp_path}/first; touch {tmp_path}/second"
    second = engine.submit(_job("bb", after), [first, "panelbench-forgotten"])
    _until(lambda: set(engine.waiting().get(first, {}).values()) == {"running"})
    assert engine.waiting()[second] == {"0": "pending"}
    queue = engine.queue()
    assert {key: (run.job, run.task) for key, run in queue.items()} == {
        "000000000aa0": (first, "0"), "000000000aa1": (first, "1"), "000000000bb0": (second, "0"),
    }  # fmt: skip
    assert queue["000000000aa1"].what == "select aa 1"
    assert Dask(tmp_path / "other", engine.address).queue() == {}, "of another results folder"
    gate.touch()
    follow({first, second}, engine.waiting, lambda seconds: time.sleep(0.1))
    assert (tmp_path / "second").exists() and engine.queue() == {}
    (log,) = (tmp_path / "logs").glob(f"{second}-*.log")
    assert sorted(log.read_text().split()) == ["000000000aa0", "000000000aa1"]


def test_nobody_has_to_wait_for_what_was_sent(engine: Dask, tmp_path: Path) -> None:
    gone = Dask(tmp_path, engine.address)
    gone.submit(_job("cc", f"sleep 0.5; touch {tmp_path}/done"), [])
    gone._client.close()
    _until((tmp_path / "done").exists)
    _until(lambda: not engine.waiting())


def test_tasks_run_together_as_far_as_a_worker_has_what_they_need(
    engine: Dask, tmp_path: Path
) -> None:
    """Two threads, but memory for one at a time; more cores than there are wait for a worker."""
    here = f"cd {tmp_path}; mkdir alone || touch both; "
    script = here + "echo $PANELBENCH_CORES; sleep 0.3; rmdir alone"
    large = _job("dd", script, tasks=3, memory=3000 * MiB, cores=2)
    id = engine.submit(large, [])
    follow({id}, engine.waiting, lambda seconds: time.sleep(0.1))
    assert not (tmp_path / "both").exists()
    assert [path.read_text() for path in (tmp_path / "logs").iterdir()] == ["2\n"] * 3
    assert engine.unmet([large]) == []
    wanted = [_job("ee", "", cores=3), _job("ff", "", gpus=1)]
    assert engine.unmet([large, *wanted]) == [
        "CPU=1 MEMORY=6.71089e+07 GPU=1", "CPU=3 MEMORY=6.71089e+07"]  # fmt: skip


def test_a_scheduler_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr(dask, "_ANSWER", 0.2)
    missing = Dask(tmp_path, "tcp://127.0.0.1:1")
    assert not missing.answers()
    with pytest.raises(ClusterError, match="no Dask scheduler answers at tcp:"):
        missing.queue()


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"panelbench\[dask\]"):
        Dask(tmp_path, "tcp://127.0.0.1:1").queue()


def test_options_go_with_their_engine(tmp_path: Path) -> None:
    from panelbench.cluster.slurm import Options

    settings = Settings(tmp_path, tmp_path)
    assert engine_of("dask", settings, Options(), "tcp://x:1") == Dask(tmp_path, "tcp://x:1")
    for bad in (("dask", Options()), ("slurm", Options(), "tcp://x:1"),
                ("dask", Options(qos="q"), "tcp://x:1")):  # fmt: skip
        with pytest.raises(ConfigError, match="--executor"):
            engine_of(bad[0], settings, *bad[1:])  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="slurm"):
        engine_of("slrm", settings, Options())


@pytest.mark.slow
def test_a_suite_goes_through_dask(
    cluster: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dask._command
    # The report is a command like the others, and takes as long as these.
    monkeypatch.setattr(
        dask, "_command", lambda job, task: plain(job, task) if job.tasks or job.makes else ["true"]
    )
    bench.add_method("quick")
    call = bench.own("--method", "quick", "--k", "4", "--seed", "0", "--evaluator", "knn",
                     "--need", "all.memory=1G", "--executor", "dask",
                     "--scheduler", cluster.scheduler_address)  # fmt: skip
    found = bench.call_here("submit", *call, "--wait")
    assert found.code == 0, found.err + found.out
    assert {(r.stage, r.status) for r in bench.read()} == {
        ("evaluate", Status.OK), ("select", Status.OK)}  # fmt: skip
    assert "0 runs sent" in bench.call_here("submit", *call).out
    with pytest.raises(ConfigError, match="only jobs of Slurm"):
        engine = Dask(bench.results, cluster.scheduler_address)
        Submission(engine, [], Standing([], 0, []), Settings(bench.results, bench.folder)).write(
            bench.folder / "scripts"
        )
