"""Files of a data set: found in a mirror folder or downloaded, and checked.

A file is looked for in this order: the path itself, if its name is one; the installed package, for
addresses like ``package:scanpy/datasets/x.h5ad``; the mirror folders, by name; the downloads
folder; the internet. Its SHA-256 must be the declared one. Where none is declared, a file that can
be what its name says is taken, the first digest seen is kept beside the download
(``<file>.sha256``), and every later file must match it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from panelbench.data.content import complaint
from panelbench.data.download import Say, download, forget_leftovers, in_words, only_one
from panelbench.data.specs import PACKAGE, DatasetSpec, SourceFile
from panelbench.errors import DataError
from panelbench.records.files import write_atomically
from panelbench.records.keys import digest, file_sha256


def fetch(
    spec: DatasetSpec, downloads: Path, mirrors: Sequence[Path] = (), say: Say | None = None
) -> dict[str, Path]:
    """Local paths of all files of a data set, each checked.

    Parameters
    ----------
    spec
        The data set.
    downloads
        Folder for downloads; each data set has its own folder below.
    mirrors
        Folders searched by file name before anything is downloaded.
    say
        Is told how far a download is; without it, that goes to standard error.

    Returns
    -------
    File name -> path.

    Raises
    ------
    DataError
        A file that is not available, that cannot be what its name says, or whose SHA-256 is not
        the expected one.
    """
    return {file.name: _fetch_one(spec, file, downloads, mirrors, say) for file in spec.files}


def source_checksum(
    spec: DatasetSpec, downloads: Path, mirrors: Sequence[Path] = (), *, download: bool = True
) -> str:
    """Digest of the contents of all files of a data set.

    Declared and recorded digests are taken as they are, without opening a file (`fetch` checks
    them); a local file is read once and its digest remembered until its size or time changes.

    Parameters
    ----------
    download
        Whether a file without any digest yet may be downloaded; if not, it is an error that says
        what would be.

    Returns
    -------
    Hexadecimal digest; the same for a data set without files.

    Raises
    ------
    DataError
        As `fetch`, for a file without any digest yet; for a data set that cannot be read so far.
    """
    if spec.missing:
        raise DataError(f"{spec.id} is not available yet: {spec.missing}")
    found = {}
    for file in spec.files:
        known = file.sha256 or _recorded(_pin(spec, file, downloads))
        if known is None:
            if not download and not _found(spec, file, downloads, mirrors):
                size = f" ({in_words(file.size)})" if file.size else ""
                raise DataError(
                    f"{spec.id}: {file.name}{size} is not downloaded yet; "
                    f"panelbench preprocess --dataset {spec.id} does that"
                )
            path = _fetch_one(spec, file, downloads, mirrors, None)
            known = _digest_of(path, downloads)
        found[PurePosixPath(file.name).name] = known
    return digest(found)


def downloaded(spec: DatasetSpec, downloads: Path) -> list[Path]:
    """What lies in the downloads folder for a data set: files, and digests recorded for them."""
    files = [downloads / _folder(spec) / Path(file.name).name for file in spec.files]
    both = [path for file in files for path in (file, file.with_name(f"{file.name}.sha256"))]
    return [path for path in both if path.is_file()]


def is_here(
    spec: DatasetSpec, file: SourceFile, downloads: Path, mirrors: Sequence[Path] = ()
) -> bool:
    """Whether a file needs no download; a local one that is missing is not here."""
    try:
        return _found(spec, file, downloads, mirrors) is not None
    except DataError:
        return False


def _found(
    spec: DatasetSpec, file: SourceFile, downloads: Path, mirrors: Sequence[Path]
) -> Path | None:
    """Path of a file that is here already, or None."""
    kept = downloads / _folder(spec) / Path(file.name).name
    return _local(spec, file) or _mirrored(file, mirrors) or (kept if kept.is_file() else None)


def _fetch_one(
    spec: DatasetSpec,
    file: SourceFile,
    downloads: Path,
    mirrors: Sequence[Path],
    say: Say | None,
) -> Path:
    kept = downloads / _folder(spec) / Path(file.name).name
    path = _found(spec, file, downloads, mirrors) or _download(spec, file, kept, downloads, say)
    if _local(spec, file) and not file.sha256:
        return path
    pin = _pin(spec, file, downloads)
    expected, found = file.sha256 or _recorded(pin), _digest_of(path, downloads)
    if expected is None:
        wrong = complaint(path, file.name) if path.is_file() else None
        if wrong:
            raise DataError(f"{spec.id}: {path} {wrong}; delete it and try again")
        pin.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pin, f"{found}  {kept.name}\n")
    elif found != expected:
        raise DataError(_mismatch(spec, file, path, expected, found, pin))
    return path


def _mismatch(
    spec: DatasetSpec, file: SourceFile, path: Path, expected: str, found: str, pin: Path
) -> str:
    wrong = complaint(path, file.name)
    advice = f"the file {wrong}; " if wrong else "it may be damaged, or the source has changed; "
    advice += f"delete {path} and try again"
    if not file.sha256:
        advice += f"; if the new file is right, delete {pin} too"
    return (
        f"{spec.id}: checksum mismatch of {path}: SHA-256 is {found}, expected {expected}; {advice}"
    )


def _local(spec: DatasetSpec, file: SourceFile) -> Path | None:
    """Path of a file that needs neither mirror nor download, or None."""
    if file.url is not None and file.url.startswith(PACKAGE):
        package, _, inner = file.url.removeprefix(PACKAGE).partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise DataError(f"{spec.id}: {file.name} comes with {package}, which is not installed")
        path = Path(next(iter(found.submodule_search_locations))) / inner
        return path if path.is_file() else None
    path = Path(file.name)
    if file.url is not None or not (path.exists() or path.is_absolute()):
        return None
    if not path.exists():
        raise DataError(f"{spec.id}: no such file: {path}")
    return path


def _mirrored(file: SourceFile, mirrors: Sequence[Path]) -> Path | None:
    for folder in mirrors:
        path = folder / Path(file.name).name
        if path.exists():
            return path
    return None


def _download(
    spec: DatasetSpec, file: SourceFile, target: Path, downloads: Path, say: Say | None
) -> Path:
    """Download a file, or wait for another process that does; check it before it is kept."""
    place = f"put {target.name} into a folder and name it with --mirror or $PANELBENCH_MIRROR"
    if file.url is None or file.url.startswith(PACKAGE):
        source = f" (see {spec.homepage})" if spec.homepage else ""
        raise DataError(
            f"{spec.id}: {file.name} has no download address and is in no mirror folder; "
            f"{place}{source}"
        )

    def check(path: Path) -> None:
        expected = file.sha256 or _recorded(_pin(spec, file, downloads))
        found, wrong = file_sha256(path), complaint(path, file.name)
        if expected is not None and found != expected:
            why = f"it {wrong}" if wrong else "the source has changed or the download was damaged"
            raise DataError(
                f"{spec.id}: checksum mismatch of the download {file.url}: SHA-256 is {found}, "
                f"expected {expected}; {why}. It was not kept; try again, or {place}"
            )
        if expected is None and wrong:
            raise DataError(
                f"{spec.id}: what {file.url} gave {wrong}. It was not kept; try again, or {place}"
            )

    def waiting() -> None:
        text = f"waiting for another process that downloads {spec.id}: {file.name}"
        if say:
            say(0.0, text)
        else:
            print(f"panelbench: {text}", file=sys.stderr, flush=True)

    try:
        with only_one(downloads / ".locks" / f"{_folder(spec)}--{target.name}", waiting) as alone:
            if alone:
                forget_leftovers(target)
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                download(file.url, target, f"{spec.id}: {file.name}", file.size, say, check)
    except OSError as error:
        raise DataError(
            f"{spec.id}: cannot download {file.url}: {error}. Without internet, as on many "
            f"compute nodes: run panelbench preprocess --dataset {spec.id} with the same --cache "
            f"where there is, or {place}"
        ) from error
    return target


def _folder(spec: DatasetSpec) -> str:
    """Name of the folder with the downloads of a data set."""
    return (spec.folder or spec.id).replace(":", "_")


def _pin(spec: DatasetSpec, file: SourceFile, downloads: Path) -> Path:
    return downloads / _folder(spec) / f"{Path(file.name).name}.sha256"


def _recorded(pin: Path) -> str | None:
    try:
        return pin.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return None


def _digest_of(path: Path, downloads: Path) -> str:
    """SHA-256 of a file or folder, remembered by path, size and time in ``digests.json``."""
    memory = downloads / "digests.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    files, name = _files_of(path), str(path.resolve())
    stats = [file.stat() for file in files]
    stamp = [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]
    entry = known.get(name) if isinstance(known, dict) else None
    if isinstance(entry, list) and entry[:2] == stamp:
        return str(entry[2])
    if path.is_dir():
        found = digest({str(file.relative_to(path)): file_sha256(file) for file in files})
    else:
        found = file_sha256(path)
    # Only a memory: a folder that cannot be written costs time, not correctness.
    with contextlib.suppress(OSError):
        downloads.mkdir(parents=True, exist_ok=True)
        fresh = {**known, name: [*stamp, found]} if isinstance(known, dict) else {}
        write_atomically(memory, json.dumps(fresh, indent=1))
    return found


def _files_of(path: Path) -> list[Path]:
    """A file, or all files of a folder (a Zarr store)."""
    return [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]
