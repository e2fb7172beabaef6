"""Environments of methods: made whole or not at all, called by files, in the key and the record."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy.sparse import csr_matrix

from panelbench.contract.methods import RULES, MethodTrial
from panelbench.environments import call, calls, runner
from panelbench.environments import make as making
from panelbench.environments.make import make, remove
from panelbench.environments.place import Place, folders, python_of
from panelbench.errors import Fault, MethodError
from panelbench.method import Environment, Method, Selection, Task
from panelbench.records.status import Status
from panelbench.registry import Registry
from panelbench.running.own_environments import make_missing
from panelbench.running.settings import Settings
from panelbench.schema import parse
from panelbench.suite.plan import make_plan
from panelbench.suite.runs import Plan
from panelbench.suite.specs import SuiteSpec
from tests.environments import TINY, wheelhouse
from tests.lab import Lab
from tests.tools import Bench


@pytest.fixture(scope="module")
def pip_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return wheelhouse(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def offline(pip_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in pip_settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def made(pip_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment with the tiny distribution."""
    place = Place(tmp_path_factory.mktemp("environments"), TINY)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in pip_settings.items():
            patched.setenv(name, value)
        make(place, "mine")
    return place


# -- making --------------------------------------------------------------------------------


def test_what_was_made_is_written_down(made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = made.facts()
    assert facts["distributions"] == {"tiny-dist": "1.5"}, "nothing but what was named"
    assert facts["python"].startswith(made.version) and facts["bytes"] > 1000
    assert [*folders(made.root)] == [made.folder]
    monkeypatch.setattr(making, "_make", lambda *given: pytest.fail("it is there already"))
    assert make(made, "mine") == facts


def test_each_list_of_requirements_has_a_folder(tmp_path: Path) -> None:
    def folder(*requirements: str, python: str = "") -> Path:
        return Place(tmp_path, Environment(requirements, python)).folder

    assert folder("a==1", "b==2") == folder("b==2", "a==1")
    others = [folder("a==1", "b==3"), folder("a==1"), folder("a==1", "b==2", python="3.13")]
    assert len({folder("a==1", "b==2"), *others}) == 4


@pytest.mark.parametrize("wrong", ["numpy<2", "numpy", "-r file", "numpy==1 ; x", "--help==1"])
def test_requirements_are_exact(wrong: str) -> None:
    with pytest.raises(ValueError, match="write name==version"):
        Environment((wrong,))
    with pytest.raises(ValueError, match=r"as '3\.11'"):
        Environment((), python="python3")


def cannot(place: Place) -> str:
    """What is said when an environment cannot be made; nothing of it may be left."""
    with pytest.raises(Fault) as raised:
        make(place, "mine")
    assert [*folders(place.root)] == [] and place.facts() == {}
    return str(raised.value)


def prints(text: str, code: int = 1) -> Callable[[Path], list[str]]:
    """A pip that prints something and ends."""
    program = f"import sys; print({text!r}); sys.exit({code})"
    return lambda python: [sys.executable, "-c", program]


def test_what_is_not_to_be_had_is_said(tmp_path: Path, offline: None) -> None:
    found = cannot(Place(tmp_path, Environment(("no-such-thing==1",))))
    assert found.startswith("the environment of mine cannot be made: python")
    assert "no-such-thing==1" in found and "on a machine that has one" in found


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("/usr/bin/python: No module named pip", 1, "-m ensurepip` brings it"),
        ("ERROR: [Errno 28] No space left on device", 1, "the disk is full; --cache or"),
        ("ERROR: wheel is broken\nmore", 2, "wheel is broken"),
        ("Traceback\nKeyError: 3", 1, "Traceback KeyError: 3"),
        ("", 1, "it said nothing"),
        ("", 0, "pip ended well, and tiny-dist==1.5 is not there"),
    ],
)
def test_a_pip_that_fails_is_told(
    text: str, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_pip", prints(text, code))
    assert words in cannot(Place(tmp_path, TINY))


def test_faults_of_the_machine_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Place(tmp_path, Environment(python="3.99"))
    assert "no python3.99 is on the PATH" in cannot(missing)
    (tmp_path / "file").write_text("")
    assert "File exists" in cannot(Place(tmp_path / "file", TINY))

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(making, "_run", full)
    assert "the disk is full" in cannot(Place(tmp_path, TINY))


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted(process: subprocess.Popen[str], *given: Any) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        making._run(["sleep", "20"], "mine")
    assert started[0].returncode == -signal.SIGKILL
    with pytest.raises(KeyboardInterrupt):
        make(Place(tmp_path, TINY), "mine")
    assert [*folders(tmp_path)] == []


def test_of_two_at_once_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, makers, said = Place(tmp_path, TINY), [], []
    inside, go = threading.Event(), threading.Event()

    def slow(place: Place, name: str) -> dict[str, Any]:
        makers.append(name)
        inside.set()
        assert go.wait(60)
        place.folder.mkdir()
        (place.folder / "environment.json").write_text('{"python": "3"}')
        return place.facts()

    def says(text: str) -> None:
        said.append(text)
        if "waiting" in text:
            go.set()

    monkeypatch.setattr(making, "_make", slow)
    first = threading.Thread(target=make, args=(place, "first"))
    first.start()
    assert inside.wait(60)
    assert make(place, "second", says) == {"python": "3"}
    first.join()
    assert makers == ["first"]
    assert said == ["environment of second: another process makes it; waiting"]


def test_what_a_killed_process_left_goes(tmp_path: Path, offline: None) -> None:
    place = Place(tmp_path, TINY)
    left = tmp_path / f".{place.folder.name}.abcd.tmp"
    (left / "bin").mkdir(parents=True)
    make(place, "mine")
    assert [*folders(tmp_path)] == [place.folder]
    assert remove(place.folder) > 1000 and [*folders(tmp_path)] == []


# -- calling -------------------------------------------------------------------------------


@pytest.fixture
def task(made: Place, tmp_path: Path) -> Task:
    X = np.zeros((2, 3), np.float32)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    genes = np.array(list("abc"))
    return Task(X, genes, {}, 2, 0, n_jobs=3, scratch=scratch, python=made.python)


def script(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "inside.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    path.write_text(f"import os, sys\ndef select(given):\n{lines}")
    return path


def test_files_hold_arrays_matrices_and_json(tmp_path: Path) -> None:
    content = {
        "X": csr_matrix(np.array([[0, 2.5], [1, 0]], dtype=np.float32)),
        "file": np.array(["Ä", "b"]),
        "empty": np.zeros((0, 3)),
        "k": 3,
        "names": ["x", None],
    }
    runner.write(tmp_path, "given", content)
    found = runner.read(tmp_path, "given")
    assert found.keys() == content.keys()
    assert found["X"].dtype == np.float32 and (found["X"] != content["X"]).nnz == 0
    assert found["file"].tolist() == ["Ä", "b"] and found["empty"].shape == (0, 3)
    assert found["k"] == 3 and found["names"] == ["x", None]
    with pytest.raises(ValueError, match="pickle"):
        runner.write(tmp_path, "other", {"odd": np.array([{}])})
        runner.read(tmp_path, "other")


def test_a_script_has_its_libraries_and_nothing_of_ours(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("PYTHONHASHSEED", "17")
    path = script(
        tmp_path,
        "import importlib.util as find, tiny\n"
        "ours = [n for n in ('panelbench', 'numpy', 'make') if find.find_spec(n)]\n"
        "return {'order': tiny.backwards(given['n']), 'ours': ours, 'hash': hash('a'),\n"
        "        'threads': os.environ['OMP_NUM_THREADS'], 'tmp': os.environ['TMPDIR']}",
    )
    first, again = call(task, path, {"n": 3}), call(task, path, {"n": 3})
    assert first["order"] == [2, 1, 0] and first["ours"] == [] and first["threads"] == "3"
    assert Path(first["tmp"]).parent == task.scratch
    assert first["hash"] == again["hash"], "sets of texts have an order that depends on it"
    assert not [*task.scratch.iterdir()]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("print('so far'); raise ValueError('too few cells')", MethodError, "too few cells"),
        ("raise MemoryError('80 GB')", MemoryError, "80 GB"),
        ("os.kill(os.getpid(), 9)", Fault, "killed from outside"),
        ("os.kill(os.getpid(), 11)", MethodError, "inside.py crashed with SIGSEGV"),
        ("os._exit(0)", MethodError, "left no answer"),
        ("return {'order': {1, 2}}", MethodError, "not JSON serializable"),
    ],
)
def test_what_a_script_says_last_is_told(
    body: str, kind: type[Exception], words: str, task: Task, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        call(task, script(tmp_path, body), {})


def test_memory_that_ran_out_is_told_from_a_kill(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([4, 5])
    monkeypatch.setattr(calls, "kernel_kills", lambda: next(kills))
    with pytest.raises(MemoryError, match="memory ran out"):
        call(task, script(tmp_path, "os.kill(os.getpid(), 9)"), {})


def test_an_interrupt_stops_the_script(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, seen = subprocess.Popen.wait, []

    def interrupted(process: subprocess.Popen[bytes], *given: Any) -> int:
        seen.append(process)
        if len(seen) == 1:
            raise KeyboardInterrupt
        return wait(process, *given)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(task, script(tmp_path, "import time; time.sleep(5)"), {})
    assert seen[-1].returncode == -signal.SIGKILL


STARTS = """
import os, subprocess, sys, time
from pathlib import Path
place = Path(sys.argv[4])
subprocess.Popen([*sys.argv[1:], str(os.getpid())])
while not (place / "pid").exists():
    time.sleep(0.01)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of a parent's end")
def test_a_script_ends_with_the_process_that_started_it(made: Place, tmp_path: Path) -> None:
    runner.write(tmp_path, "given", {"place": str(tmp_path)})
    body = (
        "open(given['place'] + '/new', 'w').write(str(os.getpid()))\n"
        "os.rename(given['place'] + '/new', given['place'] + '/pid')\n"
        "import time; time.sleep(30)"
    )
    told = [str(made.python), runner.__file__, str(script(tmp_path, body)), str(tmp_path)]
    subprocess.run([sys.executable, "-c", STARTS, *told], check=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int((tmp_path / "pid").read_text())).wait(10)


def test_without_an_environment_nothing_is_called(task: Task, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="declares no environment"):
        call(replace(task, python=None), tmp_path / "inside.py", {})


# -- in the contract, the key and the record -----------------------------------------------


def backwards(task: Task, params: Any) -> Selection:
    """Genes backwards, as a tiny library wants them."""
    return Selection(task.genes[::-1].tolist())


MINE = Method("mine", backwards, __name__, label="Mine", environment=TINY)


def test_a_method_is_not_tried_without_its_environment(
    made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANELBENCH_ENVIRONMENTS", str(tmp_path))
    assert "`panelbench env make mine`" in MethodTrial(MINE).hindrance
    with pytest.raises(Fault, match="which is not there"):
        python_of(MINE, Path("elsewhere"))
    monkeypatch.setenv("PANELBENCH_ENVIRONMENTS", str(made.root))
    trial = MethodTrial(MINE)
    assert trial.hindrance == "" and trial.task().python == made.python
    found = RULES.outcome("one_job_starts_no_process", trial)
    assert found.verdict == "not asked" and "environment of its own" in found.why


PACKAGE = '''
"""A method in an environment of its own."""
from pathlib import Path
from panelbench.environments import call
from panelbench.method import Environment, Selection, method

@method("{id}", environment=Environment(("tiny-dist==1.5",)))
def select(task, params):
    """Genes backwards, as a tiny library wants them."""
    here = Path(__file__).parent
    found = call(task, here / "inside.py", {{"n": task.n_genes, "here": str(here)}})
    return Selection(task.genes[found["order"]].tolist())
'''
SLEEPS = """
import os, time
def select(given):
    with open(given["here"] + "/pid", "w") as handle: handle.write(str(os.getpid()))
    time.sleep(200)
"""


def plan_of(lab: Lab, method: Method) -> Plan:
    grid = {"datasets": [{"dataset": "own", "tasks": ["cell_type"]}], "ks": [4], "seeds": [0]}
    suite = parse(SuiteSpec, {"name": "t", "methods": [method.id], **grid}, "suite")
    return make_plan(suite, {"own": lab.spec}, Registry({method.id: method}), lambda spec: "sum")


def test_requirements_are_in_the_key(lab: Lab) -> None:
    def key(environment: Environment | None) -> tuple[str, Any]:
        (run,) = plan_of(lab, replace(MINE, environment=environment)).selections
        return run.key, run.identity.get("environment")

    first, identity = key(TINY)
    assert identity == {"requirements": ["tiny-dist==1.5"], "python": ""}
    others = [Environment(("tiny-dist==1.6",)), replace(TINY, python="3.13"), None]
    assert len({first, *(key(other)[0] for other in others)}) == 4
    assert key(None)[1] is None


def test_a_job_installs_nothing(
    lab: Lab,
    tmp_path: Path,
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PANELBENCH_ENVIRONMENTS", str(tmp_path))
    runs, settings = plan_of(lab, MINE).selections, Settings(tmp_path, tmp_path)
    place = Place(tmp_path, TINY)
    make_missing(runs, settings, lambda run: False)
    with monkeypatch.context() as job:
        job.setenv("SLURM_JOB_ID", "7")
        make_missing(runs, settings)
    assert not place.facts() and capsys.readouterr().err == ""
    with monkeypatch.context() as nothing:
        nothing.setenv("PIP_FIND_LINKS", str(tmp_path))
        make_missing(runs, settings)
    assert "note: the environment of mine cannot be made" in capsys.readouterr().err
    make_missing(runs, replace(settings, quiet=True))
    assert place.facts() and capsys.readouterr().err == ""


def test_a_run_makes_what_is_missing_and_records_it(
    bench: Bench, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANELBENCH_ENVIRONMENTS", str(bench.folder / "environments"))
    code = "import tiny\ndef select(given): return {'order': tiny.backwards(given['n'])}\n"
    for id, inside in (("mine", code), ("slow", SLEEPS)):
        (bench.methods / id).mkdir()
        (bench.methods / id / "__init__.py").write_text(PACKAGE.format(id=id))
        (bench.methods / id / "inside.py").write_text(inside)
    own = bench.own(
        "--method", "mine", "--method", "slow", "--k", "4", "--seed", "0", "--jobs", "1"
    )

    found = bench.call("select", *own, "--time-limit", "6")
    assert found.err.count("1 packages are installed for Python") == 1
    records = {r.address.method: r for r in bench.read()}
    assert records["slow"].status is Status.TIMEOUT
    assert not psutil.pid_exists(int((bench.methods / "slow" / "pid").read_text()))
    mine = records["mine"]
    assert mine.status is Status.OK and mine.result["ranking"][0] == "g39"
    assert mine.environment["own"]["distributions"] == {"tiny-dist": "1.5"}
    assert mine.identity["environment"]["requirements"] == ["tiny-dist==1.5"]


# -- the command ---------------------------------------------------------------------------


def test_the_command(bench: Bench, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    root = bench.folder / "environments"
    monkeypatch.setenv("PANELBENCH_ENVIRONMENTS", str(root))
    (bench.methods / "mine.py").write_text(PACKAGE.format(id="mine"))
    bench.add_method("plain")

    def env(*args: str) -> Any:
        return bench.call_here("env", *args, "--methods-dir", "methods")

    def states() -> dict[str, str]:
        lines = env("list", "--output", "json").json["environments"]
        return {line["method"]: line["state"] for line in lines if line["method"] in ("mine", "")}

    assert states() == {"mine": "missing"}
    made = env("make", "mine")
    assert made.code == 0 and "mine: made in" in made.out
    assert "mine: is there" in env("make", "mine").out
    assert states() == {"mine": "made"}
    (root / "0123456789abcdef").mkdir()
    assert states() == {"mine": "made", "": "not finished"}
    assert "0123456789abcdef" in env("remove").out and states() == {"mine": "made"}
    (root / ".abc.0123.tmp").mkdir()
    with (root / ".abc.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert states() == {"mine": "made", "": "being made"}
        assert "nothing to remove" in env("remove").out
    assert states() == {"mine": "made", "": "not finished"}
    assert ".abc.0123.tmp" in env("remove").out
    assert "removed" in env("remove", "mine").out and states() == {"mine": "missing"}
    assert "nothing to remove" in env("remove").out
    assert "plain has no environment of its own" in env("make", "plain").err
    assert "did you mean mine" in env("make", "min").err
    assert "did you mean make" in env("mak").err
    os.environ["PIP_FIND_LINKS"] = str(bench.folder)
    failed = env("make", "mine")
    assert failed.code == 1 and "panelbench: the environment of mine cannot be made" in failed.err
