"""One file from the internet: once for all processes, and complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Say = Callable[[float, str], None]
"""Is told how much is done, 0 to 1, and what."""

TRIES = 3
_CHUNK = 2**16
_PATIENCE = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""


def download(url: str, target: Path, what: str, size: int | None = None, say: Say | None = None,
             check: Callable[[Path], None] = lambda path: None) -> None:  # fmt: skip
    """Download a file, begin again when the connection breaks, and move it into place.

    Parameters
    ----------
    url, target
        From where, to which path.
    what
        The file in the words of a message.
    size
        Its size in bytes, within a tenth, if known beforehand.
    say
        Is told the progress; without it, a bar or a line is written to standard error.
    check
        Looks at the complete file and raises when it is not wanted; then nothing is kept.

    Raises
    ------
    OSError
        No connection, an address that does not exist, too many broken transfers.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    # pooch leaves its temporary file beside the target when it is killed: a folder of its own.
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    text = f"downloading {what}{f', about {in_words(size)},' if size else ''} from {url}"
    try:
        for attempt in range(1, TRIES + 1):
            folder.mkdir(parents=True, exist_ok=True)
            again = f" (try {attempt} of {TRIES})" if attempt > 1 else ""
            with _meter(text + again, say) as meter:
                downloader = pooch.HTTPDownloader(
                    progressbar=meter,
                    chunk_size=_CHUNK,
                    timeout=_PATIENCE,
                    headers={"Accept-Encoding": "identity"},
                )
                try:
                    found = pooch.retrieve(
                        url, None, fname=target.name, path=folder, downloader=downloader
                    )
                    _whole(Path(found), meter.total, size)
                    break
                except (OSError, ValueError) as error:  # those of requests are OSErrors
                    if attempt == TRIES or not _worth_another_try(error):
                        raise OSError(_reason(error)) from error
            shutil.rmtree(folder)
            time.sleep(0.5 * attempt)
        check(Path(found))
        Path(found).replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worth_another_try(error: Exception) -> bool:
    """Whether a transfer broke, or a server was out of order; not what will be the same again."""
    response = getattr(error, "response", None)
    if response is not None:
        return bool(response.status_code >= 500)
    return isinstance(error, OSError) and not _unreachable(error)


def _unreachable(error: Exception) -> bool:
    """Whether no connection could be made at all: no network, no such server, no answer."""
    import requests
    import urllib3

    if not isinstance(error, requests.exceptions.ConnectionError):
        return False
    return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.MaxRetryError)


def _reason(error: Exception) -> str:
    """Cause in a few words: requests tells at length that there is no connection."""
    return "no connection to the server" if _unreachable(error) else str(error)


def _whole(path: Path, announced: int, declared: int | None) -> None:
    """Raise when a file is shorter or longer than the server said, or the entry says.

    The first is seen while reading too, but not with urllib3 before version 2.
    """
    found = path.stat().st_size
    if announced and found != announced:
        raise OSError(f"{found:,} bytes came, the server announced {announced:,}")
    if declared and abs(found - declared) > 0.1 * declared:
        raise OSError(f"{found:,} bytes came, the entry says about {declared:,}")


def in_words(size: int) -> str:
    """Size for people: ``291 MB``."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(max(len(str(size)) - 1, 0) // 3, len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"


def forget_leftovers(target: Path) -> None:
    """Delete what killed processes left of their downloads of a file."""
    for folder in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def only_one(lock: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Let one process at a time into a block; the others wait, on other nodes as well.

    Parameters
    ----------
    lock
        A file that stands for the block; made if missing. It is free again when its process ends,
        however it ends.
    waiting
        Is called once if another process is in the block.

    Returns
    -------
    Whether this process is the only one: False on a file system that has no locks.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            alone = False
        yield alone


class _Meter(Protocol):
    """What pooch needs of a progress bar."""

    total: int

    def update(self, size: int) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def _meter(text: str, say: Say | None) -> Iterator[_Meter]:
    if say is not None:
        say(0.0, text)
        yield _Told(text, say)
        return
    print(f"panelbench: {text}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield _Told(text, lambda done, message: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns: list[Any] = [BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


class _Told:
    """Tells a function how much of the file is there."""

    def __init__(self, text: str, say: Say) -> None:
        self.total = self._done = 0
        self._text, self._say = text, say

    def update(self, size: int) -> None:
        before, self._done = self._done, self._done + size
        if self.total and 100 * before // self.total != 100 * self._done // self.total:
            self._say(min(self._done / self.total, 1.0), self._text)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Nothing is open."""


class _Bar:
    """A bar on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=None)
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value
        self._progress.update(self._task, total=value or None)

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """The bar goes with its block."""
