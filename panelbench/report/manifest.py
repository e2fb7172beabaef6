"""What a report's folder holds and what it was made from: what did not change is not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel

from panelbench.records.files import write_atomically
from panelbench.records.keys import file_sha256, library_versions
from panelbench.report.results import Results, ScoreLine, SelectionLine

NAME = "manifest.json"
FORMAT = 1
_LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "pillow", "scikit-posthocs", "scipy")


@dataclass(frozen=True)
class Manifest:
    """The files of a report.

    Attributes
    ----------
    origin
        Digest of everything that the report is made from, and of the code that makes it.
    files
        SHA-256 of each file by its name below the folder.
    drawings
        Digest of what each figure is drawn from, by its name without suffix.
    source
        The data file of one's own that the report is about, "" for a suite's data sets.
    """

    origin: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    drawings: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder; an empty one where there is none that can be read."""
        try:
            found = json.loads((folder / NAME).read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT:
                return cls()
            files = {name: str(sha) for name, sha in found["files"].items() if _inside(name)}
            drawings = dict(found["drawings"])
            return cls(str(found["origin"]), files, drawings, str(found["source"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder."""
        content = {"format": FORMAT, **vars(self)}
        write_atomically(folder / NAME, json.dumps(content, indent=1) + "\n", durable=False)

    def holds(self, folder: Path, name: str) -> bool:
        """Whether a file is there as it was written."""
        path = folder / name
        try:
            return name in self.files and file_sha256(path) == self.files[name]
        except OSError:
            return False

    def is_whole(self, folder: Path) -> bool:
        """Whether all files are there as they were written."""
        return bool(self.files) and all(self.holds(folder, name) for name in self.files)

    def remove_others(self, folder: Path, kept: Mapping[str, Any]) -> None:
        """Delete files that were written and are not `kept`; not what somebody has changed."""
        for name in self.files.keys() - kept.keys():
            if self.holds(folder, name):
                (folder / name).unlink(missing_ok=True)
                if (folder / name).parent != folder:
                    with suppress(OSError):
                        (folder / name).parent.rmdir()


def report_folder(reports: Path, results: Results) -> Path:
    """Folder of a suite's report; a second data file of the same name gets one of its own."""
    folder = reports / results.suite.name
    there = Manifest.read(folder)
    if not there.files or there.source == results.source:
        return folder
    return reports / f"{results.suite.name}-{digest_of(results.source)[:6]}"


def _inside(name: str) -> bool:
    """Whether a name stays in the folder, whoever wrote the manifest."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and len(path.parts) <= 2


def origin_of(results: Results, reference: Path | None) -> str:
    """Digest of all that a report is made from; the order of lines does not matter."""
    numbers = sorted(reference.glob("*.csv")) if reference is not None else []
    return digest_of(
        {
            "maker": maker(),
            "suite": results.suite,
            "rows": results.rows,
            "scores": sorted(map(_version, results.scores)),
            "selections": sorted(map(_version, results.selections)),
            "datasets": results.datasets,
            "stale": results.stale,
            "published": {path.name: file_sha256(path) for path in numbers},
        }
    )


def _version(line: ScoreLine | SelectionLine) -> list[str]:
    """What a line is about: the version of its record, or all of it where there is none."""
    return [line.key, line.record or digest_of(line)]


@cache
def maker() -> str:
    """Digest of the code and libraries that make reports."""
    root = Path(__file__).parent.parent
    paths = [p for part in ("report", "scoring") for p in (root / part).rglob("*") if p.is_file()]
    paths = [path for path in paths if path.suffix in (".py", ".j2", ".css")]
    code = {str(p.relative_to(root)): file_sha256(p) for p in (*paths, root / "text.py")}
    return digest_of([code, library_versions(_LIBRARIES)])


def digest_of(value: Any) -> str:
    """SHA-256 of dataclasses, models, arrays and whatever JSON holds."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return sha256(text.encode())


def sha256(data: bytes) -> str:
    """Digest of the bytes of a file."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return [str(data.dtype), data.shape, sha256(data.tobytes())]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if hasattr(value, "__dict__"):
        return vars(value)
    raise TypeError(f"{type(value).__name__} has no digest")
