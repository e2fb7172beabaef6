"""Packing finished records into one archive, and back; nothing is removed before its copy is read.

An archive is written under a temporary name, forced to the disk, read back, and put in its place;
only then the files that are in it go. Unpacking writes all files before the archive goes. So a
crash leaves at most both, which the next call tidies up.
"""

from __future__ import annotations

import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from panelbench.errors import PanelbenchError
from panelbench.records import claims
from panelbench.records.files import replacing
from panelbench.records.packs import FOLDER, SUFFIX, Archive, Member
from panelbench.records.store import Record, Store
from panelbench.records.times import new_attempt

_TIME = struct.Struct("<HHBI")
_TIME_HEAD = (0x5455, 5, 1)
"""Field of a zip entry with the time of its file, in seconds UTC."""


class PackError(PanelbenchError):
    """Records cannot be packed or unpacked now; nothing was removed."""


@dataclass(frozen=True)
class Packed:
    """An archive, and how many files went into it or came out, with their bytes."""

    archive: Path
    files: int = 0
    bytes: int = 0


def pack(store: Store, name: str, records: Iterable[Record]) -> Packed:
    """Pack records and their arrays into the archive of that name, beside what it has.

    Parameters
    ----------
    store
        The records.
    name
        Of the archive: that of a suite.
    records
        Records to pack. Those of a run that a process is at, and those that are packed, stay.

    Raises
    ------
    PackError
        When another process packs, or what is there does not fit.
    OSError
        When a file cannot be read or written; the records stay as they are.
    """
    path, records = store.root / FOLDER / f"{name}{SUFFIX}", list(records)
    with _alone(path.parent) as still:
        old = _there(path)
        loose = {name: store.root / name for name in _loose(store, records)}
        new = {name: file for name, file in loose.items() if name not in old}
        for name in loose.keys() & old.keys():
            _same(loose[name], old[name].read(), path)
        if new:
            _write(path, old, new, still)
        if loose:
            # Also where a call before was killed right after it had written the archive.
            for folder in (path.parent, store.root):
                _sync(folder)
        total = sum(file.stat().st_size for file in loose.values())
        for file in loose.values():
            file.unlink(missing_ok=True)
        _remove_empty({store.folder(record.address) for record in records}, store.runs)
    return Packed(path, len(loose), total)


def unpack(store: Store, path: Path) -> Packed:
    """Put what an archive has back, and remove it.

    Raises
    ------
    PackError
        When another process packs, or a file is there already and is another.
    OSError
        When the archive is damaged, or a file cannot be written; the archive stays.
    """
    with _alone(path.parent) as still:
        members = _there(path)
        for name, member in members.items():
            file = store.root / name
            content = member.read()
            if file.exists():
                _same(file, content, path)
                continue
            # All are forced to the disk together below; one by one takes a hundred times longer.
            with replacing(file, durable=False) as temporary:
                temporary.write_bytes(content)
                _set_time(temporary, member.info)
        os.sync()
        for name, member in members.items():
            _same(store.root / name, member.read(), path)
        still()
        path.unlink(missing_ok=True)
    return Packed(path, len(members), sum(m.info.file_size for m in members.values()))


def _there(path: Path) -> dict[str, Member]:
    """What an archive has; nothing where there is none."""
    try:
        return Archive.open(path).members()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PackError(f"{path}: {error}; get it back from a copy, or move it away") from None


def _loose(store: Store, records: Iterable[Record]) -> Iterator[str]:
    """Paths below the results folder of the files of records that lie by themselves."""
    for record in records:
        folder = store.folder(record.address)
        if not (folder / f"{record.attempt}.json").exists():
            continue
        if claims.holder(folder) is not None:
            continue
        for suffix in (".json", ".npz"):
            file = folder / f"{record.attempt}{suffix}"
            if file.exists():
                yield file.relative_to(store.root).as_posix()


def _write(
    path: Path, old: Mapping[str, Member], new: Mapping[str, Path], still: Callable[[], None]
) -> None:
    """Replace an archive by one that has its old files and new ones."""
    sums: dict[str, int] = {}
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "x") as target:
            for name in sorted({*old, *new}):
                if name in new:
                    info, content = _info(name, new[name]), new[name].read_bytes()
                else:
                    info, content = _copy(old[name].info), old[name].read()
                sums[name] = zlib.crc32(content)
                target.writestr(info, content)
        written = _there(temporary)
        for name, total in sums.items():
            if zlib.crc32(written[name].read()) != total:
                raise PackError(f"{path}: {name} is not read back as it was written")
        still()


def _info(name: str, file: Path) -> zipfile.ZipInfo:
    seconds = int(file.stat().st_mtime)
    # Zip programs know this field; the zip format's own time is of a time zone that nobody knows.
    info = zipfile.ZipInfo(name, max(time.gmtime(seconds)[:6], (1980, 1, 1, 0, 0, 0)))
    info.extra = _TIME.pack(*_TIME_HEAD, seconds & 0xFFFFFFFF)
    info.external_attr = 0o644 << 16
    # Arrays are zipped already.
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".npz") else zipfile.ZIP_DEFLATED
    return info


def _copy(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    copy = zipfile.ZipInfo(info.filename, info.date_time)
    copy.extra, copy.external_attr = info.extra, info.external_attr
    copy.compress_type = info.compress_type
    return copy


def _set_time(file: Path, info: zipfile.ZipInfo) -> None:
    if len(info.extra) == _TIME.size:
        *head, seconds = _TIME.unpack(info.extra)
        if tuple(head) == _TIME_HEAD:
            os.utime(file, (seconds, seconds))


def _same(file: Path, content: bytes, archive: Path) -> None:
    """Make sure that a file is the one that an archive has."""
    if file.read_bytes() != content:
        raise PackError(
            f"{file} is another than in {archive}: records are never changed, so one of the two "
            "is damaged; move the file away if it is"
        )


def _remove_empty(folders: Iterable[Path], top: Path) -> None:
    """Remove folders that have nothing left, and those above them."""
    folders = {*folders}
    for folder in sorted(folders.union(*(each.parents for each in folders)), reverse=True):
        if top in (folder, *folder.parents):
            with suppress(OSError):
                folder.rmdir()


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _alone(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the only right to change archives; gives what makes sure that it is held still."""
    mine = claims.Claims()
    if not mine.take(folder, new_attempt()):
        who = claims.holder(folder)
        where = f" ({who.host}, process {who.pid})" if who is not None and who.host else ""
        raise PackError(f"another process packs or unpacks {folder} now{where}: try again later")
    # What a killed one left.
    claims.forget_lost(folder)
    for left in folder.glob(f".*{SUFFIX}.*.tmp"):
        left.unlink(missing_ok=True)

    def still() -> None:
        if not mine.holds(folder):
            raise PackError(f"another process took over while this one slept: {folder}; try again")

    try:
        yield still
    finally:
        mine.close()
        with suppress(OSError):
            folder.rmdir()
