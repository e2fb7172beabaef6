"""Zip and tar archives, read as streams or unpacked, without trusting what they say.

Nothing of an archive is given out before the names of all its members were looked at: plain files
and folders only, all of them inside, each once, and together not larger than a limit.
"""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from panelbench.errors import DataError

# zipfile says NotImplementedError of a compression, or an encryption, that it does not know.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
            NotImplementedError)  # fmt: skip
_SMALL = 2**30
_RATIO = 50
_HEADER = 512
"""Bytes counted for each member besides its content: millions of empty ones are no data either."""


@dataclass(frozen=True)
class Archive:
    """An open archive.

    Attributes
    ----------
    path
        Where it lies.
    members
        Name of each file inside -> a function that opens it for reading.
    """

    path: Path
    members: Mapping[str, Callable[[], IO[bytes]]]

    def open(self, name: str) -> IO[bytes]:
        """Open a member, by its name in `members`, as a stream of bytes.

        Raises
        ------
        DataError
            When there is no such member.
        """
        if name not in self.members:
            shown = ", ".join(sorted(self.members)[:8]) + (", ..." if len(self.members) > 8 else "")
            raise DataError(f"{self.path}: no member {name!r}; it holds {shown or 'nothing'}")
        return self.members[name]()


@contextlib.contextmanager
def open_archive(path: Path, max_unpacked: int | None = None) -> Iterator[Archive]:
    """Open a zip or tar archive for reading its members.

    Parameters
    ----------
    path
        ``.zip`` or ``.tar``, the latter compressed or not.
    max_unpacked
        Largest size of all members together, in bytes; None is 1 GiB or 50 times the size of the
        archive, whichever is more.

    Raises
    ------
    DataError
        Not an archive; a damaged one (also when that shows while members are read); a member that
        is a link or device, has no usable name or lies outside; too large.
    """
    limit = max(_SMALL, _RATIO * path.stat().st_size) if max_unpacked is None else max_unpacked
    with contextlib.ExitStack() as stack:
        try:
            if zipfile.is_zipfile(path):
                members = _zip_members(stack.enter_context(zipfile.ZipFile(path)), path, limit)
            elif tarfile.is_tarfile(path):
                members = _tar_members(stack.enter_context(tarfile.open(path)), path, limit)
            else:
                raise DataError(f"{path}: neither a zip nor a tar archive; it may be truncated")
            yield Archive(path, members)
        except _DAMAGED as error:
            raise DataError(
                f"{path}: damaged or unknown kind of archive ({error}); delete it and try again"
            ) from error


def extract(path: Path, folder: Path, max_unpacked: int | None = None) -> list[Path]:
    """Unpack an archive; nothing is written if any member is refused.

    Parameters
    ----------
    path, max_unpacked
        See `open_archive`.
    folder
        Where to; made if missing.

    Returns
    -------
    Paths of the unpacked files, sorted.

    Raises
    ------
    DataError
        See `open_archive`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_archive(path, max_unpacked) as archive:
        for name in archive.members:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
        return sorted(folder / name for name in archive.members)


def _zip_members(
    archive: zipfile.ZipFile, path: Path, limit: int
) -> dict[str, Callable[[], IO[bytes]]]:
    names = _Names(path, limit)
    found: dict[str, Callable[[], IO[bytes]]] = {}
    for item in archive.infolist():
        if item.flag_bits & 1:
            raise DataError(f"{path}: refused, member {item.filename!r} is encrypted")
        # The upper half holds the Unix mode, where the archive was made on Unix.
        if (item.external_attr >> 16) & 0o170000 == 0o120000:
            raise DataError(f"{path}: refused, member {item.filename!r} is a link")
        name = names.checked(item.filename, item.filename.endswith("/"), item.file_size)
        if name:
            found[name] = partial(archive.open, item)
    return found


def _tar_members(
    archive: tarfile.TarFile, path: Path, limit: int
) -> dict[str, Callable[[], IO[bytes]]]:
    names = _Names(path, limit)
    found: dict[str, Callable[[], IO[bytes]]] = {}
    for item in archive:
        if not (item.isreg() or item.isdir()):
            what = "a link" if item.islnk() or item.issym() else "a device or pipe"
            raise DataError(f"{path}: refused, member {item.name!r} is {what}")
        name = names.checked(item.name, item.isdir(), item.size)
        if name:
            found[name] = partial(_file_of, archive, item)
    return found


def _file_of(archive: tarfile.TarFile, item: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(item)
    assert stream is not None  # only links and folders have no content
    return stream


@dataclass
class _Names:
    """The members seen so far."""

    path: Path
    limit: int
    total: int = 0
    files: set[PurePosixPath] = field(default_factory=set)
    folders: set[PurePosixPath] = field(default_factory=set)

    def checked(self, name: str, is_folder: bool, size: int) -> str:
        """Name of a file relative to the archive's folder; empty for a folder."""
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or any(":" in p for p in place.parts[:1]):
            self._refuse(f"member {name!r} lies outside the archive's folder")
        if any(ord(letter) < 32 for letter in name) or not (place.parts or is_folder):
            self._refuse(f"a member has no usable name ({name!r})")
        self.total += size + _HEADER
        if self.total > self.limit:
            self._refuse(
                f"it unpacks to more than {self.limit:,} bytes, from {self.path.stat().st_size:,}; "
                "if it should, raise the limit (max_unpacked, in bytes, among the entry's "
                "reader_options)"
            )
        if is_folder:
            self.folders.add(place)
        elif place in self.files:
            self._refuse(f"member {name!r} occurs twice")
        else:
            self.files.add(place)
            self.folders.update(place.parents)
        if self.files.intersection(place.parents) or (place in self.files & self.folders):
            self._refuse(f"member {name!r} is both a file and a folder")
        return "" if is_folder else str(place)

    def _refuse(self, why: str) -> None:
        raise DataError(f"{self.path}: refused, {why}")
