"""Whether a file can be what its name says: web pages and files cut short are not data."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

_HDF5 = (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file")
_GZIP = (0, b"\x1f\x8b", "a gzip file")
_BEGINNINGS: dict[str, tuple[int, bytes, str]] = {
    ".h5": _HDF5,
    ".h5ad": _HDF5,
    ".hdf5": _HDF5,
    ".loom": _HDF5,
    ".gz": _GZIP,
    ".tgz": _GZIP,
    ".zip": (0, b"PK\x03\x04", "a zip archive"),
    ".tar": (257, b"ustar", "a tar archive"),
    ".jpg": (0, b"\xff\xd8", "a JPEG image"),
}
"""Suffix -> offset, bytes that stand there, what such a file is."""

_MARKUP = (b"<!doctype html", b"<html", b"<?xml")
_POINTER = b"version https://git-lfs"
_BLOCK = 512
"""Bytes of a block of a tar archive; the last ones hold zeros."""


def complaint(path: Path, name: str = "") -> str | None:
    """What is wrong with a file, as far as its first and last bytes tell.

    Parameters
    ----------
    path
        The file.
    name
        The name whose suffix says what it should be, if not that of `path`.

    Returns
    -------
    A clause such as ``"is a web page, not a zip archive"``, or None.
    """
    suffix = Path(name or path.name).suffix.lower()
    with path.open("rb") as handle:
        head = handle.read(_BLOCK)
    if not head:
        return "is empty"
    offset, magic, kind = _BEGINNINGS.get(suffix, (0, b"", "data"))
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_MARKUP) and suffix not in {".html", ".htm", ".xml", ".svg"}:
        return f"is a web page, not {kind}"
    if head.startswith(_POINTER):
        return "is a pointer of Git LFS, not the file"
    if head[offset : offset + len(magic)] != magic:
        return f"is not {kind}: it begins with {head[:12]!r}"
    return "is cut short" if magic and not _complete(path, kind) else None


def _complete(path: Path, kind: str) -> bool:
    """Whether the end of a file is there."""
    if kind == "a zip archive":
        return zipfile.is_zipfile(path)
    if kind == "a tar archive":
        size = path.stat().st_size
        with path.open("rb") as handle:
            handle.seek(max(size - _BLOCK, 0))
            return size % _BLOCK == 0 and not any(handle.read())
    if kind == "a JPEG image":
        with path.open("rb") as handle:
            handle.seek(max(path.stat().st_size - _BLOCK, 0))
            return b"\xff\xd9" in handle.read()
    if kind == "an HDF5 file":
        import h5py

        try:
            h5py.File(path, "r").close()
        except OSError:
            return False
        return True
    try:
        with gzip.open(path) as stream:
            while stream.read(2**20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True
