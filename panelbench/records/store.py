"""The record store: one immutable file per attempt, written once, by any number of processes.

``<results>/runs/<dataset>/<method>/<key>/<attempt>.json`` is a record; ``<attempt>.npz`` beside
it holds the arrays of a predictor and is written first. A ``<attempt>.started`` mark is there
while the run goes on; a mark that nobody stands behind any more means that the run was lost.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

from panelbench.errors import DataError

if TYPE_CHECKING:
    import numpy as np

Status = Literal["ok", "failed", "timeout", "oom", "skipped", "lost"]
STATUSES: tuple[str, ...] = get_args(Status)
FORMAT = 1
_TAKEN = 60.0
"""Seconds of grace before a silent run on another machine counts as lost."""


@dataclass(frozen=True)
class Address:
    """Where the attempts of one run lie."""

    dataset: str
    method: str
    key: str


@dataclass(frozen=True)
class Record:
    """One attempt at one run.

    Attributes
    ----------
    stage
        ``"select"`` or ``"evaluate"``.
    address
        Data set, method and key.
    attempt
        UTC time, host, process and four random bytes: unique, and sorted by time.
    slot
        Digest of what was asked for, without code and versions: records of the same question
        share it. `identity` has both.
    status, reason
        How it ended, and why if not ``ok``.
    identity
        The fields whose digest is the key.
    asked
        What tables are made from: variant, label, tasks, k, seed, evaluator and the like.
    result
        Ranking and info, or metrics.
    cost
        ``seconds``, ``cpu_seconds``, ``peak_memory_mb``, ``gpu_memory_mb``.
    outside
        What was set but is in no key: limits, n_jobs, device, whether it came from the cache.
    environment
        Machine and versions.
    warnings
        Texts of Python warnings, without repetitions.
    """

    stage: str
    address: Address
    attempt: str
    slot: str
    status: str
    reason: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    outside: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    started: str = ""
    ended: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """One JSON text, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what `to_json` wrote; unknown keys of later versions are ignored."""
        data = json.loads(text)
        data["address"] = Address(**data["address"])
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


def now() -> str:
    """Present time, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_attempt() -> str:
    """Name for an attempt: unique across machines, and in order of time."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:24]
    job = os.environ.get("SLURM_JOB_ID") or str(os.getpid())
    return f"{time}-{host}-{job}-{secrets.token_hex(4)}"


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file so that readers see all of it or nothing.

    The temporary name is in the same folder; the content is on disk before the name appears
    (if `durable`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            if durable:
                _sync(handle)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())


class Store:
    """Records below a results folder.

    Parameters
    ----------
    root
        The results folder; created when the first record is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"

    def folder(self, address: Address) -> Path:
        """Folder of a run's attempts."""
        return self.runs / address.dataset / address.method / address.key

    def facts_path(self, dataset: str, slot: str) -> Path:
        """What preprocessing found out about a data set, as JSON."""
        return self.root / "datasets" / dataset / f"{slot}.json"

    # -- writing ---------------------------------------------------------------------------

    def begin(self, address: Address, attempt: str, limit: float | None) -> None:
        """Leave a mark that an attempt has started in this process."""
        mark = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
            "started": now(),
            "limit": limit,
        }
        path = self.folder(address) / f"{attempt}.started"
        # A mark need not survive the machine, only the process: it is not forced to the disk.
        write_atomically(path, json.dumps(mark), durable=False)

    def write(self, record: Record, arrays: Mapping[str, np.ndarray] | None = None) -> Path:
        """Write a record (and its arrays, first) and take the mark away."""
        folder = self.folder(record.address)
        path = folder / f"{record.attempt}.json"
        if arrays:
            write_atomically(path.with_suffix(".npz"), _npz(arrays))
        write_atomically(path, record.to_json())
        path.with_suffix(".started").unlink(missing_ok=True)
        return path

    # -- reading ---------------------------------------------------------------------------

    def attempts(self, address: Address) -> list[Record]:
        """All records of a run, oldest first; lost attempts are among them."""
        return _attempts(self.folder(address), address)

    def newest(self, address: Address) -> Record | None:
        """The newest ``ok`` record of a run, else the newest one, else None."""
        return newest(self.attempts(address))

    def running(self, address: Address) -> bool:
        """Whether some process is at this run now."""
        return any(_alive(mark) for mark in _glob(self.folder(address), ".started"))

    def arrays_path(self, record: Record) -> Path:
        """File of a record's arrays, which it may not have."""
        return self.folder(record.address) / f"{record.attempt}.npz"

    def arrays(self, record: Record) -> dict[str, np.ndarray]:
        """Arrays of a record: of a predictor, or for pictures."""
        import numpy as np

        with np.load(self.arrays_path(record), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def __iter__(self) -> Iterator[Record]:
        """Yield every record, in the order of the folders' names."""
        for folder in sorted(self.runs.glob("*/*/*")):
            address = Address(folder.parent.parent.name, folder.parent.name, folder.name)
            yield from _attempts(folder, address)

    def by_slot(self, dataset: str, method: str) -> dict[str, list[Record]]:
        """All records of a method on a data set, grouped by what was asked for."""
        groups: dict[str, list[Record]] = {}
        for folder in sorted((self.runs / dataset / method).glob("*")):
            for record in _attempts(folder, Address(dataset, method, folder.name)):
                groups.setdefault(record.slot, []).append(record)
        return groups

    def leftovers(self) -> list[Path]:
        """Temporary files and marks of attempts that are no longer running."""
        marks = [p for p in self.runs.glob("*/*/*/*.started") if not _alive(p)]
        return sorted([*marks, *self.runs.glob("*/*/*/.*.tmp")])


def newest(records: Sequence[Record]) -> Record | None:
    """Pick the newest ``ok`` record, else the newest one, else None."""
    best = [record for record in records if record.status == "ok"] or list(records)
    return max(best, key=lambda record: record.attempt, default=None)


def ranks_enough(record: Record, k: int) -> bool:
    """Whether a selection's record, if it is ok, serves a panel of k genes.

    A nested ranking may have been made for a smaller k.
    """
    return (
        record.status != "ok"
        or record.asked.get("k", 0) >= k
        or len(record.result.get("ranking", ())) >= k
    )


def _glob(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for p in folder.glob(f"*{suffix}") if not p.name.startswith("."))


def _attempts(folder: Path, address: Address) -> list[Record]:
    # Marks are listed before records: a run that ends in between is then seen as a record.
    marks = _glob(folder, ".started")
    found = {path.stem: _read(path) for path in _glob(folder, ".json")}
    for mark in marks:
        if mark.stem not in found and not _alive(mark) and mark.exists():
            found[mark.stem] = Record(
                stage="",
                address=address,
                attempt=mark.stem,
                slot="",
                status="lost",
                reason="the run stopped without leaving a record (killed, or the machine went)",
            )
    slot = next((r for r in found.values() if r.slot), None)
    if slot is not None:
        found = {n: r if r.slot else replace(r, slot=slot.slot) for n, r in found.items()}
    return [found[name] for name in sorted(found)]


def _read(path: Path) -> Record:
    try:
        return Record.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a record of this suite ({error}); move it out of the results folder"
        ) from None


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    import io

    import numpy as np

    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; only numbers and text are kept")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _born(pid: int) -> float | None:
    """Start time of a process, None when there is none with this number or it has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        # A killed process stays as a zombie until somebody asks for its exit code.
        ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return None if ended else float(process.create_time())
    except psutil.Error:
        return None


def _alive(mark: Path) -> bool:
    """Whether the process behind a mark still runs.

    On another machine this cannot be asked: there a mark counts until the run's time limit and
    a grace period are over.
    """
    try:
        info = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if info["host"] == socket.gethostname():
        born = _born(info["pid"])
        return born is not None and abs(born - (info["born"] or 0.0)) < 1.0
    age = (datetime.now(UTC) - datetime.fromisoformat(info["started"])).total_seconds()
    return bool(age < (info["limit"] or 0.0) + _TAKEN)
