"""Making and removing environments: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from panelbench.environments.place import FACTS, Place, folders
from panelbench.errors import Fault

Say = Callable[[str], None]
_LISTING = (
    "import json\nfrom importlib.metadata import distributions as all\n"
    "print(json.dumps({d.metadata['Name']: d.version for d in all()}))"
)
_NETWORK = (
    "connection", "name resolution", "network is unreachable", "max retries", "timed out",
    "from versions: none", "no matching distribution", "no such host",
)  # fmt: skip
"""What pip says, among other things, where there is no network."""


def make(place: Place, name: str, say: Say = lambda text: None) -> dict[str, Any]:
    """Make an environment, unless it is there.

    It is made under another name and renamed when it is whole. Of several processes one makes it,
    the others wait for it.

    Parameters
    ----------
    place
        Where it is to lie, and what it is to have.
    name
        Whose it is, for messages.
    say
        Takes a line when something begins that takes long.

    Returns
    -------
    What was written down of it, as `Place.facts` has it.

    Raises
    ------
    Fault
        When it cannot be made; nothing of it is left.
    """
    try:
        place.root.mkdir(parents=True, exist_ok=True)
        with _alone(place, name, say):
            found = place.facts()
            if found:
                return found
            for path in folders(place.root):
                if path.name.startswith(f".{place.folder.name}."):
                    shutil.rmtree(path, ignore_errors=True)
            say(_beginning(place, name))
            return _make(place, name)
    except OSError as error:
        raise Fault(_cannot(name, _reason(error, place))) from None


def remove(folder: Path) -> int:
    """Remove an environment, or what is left of one; the bytes that it had."""
    size = _size(folder)
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    # It is gone at once for others, however long its files take.
    with suppress(FileNotFoundError):
        folder.rename(aside)
        shutil.rmtree(aside)
    return size


def being_made(folder: Path) -> bool:
    """Whether what is not finished belongs to a process that goes on with it."""
    import fcntl

    if not folder.name.startswith("."):
        return False
    try:
        with folder.with_name(f".{folder.name.split('.')[1]}.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _beginning(place: Place, name: str) -> str:
    count = len(place.environment.requirements)
    return f"environment of {name}: {count} packages are installed for Python {place.version}, once"


def _make(place: Place, name: str) -> dict[str, Any]:
    temporary = place.folder.with_name(f".{place.folder.name}.{secrets.token_hex(4)}.tmp")
    began = time.monotonic()
    try:
        python = temporary / "bin" / "python"
        _run([_interpreter(place, name), "-m", "venv", "--without-pip", str(temporary)], name)
        if place.environment.requirements:
            _run([*_pip(python), *place.environment.requirements], name)
        there = json.loads(_run([str(python), "-I", "-c", _LISTING], name).splitlines()[-1])
        lacking = _lacking(place.environment.requirements, there)
        if lacking:
            raise Fault(_cannot(name, f"pip ended well, and {lacking[0]} is not there"))
        facts = {
            **place.environment.identity,
            "python": _run([str(python), "-V"], name).split()[-1],
            "distributions": dict(sorted(there.items(), key=lambda item: item[0].lower())),
            "bytes": _size(temporary),
            "seconds": round(time.monotonic() - began, 1),
        }
        (temporary / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if place.folder.exists():
            # Where nothing could be locked, another process may have been quicker.
            return place.facts()
        temporary.rename(place.folder)
        return facts
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _interpreter(place: Place, name: str) -> str:
    """Python that the environment is made with."""
    if place.version == "{}.{}".format(*sys.version_info):
        return sys.executable
    found = shutil.which(f"python{place.version}")
    if found is None:
        raise Fault(_cannot(name, f"it needs Python {place.version}: no python{place.version} "
                                  "is on the PATH"))  # fmt: skip
    return found


def _pip(python: Path) -> list[str]:
    """Our pip, working in another environment; all is named, so nothing is resolved."""
    quiet = ("--quiet", "--no-input", "--disable-pip-version-check")
    return [
        sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", *quiet
    ]  # fmt: skip


def _lacking(requirements: Sequence[str], there: dict[str, str]) -> list[str]:
    """Requirements that are not there: pip may have been told to put them elsewhere."""
    known = {_plain(name) for name in there}
    return [item for item in requirements if _plain(item.partition("==")[0]) not in known]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _run(command: list[str], name: str) -> str:
    """Run a program to its end; what it printed.

    Raises
    ------
    Fault
        When it fails, with what it said last.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # In a group of its own: an interrupt ends it with all that it started.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise Fault(_cannot(name, _explained(printed, command)))
    return printed


def _explained(printed: str, command: list[str]) -> str:
    """What a program said when it failed, and what to do about it."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if "No module named pip" in printed:
        return f"this Python has no pip: `{sys.executable} -m ensurepip` brings it"
    if "No space left on device" in printed:
        return _full()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    # The first line says what it is, the last ones how it ended.
    ends = lines if len(lines) < 5 else [lines[0], "...", *lines[-3:]]
    said = " ".join(errors[-2:] or ends) or "it said nothing"
    if any(sign in printed.lower() for sign in _NETWORK):
        said += "; without a network, make it on a machine that has one and the same cache folder"
    return f"{Path(command[0]).name} {' '.join(command[1:3])}: {said[:1200]}"


def _reason(error: OSError, place: Place) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full()
    return f"{error.strerror}: {error.filename or place.root}"


def _full() -> str:
    return "the disk is full; --cache or $PANELBENCH_ENVIRONMENTS names another place"


def _cannot(name: str, why: str) -> str:
    return f"the environment of {name} cannot be made: {why}"


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, file)).st_size  # noqa: PTH118
    return total


@contextmanager
def _alone(place: Place, name: str, say: Say) -> Iterator[None]:
    """Be the only process that makes this environment; the kernel frees what a killed one held."""
    import fcntl

    with (place.root / f".{place.folder.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"environment of {name}: another process makes it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks; what is whole first is kept.
            pass
        yield
