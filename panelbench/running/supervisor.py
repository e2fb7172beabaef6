"""Supervised child processes: a time and a memory limit, killed as a group, always an answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MiB = 1024**2
_POLL = 0.1
"""Seconds between two looks at a child's time and memory."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    status, reason
        As in `store.Record`; or ``input``: the user gave something that does not fit.
    recorded
        Whether the child wrote its own record.
    cached
        Whether the stage cache had the result.
    seconds
        Wall time from handing the job over to its end.
    """

    status: str
    reason: str
    recorded: bool
    cached: bool = False
    seconds: float = 0.0


class Worker:
    """A worker process and the child that it has at present.

    Parameters
    ----------
    threads
        Threads that numerical libraries may use in a run.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._child: int | None = None
        self._buffer = b""
        self._closed = False
        self._folder = Path(tempfile.mkdtemp(prefix="panelbench-"))

    def run(
        self,
        job: dict[str, Any],
        *,
        time_limit: float | None,
        memory_limit: int | None,
        progress: Callable[[float, str], None],
    ) -> Outcome:
        """Do one job in a child process, within limits.

        Parameters
        ----------
        job
            For `worker.perform`; ``scratch`` and ``log`` are filled in here.
        time_limit
            Seconds, or None.
        memory_limit
            Bytes that the child and its descendants may hold together, or None.
        progress
            Called with what the run reports.
        """
        scratch = self._folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        log = self._folder / "output.log"
        log.write_bytes(b"")
        start = time.monotonic()
        try:
            self._send({**job, "scratch": str(scratch), "log": str(log)})
            outcome = self._watch(start, time_limit, memory_limit, progress, log)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return outcome

    def close(self) -> None:
        """Stop the worker and whatever it is running."""
        self._closed = True
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- the process -----------------------------------------------------------------------

    def _send(self, job: Mapping[str, Any]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        count = str(self._threads)
        names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA")
        limits = {f"{name}_NUM_THREADS": count for name in names}
        self._buffer = b""
        with (self._folder / "worker.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "panelbench.running.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **limits},
                # An interrupt at the terminal is for the front process; it stops the workers.
                start_new_session=True,
            )

    def _kill(self) -> None:
        for pid in (self._child, self._process.pid if self._process else None):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._process = self._child = None

    # -- watching --------------------------------------------------------------------------

    def _watch(
        self,
        start: float,
        time_limit: float | None,
        memory_limit: int | None,
        progress: Callable[[float, str], None],
        log: Path,
    ) -> Outcome:
        done: dict[str, Any] | None = None
        verdict: tuple[str, str] | None = None
        self._child = None
        while True:
            for message in self._messages():
                if "started" in message:
                    self._child = message["started"]
                    # The limit is on the run, not on the loading of libraries before it.
                    start = time.monotonic()
                elif "progress" in message:
                    progress(*message["progress"])
                elif "done" in message:
                    done = message["done"]
                elif "exited" in message:
                    self._end_group()
                    seconds = time.monotonic() - start
                    if done is not None:
                        cached = bool(done["cached"])
                        return Outcome(done["status"], done["reason"], True, cached, seconds)
                    status, reason = verdict or _crash(message["exited"], log)
                    return Outcome(status, reason, False, False, seconds)
            if self._closed or self._process is None or self._process.poll() is not None:
                self._kill()
                reason = "the worker process was stopped" + _tail(log)
                return Outcome("lost", reason, False, False, time.monotonic() - start)
            if verdict is None and self._child is not None and done is None:
                verdict = _over(self._child, start, time_limit, memory_limit)
                if verdict is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._child, signal.SIGKILL)

    def _messages(self) -> list[dict[str, Any]]:
        """Messages that have come in; waits for one poll interval at most."""
        process = self._process
        if process is None or process.stdout is None:
            return []
        # Another thread may close the pipe at any time (an interrupt).
        with contextlib.suppress(OSError, ValueError):
            ready, _, _ = select.select([process.stdout], [], [], _POLL)
            if ready:
                self._buffer += os.read(process.stdout.fileno(), 65536)
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines if line]

    def _end_group(self) -> None:
        """Stop what a run left behind in its process group."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, signal.SIGKILL)
        self._child = None


def _over(
    pid: int, start: float, time_limit: float | None, memory_limit: int | None
) -> tuple[str, str] | None:
    """Status and reason when a run is over a limit, else None."""
    if time_limit is not None and time.monotonic() - start > time_limit:
        return "timeout", f"stopped after {time_limit:g} s; --time-limit sets another limit"
    if memory_limit is None:
        return None
    held = _memory(pid, memory_limit)
    if held <= memory_limit:
        return None
    return (
        "oom",
        f"stopped at {held / MiB:.0f} MiB of memory, the limit is {memory_limit / MiB:.0f} MiB; "
        "--memory-limit sets another limit",
    )


def _memory(pid: int, limit: int) -> int:
    """Bytes held by a process and its descendants.

    Pages shared with the worker are counted by their share, but only when the cheaper sum, which
    counts them in full, is over the limit.
    """
    try:
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for measure in (_resident, _proportional):
        total = 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                total += measure(process)
        if total <= limit:
            break
    return total


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _proportional(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


def _crash(code: int, log: Path) -> tuple[str, str]:
    """Status and reason of a child that ended without a word."""
    if code == -signal.SIGKILL:
        return "oom", "killed by the system, most often because the machine ran out of memory"
    if code < 0:
        return "failed", f"crashed with {signal.Signals(-code).name}" + _tail(log)
    return "failed", f"the process ended with exit code {code} and no result" + _tail(log)


def _tail(log: Path) -> str:
    """Last lines of what a run printed."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return "\n" + "\n".join(text.splitlines()[-6:])[-1000:] if text else ""
