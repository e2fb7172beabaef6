"""Do the tests notice? Break one line at a time in a copy of the tree, and run tests on it.

``python tests/mutants.py`` goes through `mutants.yaml`; ``python tests/mutants.py keys- oom``
through those whose id begins with one of these. A break is *caught* when its tests fail. Exit
code 0: all were caught; 1: some survived; 2: the list does not fit the code, or its tests fail on
code that is not broken.

An entry has an ``id``, a ``file``, the snippet ``before`` (found exactly once) and what stands
there ``after``, the ``tests`` that should notice (arguments of pytest), and perhaps, instead of
tests, ``equivalent``: why nothing can notice.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutants.yaml")
LIMIT = 600
"""Seconds after which a break counts as caught: its tests would hang."""
PRELOAD = ("anndata", "hypothesis", "matplotlib.pyplot", "pydantic", "pytest", "scanpy",
           "sklearn.ensemble", "sklearn.neighbors", "torch", "typer.testing")  # fmt: skip
"""Libraries that are loaded once: importing them takes longer than most tests."""


class Unfit(Exception):
    """The list does not fit the code."""


@dataclass(frozen=True)
class Mutant:
    """A break: `before` in `file` becomes `after`, and some of `tests` should fail."""

    id: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""

    def broken(self, root: Path) -> str:
        """The source with the break.

        Raises
        ------
        Unfit
            When the snippet is not found exactly once, or what comes out is no Python.
        """
        path = root / self.file
        if not path.is_file():
            raise Unfit(f"mutant {self.id}: there is no file {self.file}")
        text = path.read_text(encoding="utf-8")
        found = text.count(self.before)
        if found != 1 or self.before == self.after:
            raise Unfit(f"mutant {self.id}: {self.before!r} is found {found} times in {self.file}")
        text = text.replace(self.before, self.after)
        try:
            compile(text, self.file, "exec")
        except SyntaxError as error:
            raise Unfit(f"mutant {self.id}: no Python comes out ({error})") from None
        return text


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """All entries of a list.

    Raises
    ------
    Unfit
        When an entry lacks something, or two have one id.
    """
    found = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        tests = entry.pop("tests", ())
        try:
            mutant = Mutant(**entry, tests=tuple([tests] if isinstance(tests, str) else tests))
        except TypeError as error:
            raise Unfit(f"mutant {entry.get('id')}: {error}") from None
        if bool(mutant.tests) == bool(mutant.equivalent):
            raise Unfit(f"mutant {mutant.id}: give tests, or say why it is equivalent")
        if mutant.id in {other.id for other in found}:
            raise Unfit(f"mutant {mutant.id}: the id is there twice")
        found.append(mutant)
    return found


# -- a copy of the tree --------------------------------------------------------------------


def copy_tree(target: Path) -> Path:
    """Copy what git knows or would know, as it is in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    (target / "check_copy.py").write_text(CHECK)
    (target / STARTUP).mkdir()
    (target / STARTUP / "sitecustomize.py").write_text(FINDER.format(folder=target / "methods"))
    return target


STARTUP = ".startup"
FINDER = """
import importlib.util, sys

class Methods:
    # An editable install says where the methods are; here it is not asked.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "panelbench.methods":
            return None
        return importlib.util.spec_from_file_location(
            name, "{folder}/__init__.py", submodule_search_locations=["{folder}"]
        )

sys.meta_path.insert(0, Methods)
"""
CHECK = """
import subprocess, sys
from pathlib import Path
import panelbench, panelbench.methods

FOUND = "import panelbench, panelbench.methods as m; print(panelbench.__file__, m.__file__)"

def test_the_copy_is_what_is_imported():
    said = subprocess.run([sys.executable, "-c", FOUND], cwd="/", capture_output=True, text=True)
    for path in (panelbench.__file__, panelbench.methods.__file__, *said.stdout.split()):
        assert Path(path).is_relative_to(Path(__file__).parent), path
    assert len(said.stdout.split()) == 2, said
"""


def start_tests(copy: Path, tests: Sequence[str], limit: int = LIMIT) -> int:
    """Run tests on a copy in a process of its own, up to the first failure; its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        signal.alarm(limit)
        os.chdir(copy)
        log = os.open(copy / "tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # No bytecode: a break may have the size and the time of the original.
        sys.dont_write_bytecode = True
        os.environ |= {
            "PYTHONPATH": f"{copy / STARTUP}{os.pathsep}{copy}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        sys.path[:] = [str(copy), *(p for p in sys.path if Path(p).resolve() != ROOT / "tests")]
        exec(FINDER.format(folder=str(copy / "methods")))
        options = ["-x", "--tb=short", "--disable-warnings"]
        code = int(importlib.import_module("pytest").main([*options, *tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def end_tests(pid: int, status: int) -> bool:
    """Stop what the tests left; whether they passed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return status == 0


def check_sound(copy: Path, mutants: Sequence[Mutant]) -> None:
    """Check that all tests pass where nothing is broken, and that the copy is what they test.

    Raises
    ------
    Unfit
        When one fails, or a name stands for none.
    """
    tests = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
    if not end_tests(*os.waitpid(start_tests(copy, ["check_copy.py", *tests], limit=0), 0)):
        log = (copy / "tests.log").read_text(encoding="utf-8", errors="replace")
        raise Unfit(f"tests fail on code that is not broken:\n{log[-3000:]}")


def verdicts(copies: list[Path], mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, bool, float]]:
    """Break one line at a time in each copy; yield whether the tests noticed, and the seconds."""
    todo, free = list(mutants), list(copies)
    running: dict[int, tuple[Mutant, Path, bytes, float]] = {}
    try:
        while todo or running:
            while todo and free:
                mutant, copy = todo.pop(0), free.pop()
                whole, text = (copy / mutant.file).read_bytes(), mutant.broken(copy)
                (copy / mutant.file).write_text(text, encoding="utf-8")
                pid = start_tests(copy, mutant.tests)
                running[pid] = mutant, copy, whole, time.monotonic()
            pid, status = os.wait()
            passed = end_tests(pid, status)
            mutant, copy, whole, start = running.pop(pid)
            (copy / mutant.file).write_bytes(whole)
            free.append(copy)
            yield mutant, not passed, time.monotonic() - start
    finally:
        for pid in running:
            end_tests(pid, 1)


def main() -> int:
    """Go through the list; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of ids; all by default")
    parser.add_argument("--processes", type=int, default=2, help="breaks at a time (2)")
    options = parser.parse_args()
    survived, start = 0, time.monotonic()
    try:
        listed = [m for m in read_mutants() if m.id.startswith(tuple(options.names or [""]))]
        for mutant in listed:
            mutant.broken(ROOT)
        todo = [mutant for mutant in listed if not mutant.equivalent]
        for name in PRELOAD:
            importlib.import_module(name)
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            places = [Path(folder).resolve() / str(i) for i in range(max(1, options.processes))]
            copies = [copy_tree(place) for place in places]
            check_sound(copies[0], todo)
            for mutant, noticed, seconds in verdicts(copies, todo):
                survived += not noticed
                word = "caught" if noticed else "SURVIVED"
                print(f"{word:10} {seconds:6.1f} s  {mutant.id}", flush=True)
    except Unfit as error:
        print(error, file=sys.stderr)
        return 2
    for mutant in listed:
        if mutant.equivalent:
            print(f"{'equivalent':19}  {mutant.id}: {mutant.equivalent}")
    minutes, same = (time.monotonic() - start) / 60, len(listed) - len(todo)
    print(
        f"{len(todo) - survived} caught, {survived} survived, {same} equivalent: {minutes:.0f} min"
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
