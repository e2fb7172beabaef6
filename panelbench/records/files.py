"""Files that are whole or absent, whatever happens to the process that writes them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

TEMPORARY = ".*.tmp"
"""Pattern of the names that `replacing` uses; what is left of them after a kill can go."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`; what lies there afterwards becomes `path`.

    Parameters
    ----------
    path
        The file to write; its folder is made if need be. It is replaced at once, and only when
        the block ends without an error.
    durable
        Whether the content is forced to the disk before the name appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file so that readers see all of it or nothing."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, durable=durable) as temporary, temporary.open("xb") as handle:
        handle.write(data)


def read_text(path: str) -> str:
    """Text of a file, in half the time of ``Path.read_text``: of records there are many."""
    with FileIO(path) as handle:
        return handle.readall().decode("utf-8")
