"""Families of processes: end with the parent, be counted and be stopped together (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel signal this process when the thread that started it ends.

    A thread of Python's could not: a call in C may hold the interpreter's lock. Elsewhere than on
    Linux there is only such a thread.

    Parameters
    ----------
    parent
        Process number of the parent, which may be gone already.
    by
        The signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent, by), daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), by)


def _watch(parent: int, by: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), by)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below one, orphans that it adopted among them."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def stop_descendants(pid: int) -> None:
    """Kill all processes below one, also those that start while this goes on."""
    for _ in range(20):
        family = descendants(pid)
        alive = [process for process in family if _runs(process)]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def memory_held(pid: int, limit: int) -> int:
    """Bytes held by all processes below one.

    Pages shared with their parent are counted by their share, but only when the cheaper sum,
    which counts them in full, is over the limit.
    """
    family, total = descendants(pid), 0
    for measure in (_resident, _proportional):
        total = _sum(family, measure)
        if total <= limit:
            break
    return total


def _sum(family: list[psutil.Process], measure: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += measure(process)
    return total


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _proportional(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return _runs(psutil.Process(pid))
    except psutil.Error:
        return False
