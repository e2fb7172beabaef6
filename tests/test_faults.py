"""What the machine does to a run is no result of the method, and is mended or done again."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from panelbench.data.specs import DatasetSpec
from panelbench.errors import Fault, MethodError, NotApplicable
from panelbench.records.status import RETRIED, Status
from panelbench.records.store import Store
from panelbench.running import processes, supervisor
from panelbench.running.child import classify, do_run
from panelbench.running.jobs import Attempt, Exited, Order, PrepareJob, Resources, RunJob
from panelbench.stages.questions import SelectQuestion
from tests.tools import IN_ORDER, Bench

SPEC = DatasetSpec(id="own", reader="h5ad")


def _job(folder: Path) -> RunJob:
    return RunJob(
        question=SelectQuestion("f", "random", {}, (), 4, 0),
        place=Attempt("own", "random", "k" * 32, "a1"),
        stage="select",
        question_digest="q",
        identity={"source": "s"},
        asked={},
        spec=SPEC,
        prepared=folder / "gone.h5ad",
        results=folder / "results",
        cache=folder / "cache",
        cache_key="c",
        resources=Resources(1, "cpu", 60.0, None),
    )


# -- which word for which end --------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), Status.FAULT),
        (OSError(errno.EIO, "Input/output error"), Status.FAULT),
        (OSError(errno.ENOENT, "No such file", "model.bin"), Status.FAILED),
        (Fault("the prepared data are damaged"), Status.FAULT),
        (MemoryError("too much"), Status.OOM),
        (NotApplicable("not for this"), Status.SKIPPED),
        (MethodError("rubbish"), Status.FAILED),
        (SystemExit(3), Status.FAILED),
        (KeyboardInterrupt(), Status.FAILED),
    ],
)
def test_errors_are_told_apart(error: BaseException, status: Status) -> None:
    found, reason = classify(error)
    assert found is status and reason


def test_a_full_disk_is_named() -> None:
    assert (
        "No space left on device: x"
        in classify(OSError(errno.ENOSPC, "No space left on device", "x"))[1]
    )


def test_a_kill_is_want_of_memory_only_when_the_kernel_says_so(tmp_path: Path) -> None:
    killed = -int(signal.SIGKILL)
    assert supervisor._crash(Exited(killed, True), tmp_path)[0] is Status.OOM
    assert supervisor._crash(Exited(killed, False), tmp_path)[0] is Status.FAULT
    assert supervisor._crash(Exited(-int(signal.SIGSEGV)), tmp_path)[0] is Status.FAILED
    assert supervisor._crash(Exited(1), tmp_path)[0] is Status.FAILED


def test_faults_are_done_again_without_being_asked_for() -> None:
    assert Status.FAULT.redone and Status.LOST.redone
    assert not any(status.redone for status in RETRIED)
    assert set(RETRIED) == {Status.FAILED, Status.TIMEOUT, Status.OOM, Status.SKIPPED}


def test_a_record_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    order = Order(_job(tmp_path), tmp_path, tmp_path / "log")
    done = do_run(order, _job(tmp_path), [], lambda reply: None)
    assert done.status is Status.FAULT and not done.recorded
    assert "its record cannot be written" in done.reason


# -- workers that do not answer ------------------------------------------------------------


@pytest.fixture
def worker() -> Any:
    found = supervisor.Worker(1)
    yield found
    found.close()


def test_a_worker_that_is_stopped_does_not_hold_the_command(
    worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_SILENCE", 0.5)
    worker.start()
    os.kill(worker._process.pid, signal.SIGSTOP)
    outcome = worker.run(_job(tmp_path), lambda fraction, message: None)
    assert outcome.status is Status.FAULT and "silent" in outcome.reason


def test_damaged_data_are_told_apart_from_a_method_that_fails(worker: Any, tmp_path: Path) -> None:
    job = _job(tmp_path)
    job.prepared.write_bytes(b"\x89HDF and then nothing")
    outcome = worker.run(job, lambda fraction, message: None)
    assert outcome.damaged and outcome.status is Status.FAULT
    assert "prepared data cannot be read" in outcome.reason


def test_what_a_run_puts_into_other_sessions_is_found_and_stopped(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; from panelbench.running import processes\n"
        "processes.adopt_orphans()\n"
        'inner = \'import subprocess, sys; p = subprocess.Popen(["sleep", "300"], '
        'start_new_session=True); open(sys.argv[1], "w").write(str(p.pid))\'\n'
        "subprocess.run([sys.executable, '-c', inner, sys.argv[1]])\n"
        "print('orphaned', flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(note)], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"orphaned\n"
        pid = int(note.read_text())
        assert pid in {process.pid for process in processes.descendants(parent.pid)}
        assert processes.memory_held(parent.pid, 0) > 0
        processes.stop_descendants(parent.pid)
        assert not processes.alive(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()  # type: ignore[union-attr]


def test_a_process_ends_with_its_parent_even_inside_a_call_in_c() -> None:
    """The child holds the interpreter's lock: no thread of its own could end it."""
    hold = "import ctypes; ctypes.PyDLL(None).sleep(300)"
    code = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    from panelbench.running.processes import die_with_parent\n"
        "    die_with_parent(os.getppid())\n"
        "    print(os.getpid(), flush=True)\n"
        f"    {hold}\n"
        "time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not processes.alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it outlives its parent")


