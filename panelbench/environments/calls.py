"""Calling a script in an environment: files in, files out, and its last words when it fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panelbench.environments import runner
from panelbench.errors import Fault, MethodError
from panelbench.records.grant import kernel_kills
from panelbench.task import Task

_WORDS = 1500
"""Characters of what a script printed that are told when it fails."""
_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA")


def call(task: Task, script: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Call the function ``select`` of a script in the environment of a method.

    The process belongs to the run: its time and memory count, and it is stopped with it. It sees
    no settings of Python from outside, hashes texts the same every time, and uses as many threads
    as the run may.

    Parameters
    ----------
    task
        What the method was given: its Python, threads and scratch folder.
    script
        File that defines ``select(given: dict) -> dict``.
    content
        What the function is given: arrays of numbers or texts, CSR matrices, and what JSON holds.
        Randomness goes in as a seed (`Task.int_seed`).

    Returns
    -------
    What the function returned, of the same kinds.

    Raises
    ------
    MethodError
        When the script fails, with its last words.
    MemoryError
        When it ran out of memory.
    Fault
        When it was killed from outside.
    """
    if task.python is None:
        raise MethodError("runs a script, and declares no environment")
    # Empty in a run, but tests and notebooks make tasks whose folder is where they are.
    root = None if task.scratch == Path() else task.scratch
    with tempfile.TemporaryDirectory(prefix="inside-", dir=root) as name:
        folder = Path(name)
        runner.write(folder, runner.GIVEN, content)
        command = [task.python, runner.__file__, script, folder, os.getpid()]
        kills = kernel_kills()
        code = _run([str(part) for part in command], folder, task.n_jobs)
        if code:
            _fail(code, script, _tail(folder / "printed.txt"), kernel_kills() > kills)
        try:
            return runner.read(folder, runner.ANSWER)
        except (OSError, ValueError) as error:
            raise MethodError(f"{script.name} left no answer that can be read: {error}") from error


def _run(command: list[str], folder: Path, n_jobs: int) -> int:
    """Run a program to its end, whatever interrupts the wait; its exit code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "TMPDIR": str(folder),
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(folder),
        **{f"{name}_NUM_THREADS": str(n_jobs) for name in _THREADS},
    }
    with (folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env={**kept, **own}
        )
        try:
            return process.wait()
        finally:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()


def _fail(code: int, script: Path, words: str, ran_out: bool) -> None:
    if code == runner.OUT_OF_MEMORY:
        raise MemoryError(f"in {script.name}: {words}")
    if code == -signal.SIGKILL:
        if ran_out:
            raise MemoryError(f"{script.name} was killed by the system: memory ran out")
        raise Fault(f"{script.name} was killed from outside (SIGKILL)")
    ended = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"failed (exit {code})"
    raise MethodError(f"{script.name} {ended} in the method's environment:\n{words}")


def _tail(path: Path) -> str:
    """Last lines of what a script printed."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return "\n".join(text[-_WORDS:].splitlines()[-12:]) or "it printed nothing"
