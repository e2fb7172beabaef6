"""Archives of records, read like the files that were packed into them.

``<results>/packs/<suite>.zip`` holds files of runs under the paths that they have below the
results folder; any zip program puts them back. What lies by itself is looked at first and the
archives afterwards: `packing` has an archive in its place before it removes what is in it.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

FOLDER = "packs"
"""Folder of the archives below the results folder."""
SUFFIX = ".zip"
_DAMAGED = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What reading a damaged archive ends in; zipfile says the last two where wrong bytes name a
compression that it does not know, or claim that a member is encrypted."""

_Stamp = tuple[str, int, int, int]
_Runs = dict[str, dict[str, zipfile.ZipInfo]]
"""Files by key and name."""


class Stat(NamedTuple):
    """What tells two contents of a packed file apart, as of a file by itself."""

    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


@dataclass(frozen=True)
class Archive:
    """An archive, opened: it can be read on though it was replaced or removed meanwhile.

    Attributes
    ----------
    path
        Where it lies.
    zip
        Reads it.
    places
        What it has of each data set and method.
    """

    path: Path
    zip: zipfile.ZipFile
    places: Mapping[tuple[str, str], _Runs]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Open an archive and read its list of files.

        Raises
        ------
        OSError
            When there is none, or it is damaged.
        """
        places: dict[tuple[str, str], _Runs] = {}
        try:
            found = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise
        except (*_DAMAGED, ValueError) as error:
            raise OSError(f"a damaged archive: {error}") from error
        for info in found.infolist():
            if info.is_dir():
                continue
            if not _of_record(info.filename):
                # Where the end is cut off, arrays in it, which are archives too, look like it.
                raise OSError(f"a damaged archive: {info.filename} in it is no file of a record")
            _, dataset, method, key, name = info.filename.split("/")
            places.setdefault((dataset, method), {}).setdefault(key, {})[name] = info
        return cls(path, found, places)

    def members(self) -> dict[str, Member]:
        """All files, by their paths below the results folder."""
        return {i.filename: Member(self, i) for i in self.zip.infolist() if not i.is_dir()}

    def read(self, info: zipfile.ZipInfo) -> bytes:
        """Content of a file, its checksum looked at.

        Raises
        ------
        OSError
            When it is damaged.
        """
        try:
            return self.zip.read(info)
        except _DAMAGED as error:
            raise OSError(f"{self.path}: a damaged archive: {error}") from error


def _of_record(name: str) -> bool:
    """Whether a path below the results folder is that of a record or of its arrays."""
    parts = name.split("/")
    plain = len(parts) == 5 and parts[0] == "runs" and not {"", ".", ".."} & {*parts}
    return plain and not parts[4].startswith(".") and name.endswith((".json", ".npz"))


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive."""

    archive: Archive
    info: zipfile.ZipInfo

    def read(self) -> bytes:
        """Its content; OSError when it is damaged."""
        return self.archive.read(self.info)

    def stat(self) -> Stat:
        """Its size and checksum, in the form of a file's size and times."""
        return Stat(self.info.file_size, -1, self.info.CRC)


@dataclass(frozen=True)
class Contents:
    """What archives there are, and which of them cannot be read, with the reason."""

    archives: tuple[Archive, ...] = ()
    problems: Mapping[Path, str] = field(default_factory=dict)

    def places(self) -> set[tuple[str, str]]:
        """Data sets and methods of which something is packed."""
        return {place for archive in self.archives for place in archive.places}

    def keys(self, dataset: str, method: str) -> set[str]:
        """Runs of which something is packed."""
        return {key for a in self.archives for key in a.places.get((dataset, method), ())}

    def files(self, dataset: str, method: str, key: str) -> dict[str, Member]:
        """The packed files of a run, by name."""
        return {
            name: Member(archive, info)
            for archive in self.archives
            for name, info in archive.places.get((dataset, method), {}).get(key, {}).items()
        }


class Packs:
    """The archives of a results folder; those that stay as they are are opened once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[dict[_Stamp, Archive | str], Contents] = ({}, Contents())
        self.look()

    @property
    def contents(self) -> Contents:
        """What the last look found."""
        return self._seen[1]

    def look(self) -> Contents:
        """What archives there are now."""
        known, contents = self._seen
        stamps = _stamps(self.folder)
        if stamps == known.keys():
            return contents
        found: dict[_Stamp, Archive | str] = {}
        for stamp in sorted(stamps):
            try:
                found[stamp] = known.get(stamp) or Archive.open(self.folder / stamp[0])
            except FileNotFoundError:
                continue
            except OSError as error:
                found[stamp] = f"{error}; get it back from a copy, or move it away"
        contents = Contents(
            tuple(archive for archive in found.values() if isinstance(archive, Archive)),
            {self.folder / s[0]: why for s, why in found.items() if isinstance(why, str)},
        )
        # Both at once: threads look at the same time.
        self._seen = found, contents
        return contents


def _stamps(folder: Path) -> set[_Stamp]:
    """Name, number, size and time of each archive."""
    stamps: set[_Stamp] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    stat = entry.stat()
                    stamps.add((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError:
        return stamps
    return stamps


def of(root: Path) -> Packs:
    """The archives of a results folder, shared by all of this process that read it."""
    # A process that was forked shares the place in an open file with its parent.
    return _of(os.path.abspath(root), os.getpid())  # noqa: PTH100


@cache
def _of(root: str, process: int) -> Packs:
    return Packs(Path(root) / FOLDER)


def opened(path: str | Path) -> BinaryIO:
    """Open a file of a run, wherever it is: by itself, or packed.

    Parameters
    ----------
    path
        Where it lies when it is not packed.

    Raises
    ------
    OSError
        When it is in neither place, or in a damaged archive.
    """
    path = Path(path)
    try:
        return path.open("rb")
    except FileNotFoundError:
        member = _member(path)
        # It may have been unpacked between the two looks.
        return path.open("rb") if member is None else io.BytesIO(member.read())


def _member(path: str | Path) -> Member | None:
    parts = str(path).rsplit("/", 5)
    if len(parts) < 6:
        return None
    root, _, dataset, method, key, name = parts
    return of(Path(root)).look().files(dataset, method, key).get(name)
