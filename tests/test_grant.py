"""A run gets what its job has: cores, threads, memory, scratch, GPUs; and ends in order with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from panelbench.records import grant
from panelbench.records.grant import scratch_root, usable_cores, usable_memory
from panelbench.records.provenance import environment
from panelbench.records.status import Status
from panelbench.running import supervisor
from panelbench.running.jobs import Exited
from panelbench.running.needs import allowed
from panelbench.running.settings import Settings
from tests.tools import IN_ORDER, Bench

SCHEDULERS = ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")
GiB = 1024**3


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Control groups of one's own: a function that writes a file below their root."""
    for name in (*SCHEDULERS, "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(grant, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(grant, "_OWN_GROUP", tmp_path / "own")

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    return write


def test_cores_are_those_that_the_scheduler_grants(
    groups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_cores() == 6
    for name in SCHEDULERS:
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


def test_cores_are_no_more_than_the_quota_of_the_control_group(groups: Any) -> None:
    groups("own", "0::/slurm/job_7/step_0")
    groups("groups/slurm/job_7/step_0/cpu.max", "max 100000")
    assert usable_cores() == 6
    groups("groups/slurm/job_7/cpu.max", "250000 100000")
    assert usable_cores() == 2, "the quota of a group above holds too"
    groups("groups/slurm/job_7/cpu.max", "50000 100000")
    assert usable_cores() == 1
    groups("own", "4:cpu,cpuacct:/job_7")
    groups("groups/cpu/job_7/cpu.cfs_quota_us", "-1")
    groups("groups/cpu/job_7/cpu.cfs_period_us", "100000")
    assert usable_cores() == 6
    groups("groups/cpu/job_7/cpu.cfs_quota_us", "400000")
    assert usable_cores() == 4


def test_memory_is_never_more_than_the_job_has(
    groups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_memory() is None
    assert allowed(16 * GiB) == 16 * GiB
    groups("groups/memory.max", "max")
    assert usable_memory() is None
    groups("own", "0::/slurm/job_7/step_0")
    groups("groups/slurm/job_7/memory.max", f"{8 * GiB}")
    groups("groups/slurm/job_7/step_0/memory.max", "max")
    assert allowed(16 * GiB) == 8 * GiB
    assert allowed(GiB) == GiB
    groups("own", "5:memory:/job_7\n4:cpu:/")
    groups("groups/memory/job_7/memory.limit_in_bytes", f"{3 * GiB}")
    assert allowed(16 * GiB) == 3 * GiB
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    assert allowed(16 * GiB) == 2 * GiB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "512")
    assert allowed(16 * GiB) == 512 * 1024**2


def test_scratch_files_lie_in_the_folder_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "gone"))
    assert scratch_root() != tmp_path / "gone"
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    assert scratch_root() == tmp_path
    worker = supervisor.Worker(1)
    try:
        assert [path.name.startswith(supervisor.SCRATCH) for path in tmp_path.iterdir()] == [True]
    finally:
        worker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_record_names_the_gpus_that_the_job_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert environment()["gpus_granted"] == "3,5"


def test_processes_that_a_scheduler_stops_are_no_failures(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        status, reason = supervisor._crash(Exited(-int(number)), tmp_path)
        assert status is Status.FAULT and reason.startswith("interrupted")
        assert number.name in reason


BODY = """
import os, pathlib, numpy, threadpoolctl
from panelbench.method import Selection
torch = __import__("torch")
libraries = {"blas": max([i["num_threads"] for i in threadpoolctl.threadpool_info()
                          if i["user_api"] == "blas"] or [0])}
return Selection(task.genes.tolist(), info={"n_jobs": task.n_jobs, "scratch": str(task.scratch),
    "omp": os.environ["OMP_NUM_THREADS"], "torch": torch.get_num_threads(), **libraries})
"""


def test_threads_and_scratch_of_a_run_are_those_of_the_job(bench: Bench) -> None:
    bench.add_method("says", BODY)
    scratch = bench.folder / "job"
    scratch.mkdir()
    os.environ["SLURM_TMPDIR"], os.environ["SLURM_CPUS_PER_TASK"] = str(scratch), "1"
    try:
        found = bench.call("select", *bench.own("--method", "says", "--k", "4", "--jobs", "1"))
    finally:
        del os.environ["SLURM_TMPDIR"], os.environ["SLURM_CPUS_PER_TASK"]
    (record,) = bench.read()
    assert record.status is Status.OK, found.err
    info = record.result["info"]
    assert (info["n_jobs"], info["omp"], info["blas"], info["torch"]) == (1, "1", 1, 1)
    assert info["scratch"].startswith(str(scratch))
    assert list(scratch.iterdir()) == []


def test_a_signal_to_all_processes_of_a_job_is_recorded_and_the_work_goes_on(bench: Bench) -> None:
    """As ``scancel`` and preemption do: front process, worker and run get it at once."""
    import psutil

    flag = bench.folder / "fast"
    bench.add_method("slow", f"import os, time\nif not os.path.exists({str(flag)!r}): "
                     "time.sleep(100)\n" + IN_ORDER)  # fmt: skip
    command = bench.command("select", *bench.own("--method", "slow", "--k", "4"))
    environment = bench.environment()
    front = subprocess.Popen(
        command, cwd=bench.folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not list(bench.results.glob("runs/*/*/*/claim")):
        assert front.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    family = psutil.Process(front.pid).children(recursive=True)
    for process in (*reversed(family), psutil.Process(front.pid)):
        process.send_signal(signal.SIGTERM)
    front.communicate(timeout=60)
    (record,) = bench.read()
    assert record.status is Status.FAULT and record.reason.startswith("interrupted")
    flag.touch()
    assert bench.call(*command[3:]).code == 0
    assert [record.status for record in bench.read()] == [Status.FAULT, Status.OK]
