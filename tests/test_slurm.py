"""On a real Slurm (`.ci/slurm start`): the tables of a local run, and nothing lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from panelbench.cluster import slurm
from panelbench.records.status import Status
from panelbench.records.store import Record, Store
from tests.tools import IN_ORDER, Bench, Result

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "slurm"
NEED = ("--need", "all.memory=1G", "--need", "all.usual=2s")
PART = ("--suite", "demo", "--method", "random", "--method", "t-test", "--k", "8", "--seed", "0",
        "--evaluator", "knn")  # fmt: skip


@pytest.fixture(autouse=True)
def _slurm() -> None:
    if not slurm.answers():
        pytest.skip("needs a Slurm that answers: `.ci/slurm start` as root starts one for tests")


class Cluster(Bench):
    """Runs the command line where its jobs find it."""

    def environment(self) -> dict[str, str]:
        tools = Path(sys.executable).parent
        return {**super().environment(), "PATH": f"{tools}:{os.environ['PATH']}"}

    def submit(self, *args: str) -> Result:
        found = self.call("submit", *self.own("--k", "4", *args), timeout=600)
        assert found.code in (0, 1, 3), found.err
        return found

    def shell(self, *command: str) -> str:
        return subprocess.run(command, cwd=self.folder, env=self.environment(), check=True,
                              capture_output=True, text=True).stdout  # fmt: skip

    def example(self, name: str, array: str, *args: str) -> None:
        """Run an array of the examples to its end, with what this node has."""
        small = ("--mem=1G", "--cpus-per-task=1", "--time=10", f"--array={array}")
        self.shell("sbatch", "--wait", *small, str(EXAMPLES / name), *args)

    def jobs(self) -> dict[str, str]:
        """Ids of own jobs in the queue, by the last part of their names."""
        shown = self.shell("squeue", "--me", "-h", "-o", "%F %j %Z")
        lines = [line.split() for line in shown.splitlines()]
        mine = str(self.folder.resolve())
        return {re.sub(r".*?(select|evaluate|report|preprocess).*", r"\1", name): id
                for id, name, where in lines if where == mine}  # fmt: skip

    def settled(self) -> None:
        """Wait until none of its jobs is left."""
        self.until(lambda: not self.jobs(), "jobs stay in the queue")

    def until(self, holds: Callable[[], object], otherwise: str) -> None:
        for _ in range(1200):
            if holds():
                return
            time.sleep(0.5)
        logs = "\n".join(path.read_text() for path in self.results.glob("logs/*"))
        raise AssertionError(f"{otherwise}\n{self.shell('squeue')}\n{logs}")

    def of(self, method: str, stage: str = "select") -> list[Record]:
        found = [r for r in Store(self.results) if r.address.method == method and r.stage == stage]
        return sorted(found, key=lambda record: record.attempt)

    def add_gated(self, gate: str) -> Path:
        """A method that waits for a file; the file."""
        flag = self.folder / gate
        wait = f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.2)\n"
        self.add_method(gate, wait + IN_ORDER)
        return flag


@pytest.fixture
def cluster(tmp_path: Path, own_h5ad: Path) -> Cluster:
    return Cluster(tmp_path, own_h5ad)


def _tables(folder: Path) -> dict[str, bytes]:
    (tables,) = folder.glob("reports/*/tables")
    return {path.name: path.read_bytes() for path in sorted(tables.iterdir())}


def test_the_queue_gives_the_tables_of_a_local_run(cluster: Cluster) -> None:
    """By ``submit``, and by the array script of the examples: byte for byte."""
    assert cluster.call("run", *PART, "--results", "local", "--cache", "local-cache").code == 0
    expected = _tables(cluster.folder / "local")
    assert len(expected) > 2
    found = cluster.call("submit", *PART, *NEED, "--wait", timeout=600)
    assert found.code == 0, found.err + found.out
    assert _tables(cluster.results) == expected
    assert {record.environment["job"] for record in cluster.read()} - {""}, "by jobs"
    assert "0 runs sent" in cluster.call("submit", *PART, *NEED).out
    own = ("--results", "by-array", "--cache", "array-cache")
    cluster.example("array.sh", "0-1", *PART, *own)
    assert cluster.call("report", *PART, *own).code == 0
    assert _tables(cluster.folder / "by-array") == expected


def test_the_other_array_scripts_run(cluster: Cluster) -> None:
    """For GPUs (here one in name only), and with the cache on the disk of the node."""
    cluster.add_method("quick")
    own = cluster.own("--method", "quick", "--k", "4", "--evaluator", "knn", "--results", "results")
    if "gpu" in cluster.shell("sinfo", "-h", "-o", "%G"):
        cluster.example("gpu.sh", "0", *own, "--device", "cpu")
        (record,) = cluster.of("quick")
        assert record.status is Status.OK and record.environment["gpus_granted"] == "0"
    shared = cluster.folder / "shared"
    prepared = ("--data", str(cluster.data), "--label", "cell_type", "--cache", str(shared))
    assert cluster.call("preprocess", *prepared).code == 0
    node = cluster.folder / "node"
    node.mkdir()
    names = {"SHARED_CACHE": str(shared), "SLURM_TMPDIR": str(node)}
    export = "ALL," + ",".join(f"{name}={value}" for name, value in names.items())
    before = sorted(shared.rglob("*"))
    cluster.shell("sbatch", "--wait", "--mem=1G", "--cpus-per-task=1", "--array=0",
                  f"--export={export}", str(EXAMPLES / "staging.sh"), *own)  # fmt: skip
    assert [r.status for r in cluster.of("quick", "evaluate")] == [Status.OK]
    assert sorted(shared.rglob("*")) == before, "the shared cache is read only once"
    assert list(node.iterdir()) == [], "nothing is left on the node"


def test_a_run_that_eats_memory_gets_more_once_and_both_are_recorded(cluster: Cluster) -> None:
    body = "import time\nhog = bytearray(1 << 30)\nhog[::4096] = b'x' * (1 << 18)\ntime.sleep(1)\n"
    cluster.add_method("eater", body + IN_ORDER, "nested=True, memory_gb=0.8")
    cluster.add_method("other")
    both = ("--method", "eater", "--method", "other", "--need", "all.usual=1s",
            "--need", "preprocess.memory=1G", "--need", "report.memory=1G",
            "--need", "other.memory=1G", "--need", "rf.memory=1G")  # fmt: skip
    first = cluster.submit(*both, "--evaluator", "rf", "--wait")
    assert first.code == 3, first.err + first.out
    (eaten,) = cluster.of("eater")
    assert eaten.status is Status.OOM, eaten.reason
    assert [r.status for r in (*cluster.of("other"), *cluster.of("other", "evaluate"))] == [
        Status.OK, Status.OK], "its siblings go on"  # fmt: skip
    second = cluster.submit(*both, "--evaluator", "rf", "--wait")
    assert second.code == 0, second.err + second.out
    oom, ok = cluster.of("eater")
    assert (oom.status, ok.status) == (Status.OOM, Status.OK)
    assert ok.outside["memory_limit"] == 2 * oom.outside["memory_limit"]
    assert len(cluster.of("other")) == 1 and len(cluster.of("eater", "evaluate")) == 1


def test_runs_that_are_cancelled_are_recorded_and_done_by_the_next_call(cluster: Cluster) -> None:
    flag = cluster.add_gated("gated")
    call = ("--method", "gated", "--evaluator", "knn", *NEED)
    cluster.submit(*call)
    cluster.until(lambda: list(cluster.results.glob("runs/*/gated/*/claim")), "it does not start")
    shown = cluster.call("list", "runs", "--output", "json").json["runs"]
    states = {line["stage"]: line["status"] for line in shown}
    assert states == {"select": "running", "evaluate": "queued"}
    assert "0 runs sent, 2 in the queue already" in cluster.submit(*call).out
    cluster.shell("scancel", cluster.jobs()["select"])
    cluster.settled()
    (record,) = cluster.of("gated")
    assert record.status is Status.FAULT and record.reason.startswith("interrupted")
    assert list(cluster.results.glob("runs/*/gated/*/claim")) == []
    flag.touch()
    assert cluster.submit(*call, "--wait").code == 0
    assert [r.status for r in cluster.of("gated")] == [Status.FAULT, Status.OK]
    assert len(cluster.of("gated", "evaluate")) == 1


def test_a_node_that_goes_down_loses_only_what_ran_on_it(cluster: Cluster) -> None:
    control = ROOT / ".ci" / "slurm"
    if os.getuid() or "panelbench" not in Path("/etc/slurm/slurm.conf").read_text():
        pytest.skip("needs a Slurm that is there for tests alone: `.ci/slurm start` as root")
    flag = cluster.add_gated("gated")
    cluster.add_method("quick")
    call = ("--method", "gated", "--method", "quick", "--evaluator", "knn", *NEED)
    cluster.submit(*call, "--pack", "1s")
    cluster.until(lambda: list(cluster.results.glob("runs/*/gated/*/claim")), "it does not start")
    cluster.until(lambda: cluster.of("quick"), "the other does not end")
    (done,) = cluster.of("quick")
    shown = cluster.shell("squeue", "--me", "-h", "-r", "-t", "R", "-o", "%A %Z")
    running = [line.split()[0] for line in shown.splitlines() if str(cluster.folder) in line]
    subprocess.run([str(control), "node-down", *running], check=True, capture_output=True)
    flag.touch()
    subprocess.run([str(control), "node-up"], check=True, capture_output=True)
    cluster.settled()
    assert cluster.submit(*call, "--wait").code == 0
    assert cluster.of("quick") == [done], "what was done is not done again"
    assert [r.status for r in cluster.of("gated")][-1] is Status.OK
    assert len(cluster.of("gated", "evaluate")) == 1


def test_whoever_submits_may_be_killed_at_once(cluster: Cluster) -> None:
    """After the second of four jobs; the next call sends what is missing, and nothing twice."""
    cluster.add_method("quick")
    tools = cluster.folder / "tools"
    tools.mkdir()
    real = cluster.shell("bash", "-c", "type -P sbatch").strip()
    script = f"""#!/bin/bash
{real} "$@"
echo >>count
if [ "$(wc -l <count)" = 2 ]; then kill -9 $PPID; fi
"""
    (tools / "sbatch").write_text(script)
    (tools / "sbatch").chmod(0o755)
    quick = ("--method", "quick", "--evaluator", "knn", *NEED)
    killed = subprocess.run(
        cluster.command("submit", *cluster.own("--k", "4", *quick), "--sbatch", "hold"),
        cwd=cluster.folder,
        env={**cluster.environment(), "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
    )
    assert killed.returncode == -9, killed.stderr
    held = cluster.jobs()
    assert set(held) == {"preprocess", "select"}
    assert "1 runs sent, 1 in the queue already" in cluster.submit(*quick).out
    assert set(cluster.jobs()) == {"preprocess", "select", "evaluate", "report"}
    cluster.shell("scontrol", "release", *held.values())
    cluster.settled()
    assert len(cluster.of("quick")) == len(cluster.of("quick", "evaluate")) == 1
    assert list(cluster.results.glob("reports/*/report.html"))