# -- whole commands ------------------------------------------------------------------------


def _again(bench: Bench, method: str) -> None:
    """Forget the records and run once more; whatever was damaged must be mended on the way."""
    for path in bench.records():
        path.unlink()
    found = bench.call("run", *bench.own("--method", method, "--k", "4"))
    assert found.code == 0, found.err + found.out
    assert {record.status for record in bench.read()} == {Status.OK}


def test_a_cache_that_goes_or_is_damaged_heals(bench: Bench) -> None:
    cache = bench.folder / "cache"
    body = f"import shutil\nshutil.rmtree({str(cache)!r}, ignore_errors=True)\n"
    # It deletes the cache under the run that follows.
    bench.add_method("vandal", body + IN_ORDER, "nested=True, minutes=1000")
    bench.add_method("victim")
    both = ["--method", "vandal", "--method", "victim", "--k", "4", "--jobs", "1"]
    found = bench.call("run", *bench.own(*both))
    assert found.code == 0, found.err + found.out
    assert {record.status for record in bench.read()} == {Status.OK}
    _again(bench, "victim")
    (prepared,) = (cache / "prepared").glob("*.h5ad")
    whole = prepared.stat().st_size
    prepared.write_bytes(prepared.read_bytes()[:5000])
    entries = list((cache / "stages").rglob("output.npz"))
    assert len(entries) > 2
    for entry in entries:
        entry.write_bytes(b"garbage")
    _again(bench, "victim")
    assert prepared.stat().st_size == whole


