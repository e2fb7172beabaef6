"""Claims: which process is at a run now.

A run is claimed by creating ``claim`` in its folder exclusively, so that two that ask for the
same never do the same. The holder renews its claims by touching them; one that has not been
renewed for a while, or whose process is gone from this machine, is stale. Whoever finds a stale
claim and wants the run turns it into a trace of the lost attempt, ``<attempt>.lost``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

CLAIM = "claim"
LOST = ".lost"
RENEWED = 15.0
"""Seconds between two renewals of a claim."""
STALE = 90.0
"""Seconds after which a claim that another machine has not renewed is given up."""


@dataclass(frozen=True)
class Holder:
    """The process behind a claim.

    Attributes
    ----------
    host, pid
        Its machine and number.
    born
        When it began: seconds since the machine did, which no clock that is set changes.
    attempt
        What it is at.
    boot
        Which start of the machine that was; "" where that is not known, and `born` is of the day.
    """

    host: str
    pid: int
    born: float | None
    attempt: str
    boot: str = ""


class Claims:
    """The claims that this process holds; it renews them until they are released.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._held: dict[Path, Holder] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, folder: Path, attempt: str) -> bool:
        """Claim the run of a folder for an attempt; False when another process is at it."""
        path = folder / CLAIM
        boot = _boot()
        me = Holder(socket.gethostname(), os.getpid(), _born(os.getpid(), boot), attempt, boot)
        for _ in range(4):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                handle = path.open("x", encoding="utf-8")
            except FileExistsError:
                if holder(folder) is not None:
                    return False
                _give_up(path)
                continue
            except FileNotFoundError:
                # What was packed has left the folder empty, and it was removed at this moment.
                continue
            try:
                with handle:
                    json.dump(asdict(me), handle)
            except OSError:
                # A claim without a name, left on a full disk, would look like one just being made.
                path.unlink(missing_ok=True)
                raise
            with self._lock:
                self._held[path] = me
            self._renew()
            return True
        return False

    def holds(self, folder: Path) -> bool:
        """Whether a claim is still this process's: after a long sleep it may not be."""
        with self._lock:
            mine = self._held.get(folder / CLAIM)
        return mine is not None and _read(folder / CLAIM) == mine

    def release(self, folder: Path) -> None:
        """Give a claim back."""
        path = folder / CLAIM
        with self._lock:
            mine = self._held.pop(path, None)
        # Another process may have given this one up, after a long sleep of this machine.
        if mine is not None and _read(path) == mine:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give all claims back."""
        self._stop.set()
        for path in list(self._held):
            self.release(path.parent)

    def _renew(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._renewing, daemon=True)
            self._thread.start()

    def _renewing(self) -> None:
        while not self._stop.wait(RENEWED):
            with self._lock:
                held = list(self._held)
            for path in held:
                # The file system's own clock is set, which all machines share.
                with contextlib.suppress(OSError):
                    os.utime(path)


def holder(folder: Path) -> Holder | None:
    """The process that is at the run of a folder now, None when there is none.

    On this machine the process itself is looked at; on others a claim counts as long as it is
    renewed.
    """
    path = folder / CLAIM
    found = _read(path)
    if found is None:
        # Being written just now, or garbage: told apart by age.
        return _NOBODY if path.exists() and _age(path) < STALE else None
    if found.host == socket.gethostname():
        born = _born(found.pid, found.boot) if found.boot in ("", _boot()) else None
        alive = born is not None and abs(born - (found.born or 0.0)) < 1.0
        return found if alive else None
    return found if _age(path) < STALE else None


_NOBODY = Holder("", 0, None, "")


def lost_attempts(folder: Path, names: Iterable[str]) -> list[str]:
    """Attempts of a folder (with these files) that ended without a record."""
    names = set(names)
    lost = {name.removesuffix(LOST) for name in names if name.endswith(LOST)}
    if CLAIM in names and holder(folder) is None:
        found = _read(folder / CLAIM)
        lost |= {found.attempt} if found else set()
    return sorted(attempt for attempt in lost if attempt and f"{attempt}.json" not in names)


def forget_lost(folder: Path) -> None:
    """Remove the traces of lost attempts; their run is done."""
    for path in folder.glob(f"*{LOST}"):
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Stale claims and traces of lost attempts of a folder."""
    claim = [folder / CLAIM] if (folder / CLAIM).exists() and holder(folder) is None else []
    return [*claim, *folder.glob(f"*{LOST}")]


def _give_up(path: Path) -> None:
    """Turn a stale claim into the trace of a lost attempt."""
    stale = _read(path)
    aside = path.with_name(f".claim.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        moved = _read(aside)
        if moved != stale:
            # Another process was quicker: what was moved is its new claim. It goes back.
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink(missing_ok=True)
        elif stale is None or path.with_name(f"{stale.attempt}.json").exists():
            aside.unlink(missing_ok=True)
        else:
            aside.rename(path.with_name(stale.attempt + LOST))


def _read(path: Path) -> Holder | None:
    try:
        found = Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    plain = all(isinstance(value, str) for value in (found.host, found.attempt, found.boot))
    # An attempt names a file beside the claim, nothing else.
    return found if plain and isinstance(found.pid, int) and "/" not in found.attempt else None


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system.

    A file of the future is as old as it is far off: with the clock set back by hours, it would
    otherwise hold its run up for as long.
    """
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        probe.touch()
        return abs(probe.stat().st_mtime - path.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")
    except OSError:
        import time

        # The folder cannot be written to; the clock of this machine must do.
        return abs(time.time() - path.stat().st_mtime)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _boot() -> str:
    """Which start of this machine it is; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born(pid: int, boot: str) -> float | None:
    """When a process began, None when there is none with this number or it has ended.

    Seconds since the machine started, or of the day where `boot` is "".
    """
    import psutil

    try:
        process = psutil.Process(pid)
        # A killed process stays as a zombie until somebody asks for its exit code.
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        # Of the day, it changes for all processes when the clock is set.
        return _ticks(pid) if boot else float(process.create_time())
    except (psutil.Error, OSError):
        return None


def _ticks(pid: int) -> float:
    # Behind the name of the program, which may hold anything, the twentieth field.
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return float(text.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
