"""Files of a data set: found in a mirror folder or downloaded, and checked.

A file is looked for in this order: the path itself, if its name is one; the installed package, for
addresses like ``package:scanpy/datasets/x.h5ad``; the mirror folders, by name; the downloads
folder; the internet. Its SHA-256 must be the declared one. Where none is declared, the first digest
seen is kept beside the download (``<file>.sha256``) and every later file must match it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from panelbench.data.specs import DatasetSpec, SourceFile
from panelbench.errors import DataError
from panelbench.records.keys import digest, file_sha256

_PACKAGE = "package:"


def fetch(spec: DatasetSpec, downloads: Path, mirrors: Sequence[Path] = ()) -> dict[str, Path]:
    """Local paths of all files of a data set, each checked.

    Parameters
    ----------
    spec
        The data set.
    downloads
        Folder for downloads; each data set has its own folder below.
    mirrors
        Folders searched by file name before anything is downloaded.

    Returns
    -------
    File name -> path.

    Raises
    ------
    DataError
        A file that cannot be had, or whose SHA-256 is not the expected one.
    """
    return {file.name: _fetch_one(spec, file, downloads, mirrors) for file in spec.files}


def source_checksum(spec: DatasetSpec, downloads: Path, mirrors: Sequence[Path] = ()) -> str:
    """Digest of the contents of all files of a data set.

    Declared and recorded digests are taken as they are, without opening a file (`fetch` checks
    them); a local file is read once and its digest remembered until its size or time changes.

    Returns
    -------
    Hexadecimal digest; the same for a data set without files.

    Raises
    ------
    DataError
        As `fetch`, for a file without any digest yet; for a data set that cannot be read so far.
    """
    if spec.missing:
        raise DataError(f"{spec.id} cannot be had yet: {spec.missing}")
    found = {}
    for file in spec.files:
        known = file.sha256 or _recorded(_pin(spec, file, downloads))
        if known is None:
            path = _fetch_one(spec, file, downloads, mirrors)
            known = _digest_of(path, downloads)
        found[PurePosixPath(file.name).name] = known
    return digest(found)


def _fetch_one(
    spec: DatasetSpec, file: SourceFile, downloads: Path, mirrors: Sequence[Path]
) -> Path:
    local = _local(spec, file)
    path = local or _mirrored(file, mirrors)
    kept = downloads / _safe(spec.id) / Path(file.name).name
    if path is None and kept.is_file():
        path = kept
    if path is None:
        path = _download(spec, file, kept, downloads)
    pin = _pin(spec, file, downloads)
    expected = file.sha256 or (None if local else _recorded(pin))
    found = _digest_of(path, downloads)
    if expected is None and local is None:
        pin.parent.mkdir(parents=True, exist_ok=True)
        _write(pin, f"{found}  {kept.name}\n")
    elif expected is not None and found != expected:
        raise DataError(_mismatch(spec, path, expected, found, pin if not file.sha256 else None))
    return path


def _mismatch(spec: DatasetSpec, path: Path, expected: str, found: str, pin: Path | None) -> str:
    advice = "delete it and try again: it may be damaged, or the source has changed"
    if pin is not None:
        advice += f"; if the new file is right, delete {pin} too"
    return (
        f"{spec.id}: checksum mismatch of {path}: SHA-256 is {found}, expected {expected}; {advice}"
    )


def _local(spec: DatasetSpec, file: SourceFile) -> Path | None:
    """Path of a file that needs neither mirror nor download, or None."""
    if file.url is not None and file.url.startswith(_PACKAGE):
        package, _, inner = file.url.removeprefix(_PACKAGE).partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise DataError(f"{spec.id}: {file.name} comes with {package}, which is not installed")
        path = Path(next(iter(found.submodule_search_locations))) / inner
        return path if path.is_file() else None
    path = Path(file.name)
    if file.url is not None or not (path.is_file() or path.is_absolute()):
        return None
    if not path.is_file():
        raise DataError(f"{spec.id}: no such file: {path}")
    return path


def _mirrored(file: SourceFile, mirrors: Sequence[Path]) -> Path | None:
    for folder in mirrors:
        path = folder / Path(file.name).name
        if path.is_file():
            return path
    return None


def _download(spec: DatasetSpec, file: SourceFile, target: Path, downloads: Path) -> Path:
    """Download to a temporary name, check a declared digest, move into place."""
    place = f"put {target.name} into a folder and name it with --mirror or $PANELBENCH_MIRROR"
    if file.url is None or file.url.startswith(_PACKAGE):
        source = f" (see {spec.homepage})" if spec.homepage else ""
        raise DataError(
            f"{spec.id}: {file.name} has no download address and is in no mirror folder; "
            f"{place}{source}"
        )
    import pooch

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(file.url, known_hash=None, fname=partial.name, path=partial.parent)
        found = file_sha256(partial)
        expected = file.sha256 or _recorded(_pin(spec, file, downloads))
        if expected is not None and found != expected:
            raise DataError(
                f"{spec.id}: checksum mismatch of the download {file.url}: SHA-256 is {found}, "
                f"expected {expected}; the source has changed or the download was damaged. "
                f"Try again, or {place}"
            )
        partial.replace(target)
    except (OSError, ValueError) as error:  # requests raises subclasses of OSError
        raise DataError(
            f"{spec.id}: cannot download {file.url}: {error}; without internet, {place}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _safe(name: str) -> str:
    """Folder name of a data set id."""
    return name.replace(":", "_")


def _pin(spec: DatasetSpec, file: SourceFile, downloads: Path) -> Path:
    return downloads / _safe(spec.id) / f"{Path(file.name).name}.sha256"


def _recorded(pin: Path) -> str | None:
    try:
        return pin.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return None


def _digest_of(path: Path, downloads: Path) -> str:
    """SHA-256 of a file, remembered by path, size and time in ``digests.json``."""
    memory = downloads / "digests.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    stat, name = path.stat(), str(path.resolve())
    stamp = [stat.st_size, stat.st_mtime_ns]
    entry = known.get(name) if isinstance(known, dict) else None
    if isinstance(entry, list) and entry[:2] == stamp:
        return str(entry[2])
    found = file_sha256(path)
    # Only a memory: a folder that cannot be written costs time, not correctness.
    with contextlib.suppress(OSError):
        downloads.mkdir(parents=True, exist_ok=True)
        fresh = {**known, name: [*stamp, found]} if isinstance(known, dict) else {}
        _write(memory, json.dumps(fresh, indent=1))
    return found


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