def test_a_signal_of_the_scheduler_leaves_nothing_locked(bench: Bench) -> None:
    bench.add_method("slow", "import time\ntime.sleep(100)\n" + IN_ORDER)
    front = subprocess.Popen(
        bench.command("select", *bench.own("--method", "slow", "--k", "4")),
        cwd=bench.folder,
        env=bench.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    claims: list[Path] = []
    while not claims:
        assert front.poll() is None
        claims = list(bench.results.glob("runs/*/*/*/claim"))
        time.sleep(0.05)
    front.send_signal(signal.SIGTERM)
    _, said = front.communicate(timeout=60)
    assert front.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; what has finished is kept" in said and "Traceback" not in said
    assert not claims[0].exists()
    assert Store(bench.results).leftovers() == []


def test_a_method_that_closes_its_files_keeps_its_own_record(bench: Bench) -> None:
    bench.add_method("closes", "import os\nos.closerange(3, 4096)\n" + IN_ORDER)
    found = bench.call("select", *bench.own("--method", "closes", "--k", "4"))
    (record,) = bench.read()
    assert record.status is Status.OK, found.err


def test_a_job_travels_whole(tmp_path: Path) -> None:
    from panelbench.running.jobs import decode_order, encode_order

    run = Order(_job(tmp_path), tmp_path / "scratch", tmp_path / "log")
    prepare = PrepareJob(
        SPEC, tmp_path / "p", tmp_path / "f", tmp_path, tmp_path, (tmp_path,), {"k": 3}
    )
    for order in (run, Order(prepare, tmp_path, tmp_path)):
        assert decode_order(encode_order(order)) == order


@pytest.fixture(params=["results"])
def small_disk(bench: Bench, request: pytest.FixtureRequest) -> Any:
    """A folder on a file system of its own, small; a function that mounts it anew."""
    folder = bench.folder / request.param
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small file system")

    mount("size=256k")
    yield mount
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("small_disk", ["cache"], indirect=True)
def test_a_full_disk_in_preprocessing_is_no_fault_of_the_data(
    bench: Bench, small_disk: Any
) -> None:
    call = ("preprocess", "--data", str(bench.data), "--label", "cell_type", "--seed", "0")
    small_disk("remount,size=12k")
    full = bench.call(*call)
    assert full.code == 1, "2 is for what was given"
    assert full.err.count("No space left on device") == 1 and "Traceback" not in full.err
    assert not list(bench.results.rglob("*.json")), "it is no result"
    small_disk("remount,size=8m")
    assert bench.call(*call).code == 0


def test_a_full_disk_and_a_read_only_one_are_said_and_nothing_is_lost(
    bench: Bench, small_disk: Any
) -> None:
    bench.add_method("quick")
    call = ("select", *bench.own("--method", "quick", "--k", "4"))
    own = ("--data", str(bench.data), "--label", "cell_type", "--seed", "0", "--seed", "1")
    assert bench.call("preprocess", *own).code == 0
    assert bench.call(*call, "--seed", "0").code == 0
    kept = {path: path.read_bytes() for path in bench.records()}
    filler = bench.results / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as handle:
        while True:
            handle.write(bytes(4096))
            handle.flush()
    both = (*call, "--seed", "0", "--seed", "1")
    full = bench.call(*both)
    assert full.code == 3 and "No space left on device" in full.err + full.out
    assert "Traceback" not in full.err
    assert {path: path.read_bytes() for path in bench.records()} == kept
    filler.unlink()
    small_disk("remount,ro")
    fixed = bench.call(*both)
    assert fixed.code == 3 and "Read-only file system" in fixed.err + fixed.out
    assert "Traceback" not in fixed.err
    small_disk("remount,rw")
    assert bench.call(*both).code == 0
    assert len(bench.records()) == 2 and {r.status for r in bench.read()} == {Status.OK}


def test_a_scratch_folder_that_goes_disturbs_nobody_else(bench: Bench) -> None:
    body = "import shutil\nshutil.rmtree(task.scratch.parent)\n"
    bench.add_method("removes", body + IN_ORDER, "nested=True, minutes=1000")
    bench.add_method("uses", "(task.scratch / 'x').write_text('y')\n" + IN_ORDER)
    both = ("--method", "removes", "--method", "uses", "--k", "4", "--jobs", "1")
    found = bench.call("select", *bench.own(*both))
    assert found.code == 0, found.err + found.out
    assert {record.status for record in bench.read()} == {Status.OK}


def test_a_predictor_that_is_cut_short_is_the_fault_of_the_machine(bench: Bench) -> None:
    bench.add_predictor("predicts")
    call = bench.own("--method", "predicts", "--method", "random", "--k", "4")
    assert bench.call("select", *call).code == 0
    (arrays,) = bench.results.glob("runs/*/predicts/*/*.npz")
    arrays.write_bytes(arrays.read_bytes()[:3000])
    found = bench.call("evaluate", *call, "--evaluator", "builtin", "--evaluator", "knn")
    assert found.code == 3 and "Traceback" not in found.err
    ends = {
        (r.address.method, r.asked["evaluator"]): r for r in bench.read() if r.stage != "select"
    }
    assert ends["predicts", "builtin"].status is Status.FAULT
    assert "cannot be read" in ends["predicts", "builtin"].reason
    assert ends["predicts", "knn"].status is ends["random", "knn"].status is Status.OK


def test_a_claim_that_cannot_be_written_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left empty, it would look like one that is just being made, and hold the run up."""
    from panelbench.records import claims

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(claims.json, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        claims.Claims().take(tmp_path, "a1")
    assert list(tmp_path.iterdir()) == []
