"""Exact identities: digests of canonical JSON (those of code are made in `code`).

Everything that can change an answer is in a key, and nothing else is. AnnData objects and data
frames are never hashed; digests of files and specifications are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

KEY_LENGTH = 32
"""Hexadecimal digits kept of a SHA-256 digest: 128 bits, short enough for folder names."""


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; the same text for equal values on every machine.

    Raises
    ------
    TypeError, ValueError
        For what JSON cannot hold exactly (arrays, sets, NaN).
    """
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """Key of a JSON-ready value."""
    return text_digest(canonical(value))


def text_digest(text: str) -> str:
    """Key of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


class ObjectDigest:
    """Digests of objects that differ in some texts alone; the rest is written once.

    Parameters
    ----------
    like
        Such an object.
    varying
        Names of the fields that differ; they hold texts.
    """

    def __init__(self, like: Mapping[str, Any], varying: Iterable[str]) -> None:
        varying = set(varying)
        texts = {name: _GAP if name in varying else canonical(like[name]) for name in sorted(like)}
        whole = ",".join(f"{canonical(name)}:{text}" for name, text in texts.items())
        self._pieces = f"{{{whole}}}".split(_GAP)

    def __call__(self, *values: str) -> str:
        """Digest of the object with these values, in the order of the fields' names."""
        first, *rest = self._pieces
        gaps = zip(map(canonical, values), rest, strict=True)
        return text_digest(first + "".join(value + piece for value, piece in gaps))


_GAP = "\0"
"""Stands for a value; no canonical text holds it."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def library_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each distribution, None where it is missing."""
    return {name: _version(name) for name in sorted(set(names))}


@lru_cache(maxsize=256)
def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which two identities differ."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
