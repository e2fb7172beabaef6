"""Runs under supervision: every way to fail is a result, and nothing done is done again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from panelbench.records.store import FORMAT, Store
from tests.tools import IN_ORDER, Bench, method_source

FAKES = {
    "raises": "raise ValueError('the matrix is sad')",
    "hangs": "import time\nwhile True:\n    time.sleep(1)",
    "eats": "held = []\nwhile True:\n    held.append(np.ones(4_000_000))",
    "doubles": "return Selection(ranking=[task.genes[0]] * task.k)",
    "invents": "return Selection(ranking=['no such gene', *task.genes.tolist()])",
    "short": "return Selection(ranking=task.genes[: task.k - 1].tolist())",
    "nan": "return Selection(ranking=task.genes.tolist(), scores=np.full(task.n_genes, np.nan))",
    "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "leaves": "import sys\nsys.exit(3)",
    "picky": "from panelbench import errors\nraise errors.NotApplicable('not for this data')",
    "needy": IN_ORDER,
    "good": IN_ORDER,
}
ENDS = {
    "raises": ("failed", "the matrix is sad"),
    "hangs": ("timeout", "stopped after 3 s"),
    "eats": ("oom", "limit is 614 MiB"),
    "doubles": ("failed", "more than once"),
    "invents": ("failed", "unknown genes, the first is 'no such gene'"),
    "short": ("failed", "ranked 3 genes, 4 were asked for"),
    "nan": ("failed", "not a number"),
    "crashes": ("failed", "SIGSEGV"),
    "leaves": ("failed", "SystemExit"),
    "picky": ("skipped", "not for this data"),
    "needy": ("skipped", "needs there-is-no-such-library: pip install"),
    "broken": ("failed", "cannot be imported: ModuleNotFoundError"),
    "good": ("ok", ""),
}


def test_every_way_to_fail_is_a_result(bench: Bench) -> None:
    # Each within limits that it declares itself.
    limits = {"hangs": "minutes=0.05", "eats": "memory_gb=0.6",
              "needy": 'libraries=("there-is-no-such-library",)'}  # fmt: skip
    for id, body in FAKES.items():
        bench.add_method(id, body, limits.get(id, "nested=True"))
    (bench.methods / "broken.py").write_text(
        "import there_is_no_such_module\n" + method_source("broken", IN_ORDER)
    )
    methods = [arg for id in ENDS for arg in ("--method", id)]
    found = bench.call("run", *bench.own("--k", "4", *methods))
    assert found.code == 3, found.err
    ends = {r.address.method: (r.status, r.reason) for r in bench.read() if r.stage == "select"}
    assert {id: ends[id][0] for id in ends} == {id: status for id, (status, _) in ENDS.items()}
    for id, (_, reason) in ENDS.items():
        assert reason in ends[id][1], id
    scores = {r.address.method for r in bench.read() if r.stage == "evaluate"}
    assert scores == {"good"}
    # The reasons stand in the report's failures and in what is printed.
    page = (bench.results / "reports" / "own" / "report.html").read_text()
    for id in ("raises", "hangs", "eats", "doubles"):
        assert ENDS[id][1] in found.out.replace("\n", " ")
    for id in ENDS:
        assert id in page
    assert "the matrix is sad" in page
    # Failures are results: they are not tried again unless asked for.
    again = bench.call("run", *bench.own("--k", "4", *methods))
    assert again.code == 3
    assert "select: nothing to do" in again.err
    retried = bench.call(
        "select", *bench.own("--k", "4", "--method", "raises", "--retry", "failed")
    )
    assert retried.code == 1
    assert "select: 1 run (1 failed)" in retried.err


def test_what_a_run_starts_ends_with_it(bench: Bench) -> None:
    note = bench.folder / "pid"
    bench.add_method(
        "parent",
        f"""
        import subprocess, time
        child = subprocess.Popen(["sleep", "300"])
        open({str(note)!r}, "w").write(str(child.pid))
        time.sleep(300)
        """,
    )
    found = bench.call("select", *bench.own("--method", "parent", "--k", "4", "--time-limit", "2"))
    assert found.code == 1
    _wait_until_gone(int(note.read_text()))


def _wait_until_gone(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still there")


def test_resume_does_only_what_is_missing(bench: Bench) -> None:
    bench.add_method("one", "return Selection(ranking=task.genes.tolist())")
    bench.add_method("two", "return Selection(ranking=task.genes[::-1].tolist())")
    args = bench.own("--method", "one", "--method", "two", "--k", "4", "--k", "8", "--seed", "0")
    first = bench.call("run", *args)
    assert first.code == 0, first.err
    assert "select: 2 run (2 ok)" in first.err
    assert "evaluate: 4 run (4 ok)" in first.err
    tables = _tables(bench)

    again = bench.call("run", *args)
    assert "select: nothing to do, 2 there already" in again.err
    assert "evaluate: nothing to do, 4 there already" in again.err
    assert _tables(bench) == tables

    # One record deleted: that run only is done again.
    _file(bench, "evaluate", "two", 8).unlink()
    once = bench.call("run", *args)
    assert "select: nothing to do" in once.err
    assert "evaluate: 1 run" in once.err
    assert _tables(bench) == tables

    # A comment changes nothing; code changes its own method only.
    path = bench.methods / "one.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    assert "select: nothing to do" in bench.call("run", *args).err
    path.write_text(path.read_text().replace("task.genes.tolist()", "sorted(task.genes)"))
    dry = bench.call("run", *args, "--dry-run")
    assert len(re.findall(r"select one on own.*stale .*source", dry.out)) == 1
    assert len(re.findall(r"select two on own.* done", dry.out)) == 1
    changed = bench.call("run", *args)
    assert "select: 1 run (1 ok), 1 there already" in changed.err
    assert "evaluate: 2 run (2 ok), 2 there already" in changed.err


def _file(bench: Bench, stage: str, method: str, k: int) -> Path:
    store = Store(bench.results)
    (record,) = [
        r for r in store if (r.stage, r.address.method, r.asked["k"]) == (stage, method, k)
    ]
    return store.folder(record.address) / f"{record.attempt}.json"


def _tables(bench: Bench) -> dict[str, bytes]:
    folder = bench.results / "reports" / "own" / "tables"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_larger_k_ranks_more_under_the_same_key(bench: Bench) -> None:
    bench.add_method("exact", "return Selection(ranking=task.genes[: task.k].tolist())")
    bench.call("run", *bench.own("--method", "exact", "--k", "4"))
    more = bench.call("run", *bench.own("--method", "exact", "--k", "4", "--k", "9"))
    assert "select: 1 run (1 ok)" in more.err
    assert "evaluate: 1 run (1 ok), 1 there already" in more.err
    records = [r for r in bench.read() if r.stage == "select"]
    assert len({r.address.key for r in records}) == 1
    assert sorted(len(r.result["ranking"]) for r in records) == [4, 9]
    less = bench.call("run", *bench.own("--method", "exact", "--k", "4"))
    assert "select: nothing to do" in less.err


def test_the_cache_restores_lost_results_and_may_be_deleted(bench: Bench) -> None:
    bench.add_method("counted", "open('/dev/null')\n" + IN_ORDER)
    args = bench.own("--method", "counted", "--k", "4")
    bench.call("run", *args)
    tables = _tables(bench)
    for path in bench.records():
        path.unlink()
    assert list((bench.folder / "cache").rglob("output.npz"))
    restored = bench.call("run", *args)
    assert "select: 1 run (1 ok, 1 of them restored from the cache)" in restored.err
    assert _tables(bench) == tables
    bench.call("clean", "cache")
    assert not list((bench.folder / "cache").rglob("output.npz"))
    assert "evaluate: nothing to do" in bench.call("run", *args).err
    assert _tables(bench) == tables


SLOW = "import time\ntime.sleep(0.3)\n" + IN_ORDER


def _slow_grid(bench: Bench) -> list[str]:
    for index in range(4):
        bench.add_method(f"slow-{index}", SLOW)
    methods = [arg for i in range(4) for arg in ("--method", f"slow-{i}")]
    return bench.own(*methods, "--k", "4", "--seed", "0", "--seed", "1")


def test_a_kill_of_everything_loses_only_what_was_running(bench: Bench) -> None:
    args = _slow_grid(bench)
    front = subprocess.Popen(
        bench.command("run", *args),
        cwd=bench.folder,
        env=bench.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        front.wait(timeout=4.0)
    except subprocess.TimeoutExpired:
        front.send_signal(signal.SIGKILL)
        front.wait()
    kept = {path: path.read_bytes() for path in bench.records()}
    _wait_until_workers_are_gone(bench)
    found = bench.call("run", *args)
    assert found.code == 0, found.err
    for path, content in kept.items():
        assert path.read_bytes() == content
    records = bench.read()
    assert len({(r.stage, r.address.key) for r in records if r.status == "ok"}) == 16
    # What was done before the kill was not done again.
    assert len(records) == 16
    tables = _tables(bench)
    calm = Bench(_fresh(bench.folder / "calm"), bench.data)
    assert calm.call("run", *_slow_grid(calm)).code == 0
    assert _tables(calm) == tables


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _wait_until_workers_are_gone(bench: Bench) -> None:
    """Children end by themselves when the front process is gone."""
    import psutil

    marker = str(bench.folder)
    for _ in range(100):
        mine = [p for p in psutil.process_iter(["cmdline", "environ"]) if _belongs(p, marker)]
        if not mine:
            return
        time.sleep(0.1)
    raise AssertionError(f"workers outlive the front process: {mine}")


def _belongs(process: object, marker: str) -> bool:
    info = process.info  # type: ignore[attr-defined]
    environment = info["environ"] or {}
    words = info["cmdline"] or []
    return "panelbench.running.worker" in words and environment.get(
        "PANELBENCH_CACHE", ""
    ).startswith(marker)


def test_four_shards_at_once_do_every_run_once(bench: Bench) -> None:
    args = _slow_grid(bench)
    shards = [
        subprocess.Popen(
            bench.command("run", *args, "--shard", f"{index}/4", "--jobs", "1"),
            cwd=bench.folder,
            env=bench.environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for index in range(4)
    ]
    said = [shard.communicate(timeout=240)[1] for shard in shards]
    assert [shard.returncode for shard in shards] == [0] * 4, said
    records = bench.read()
    assert len(records) == 16
    assert len({(r.stage, r.address.key) for r in records}) == 16
    report = bench.call("report", *args)
    assert report.code == 0
    calm = Bench(_fresh(bench.folder / "calm"), bench.data)
    calm.call("run", *_slow_grid(calm))
    assert _tables(calm) == _tables(bench)


def test_an_interrupt_keeps_what_is_done(bench: Bench) -> None:
    args = _slow_grid(bench)
    front = subprocess.Popen(
        bench.command("run", *args),
        cwd=bench.folder,
        env=bench.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Whoever runs the tests in the background has interrupts ignored; commands inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not bench.records():
        assert front.poll() is None
        time.sleep(0.05)
    front.send_signal(signal.SIGINT)
    _, said = front.communicate(timeout=60)
    assert front.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    assert bench.call("run", *args).code == 0


def test_code_that_changes_under_a_planned_run_is_noticed(bench: Bench) -> None:
    """The child compares the code it is about to run with the code that was planned."""
    path = bench.add_method("mine")
    body = f"""
        import pathlib
        path = pathlib.Path({str(path)!r})
        path.write_text(path.read_text() + "OTHER = 1\\n")
        """
    bench.add_method("changes", body + IN_ORDER, "nested=True, minutes=1000")
    both = ["--method", "changes", "--method", "mine", "--k", "4", "--jobs", "1"]
    found = bench.call("select", *bench.own(*both))
    ends = {record.address.method: record for record in bench.read()}
    assert ends["mine"].status == "fault", found.err
    assert "changed after the run was planned" in ends["mine"].reason
    # That says nothing about the method: the next call does it with the new code.
    assert bench.call("select", *bench.own("--method", "mine", "--k", "4")).code == 0


def test_data_that_cannot_be_had_stop_nobody_else(bench: Bench) -> None:
    data = ["--dataset", "pbmc68k-reduced", "--dataset", "pbmc3k"]
    found = bench.call("run", *data, "--task", "bulk_labels", "--method", "random", "--k", "4")
    assert found.code == 2 and "bulk_labels" in found.err, "a task has to be in all of them"
    found = bench.call("run", *data, "--method", "random", "--k", "4")
    assert found.code == 3, found.err
    assert "preprocess: 2 run (1 no data, 1 ok)" in found.err
    assert {r.address.dataset for r in bench.read()} == {"pbmc68k-reduced"}
    assert "is in no mirror folder" in found.out
    again = bench.call("report", *data, "--method", "random", "--k", "4")
    assert "is in no mirror folder" in again.out


def test_limits_of_a_suite_hold(bench: Bench) -> None:
    bench.add_method("hangs", "import time\ntime.sleep(100)\n" + IN_ORDER)
    suite = {
        "name": "s",
        "datasets": [{"dataset": "pbmc68k-reduced", "tasks": ["bulk_labels"]}],
        "methods": ["hangs"],
        "ks": [4],
        "seeds": [0],
        "limits": {"time": "1s", "memory": "2G"},
    }
    (bench.folder / "s.yaml").write_text(json.dumps(suite))
    bench.call("select", "--suite", "s.yaml", "--methods-dir", "methods")
    (record,) = bench.read()
    assert record.status == "timeout" and "1 s" in record.reason
    assert record.outside["memory_limit"] == 2 * 1024**3


def test_a_record_says_what_it_cost_and_where(bench: Bench) -> None:
    bench.add_method("busy", "import warnings\nwarnings.warn('mind the gap')\n" + IN_ORDER)
    bench.call("select", *bench.own("--method", "busy", "--k", "4"))
    (record,) = bench.read()
    assert record.cost["seconds"] >= 0 and record.cost["peak_memory_mb"] > 20
    assert record.warnings == ("UserWarning: mind the gap",)
    assert record.environment["versions"]["scanpy"]
    assert record.outside["time_limit"] == 7200
    assert json.loads(record.to_json())["format"] == FORMAT
