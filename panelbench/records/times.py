"""Times in records, and names of attempts that are in order of time though clocks are set."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

_TIME = "%Y%m%dT%H%M%S.%f"


def now() -> str:
    """Present time, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_attempt(after: Iterable[str] = ()) -> str:
    """Name for an attempt: unique across machines, and in order of time.

    Parameters
    ----------
    after
        Names of attempts, or of their files, that were before, whatever the clocks say now.
    """
    time = datetime.now(UTC)
    for name in after:
        with suppress(ValueError, OverflowError):
            before = datetime.strptime(name.partition("Z-")[0] + "+0000", f"{_TIME}%z")
            time = max(time, before + timedelta(microseconds=1))
    start = time.strftime(f"{_TIME}Z")
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:24]
    job = os.environ.get("SLURM_JOB_ID") or str(os.getpid())
    return f"{start}-{host}-{job}-{secrets.token_hex(4)}"
