"""Supervised runs: a time and a memory limit, stopped with everything they started, always an
answer."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from panelbench.records.grant import scratch_root
from panelbench.records.status import Status
from panelbench.running import processes
from panelbench.running.jobs import (
    Done,
    Exited,
    Job,
    Order,
    Progress,
    Reply,
    RunJob,
    Started,
    decode_reply,
    encode_order,
)

MiB = 1024**2
SCRATCH = "panelbench-"
"""How the names of scratch folders begin; the number of the process that made them follows."""
_POLL = 0.1
"""Seconds between two looks at a run's time and memory."""
_SILENCE = 300.0
"""Seconds in which a worker must have begun a run: it loads libraries and the data before."""
_GOODBYE = 20.0
"""Seconds in which a worker must tell of the end of a run that is over."""
INTERRUPTED = "interrupted: the command was stopped"
"""Reason of a run that a signal to the command has ended."""
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that ask every process of a job to end, as schedulers send to all of them at once."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    status, reason
        As in `panelbench.records.store.Record`.
    recorded
        Whether the run wrote its own record.
    cached
        Whether the stage cache had the result.
    damaged
        Whether the prepared data could not be read.
    seconds
        Wall time from the start of the run to its end.
    """

    status: Status
    reason: str = ""
    recorded: bool = False
    cached: bool = False
    damaged: bool = False
    seconds: float = 0.0


class Worker:
    """A worker process and the run that it does at present.

    Parameters
    ----------
    threads
        Threads that numerical libraries may use in a run.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._closed = False
        self._folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-", dir=scratch_root()))

    def start(self) -> None:
        """Start the process, if it does not run.

        The kernel ends a worker with the thread that started it: that thread should stay.
        """
        if self._process is not None and self._process.poll() is None:
            return
        count = str(self._threads)
        names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA")
        limits = {f"{name}_NUM_THREADS": count for name in names}
        self._buffer = b""
        with (self._folder / "worker.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "panelbench.running.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **limits},
                # An interrupt at the terminal is for the front process; it stops the workers.
                start_new_session=True,
            )

    def run(self, job: Job, progress: Callable[[float, str], None]) -> Outcome:
        """Do one job in a process of its own, within its limits.

        Parameters
        ----------
        job
            What to do; a run has a time and a memory limit.
        progress
            Called with what the run reports.
        """
        scratch, log = self._folder / "scratch", self._folder / "output.log"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            log.write_bytes(b"")
            self.start()
            self._send(Order(job, scratch, log))
            return self._watch(job, progress, log)
        except OSError as error:
            self._kill()
            return Outcome(Status.FAULT, f"the worker cannot be used: {error}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def close(self) -> None:
        """Stop the worker and whatever it is running."""
        self._closed = True
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- the process -----------------------------------------------------------------------

    def _send(self, order: Order) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(encode_order(order))
        self._process.stdin.flush()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        processes.stop_descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    # -- watching --------------------------------------------------------------------------

    def _watch(self, job: Job, progress: Callable[[float, str], None], log: Path) -> Outcome:
        limits = job.resources if isinstance(job, RunJob) else None
        done: Done | None = None
        verdict: tuple[Status, str] | None = None
        child, start, heard = None, time.monotonic(), time.monotonic()

        def seconds() -> float:
            return time.monotonic() - start

        while True:
            for reply in self._replies():
                heard = time.monotonic()
                if isinstance(reply, Started):
                    # The limit is on the run, not on the loading of libraries before it.
                    child, start = reply.pid, heard
                elif isinstance(reply, Progress):
                    progress(reply.fraction, reply.message)
                elif isinstance(reply, Done):
                    done = reply
                else:
                    if done is not None:
                        return _outcome(done, seconds())
                    return Outcome(*(verdict or _crash(reply, log)), seconds=seconds())
            process = self._process
            if self._closed or process is None or process.poll() is not None:
                self._kill()
                if done is not None:
                    return _outcome(done, seconds())
                reason = INTERRUPTED if self._closed else "interrupted: the worker was stopped"
                reason += _tail(log)
                return Outcome(Status.FAULT, reason, seconds=seconds())
            if done is None and verdict is None and child is not None and limits is not None:
                verdict = _over(process.pid, seconds(), limits.time_limit, limits.memory_limit)
                if verdict is not None:
                    processes.stop_descendants(process.pid)
                    heard = time.monotonic()
            silent = _stuck(child, over=done is not None or verdict is not None)
            if silent is not None and time.monotonic() - heard > silent:
                self._kill()
                if done is not None:
                    return _outcome(done, seconds())
                status, reason = verdict or (
                    Status.FAULT,
                    f"the worker was silent for {silent:g} s",
                )
                return Outcome(status, reason, seconds=seconds())

    def _replies(self) -> list[Reply]:
        """Replies that have come in; waits for one poll interval at most."""
        process = self._process
        if process is None or process.stdout is None:
            return []
        # Another thread may close the pipe at any time (an interrupt).
        with contextlib.suppress(OSError, ValueError):
            ready, _, _ = select.select([process.stdout], [], [], _POLL)
            if ready:
                self._buffer += os.read(process.stdout.fileno(), 65536)
        *lines, self._buffer = self._buffer.split(b"\n")
        return [decode_reply(line) for line in lines if line]


def _outcome(done: Done, seconds: float) -> Outcome:
    return Outcome(done.status, done.reason, done.recorded, done.cached, done.damaged, seconds)


def _stuck(child: int | None, *, over: bool) -> float | None:
    """Seconds of silence after which a worker is given up; None while a run goes on."""
    if child is None:
        return _SILENCE
    if over:
        return _GOODBYE
    # The worker tells of the end of a run at once, unless it is stopped itself.
    return None if processes.alive(child) else _GOODBYE


def _over(
    worker: int, seconds: float, time_limit: float | None, memory_limit: int | None
) -> tuple[Status, str] | None:
    """Status and reason when a run is over a limit, else None."""
    if time_limit is not None and seconds > time_limit:
        return Status.TIMEOUT, f"stopped after {time_limit:g} s; --time-limit sets another limit"
    if memory_limit is None:
        return None
    held = processes.memory_held(worker, memory_limit)
    if held <= memory_limit:
        return None
    return (
        Status.OOM,
        f"stopped at {held / MiB:.0f} MiB of memory, the limit is {memory_limit / MiB:.0f} MiB; "
        "--memory-limit sets another limit",
    )


def _crash(exited: Exited, log: Path) -> tuple[Status, str]:
    """Status and reason of a run that ended without a word."""
    if exited.code == -signal.SIGKILL:
        if exited.memory_ran_out:
            return Status.OOM, "killed by the system: the machine ran out of memory"
        return Status.FAULT, "killed from outside (SIGKILL)"
    if -exited.code in _ENDING:
        name = signal.Signals(-exited.code).name
        return Status.FAULT, f"interrupted: stopped from outside ({name})"
    if exited.code < 0:
        return Status.FAILED, f"crashed with {signal.Signals(-exited.code).name}" + _tail(log)
    return (
        Status.FAILED,
        f"the process ended with exit code {exited.code} and no result" + _tail(log),
    )


def _tail(log: Path) -> str:
    """Last lines of what a run printed."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return "\n" + "\n".join(text.splitlines()[-6:])[-1000:] if text else ""


def remove_scratch() -> None:
    """Remove scratch folders whose command is gone (killed, with no time to tidy up)."""
    for folder in scratch_root().glob(f"{SCRATCH}*-*"):
        number = folder.name.removeprefix(SCRATCH).partition("-")[0]
        mine = folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        if number.isdigit() and mine and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
