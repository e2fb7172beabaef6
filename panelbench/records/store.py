"""The record store: one immutable file per attempt, written once, by any number of processes.

``<results>/runs/<dataset>/<method>/<key>/<attempt>.json`` is a record; ``<attempt>.npz`` beside
it holds the arrays of a predictor and is written first. What a record belongs to is where it
lies, never what it says. While a run goes on, its folder has a claim (see `claims`). Both files
may have been packed into an archive instead (see `packs`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.records import claims, packs
from panelbench.records.files import TEMPORARY, read_text, replacing, write_atomically
from panelbench.records.status import Status, status_of

if TYPE_CHECKING:
    import numpy as np

FORMAT = 2
"""Version of the records' form; raised when a field changes its meaning."""


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
        Data set, method and key; read from where the file lies.
    attempt
        UTC time, host, process and four random bytes: unique, and sorted by time. The name of
        the file.
    question
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
    question: str
    status: Status
    reason: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    outside: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """One JSON text, keys sorted; address and attempt are the file's place and name."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        del content["address"], content["attempt"]
        return json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, address: Address, attempt: str) -> Record:
        """Read what `to_json` wrote; unknown keys of later versions are ignored.

        Raises
        ------
        ValueError
            When it is no record.
        """
        try:
            data = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return cls.of(data, address, attempt)

    @classmethod
    def of(
        cls, data: Any, address: Address, attempt: str, parts: Mapping[str, Any] | None = None
    ) -> Record:
        """Make a record from what its JSON holds; `parts` stand for some of it.

        Raises
        ------
        ValueError
            When it is no record.
        """
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        known: dict[str, Any] = {}
        for name, value in data.items():
            if name in _KINDS:
                if not isinstance(value, _KINDS[name]):
                    raise ValueError(f"{name} is no {_KINDS[name].__name__}")
                known[name] = value
        if "warnings" in known:
            known["warnings"] = tuple(known["warnings"])
        known["status"] = status_of(known.get("status"))
        if parts is not None:
            known |= parts
        try:
            return cls(address=address, attempt=attempt, **known)
        except TypeError as error:
            raise ValueError(str(error)) from None


_KINDS: dict[str, type] = {
    **dict.fromkeys(("stage", "question", "reason", "started", "ended"), str),
    **dict.fromkeys(("identity", "asked", "result", "cost", "outside", "environment"), dict),
    "warnings": list,
    "status": object,
    "format": object,
}
"""What JSON holds of a record, and of which type it must be."""


class Store:
    """Records below a results folder.

    Parameters
    ----------
    root
        The results folder; created when the first record is written.

    Attributes
    ----------
    unreadable
        Files that lie where records do and are none, with what is wrong; they are passed over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.packs = packs.of(root)
        self.unreadable: dict[Path, str] = {}

    def folder(self, address: Address) -> Path:
        """Folder of a run's attempts."""
        return Path(self._folder(address))

    def _folder(self, address: Address) -> str:
        # Joining paths one by one takes longer than to read a record.
        return f"{self.runs}/{address.dataset}/{address.method}/{address.key}"

    def path(self, record: Record) -> Path:
        """File of a record, unless it is packed."""
        return Path(f"{self._folder(record.address)}/{record.attempt}.json")

    def facts_path(self, dataset: str, question: str) -> Path:
        """What preprocessing found out about a data set, as JSON."""
        return self.root / "datasets" / dataset / f"{question}.json"

    # -- writing ---------------------------------------------------------------------------

    def write(self, record: Record, arrays: Mapping[str, np.ndarray] | None = None) -> Path:
        """Write a record (its arrays first); traces of lost attempts go when it is ``ok``."""
        folder = self.folder(record.address)
        path = folder / f"{record.attempt}.json"
        if arrays:
            _write_arrays(path.with_suffix(".npz"), arrays)
        write_atomically(path, record.to_json())
        if record.status is Status.OK:
            claims.forget_lost(folder)
        return path

    def delete(self, record: Record) -> None:
        """Delete a record and its arrays; a lost attempt's trace likewise."""
        for suffix in (".json", ".npz", claims.LOST):
            path = self.folder(record.address) / f"{record.attempt}{suffix}"
            path.unlink(missing_ok=True)

    # -- reading ---------------------------------------------------------------------------

    def attempts(self, address: Address) -> list[Record]:
        """All records of a run, oldest first; lost attempts are among them."""
        names = self.files(address)
        return assembled(self.folder, address, names, lambda name: self.attempt(address, name))

    def files(self, address: Address) -> dict[str, os.DirEntry[str] | packs.Member]:
        """The files of a run by name, by themselves or packed; each has a ``stat``."""
        # Whoever packs removes a file when its archive is there, and the other way round: what was
        # known before and is seen after the look at the folder has all.
        where = address.dataset, address.method, address.key
        before = self.packs.contents
        loose = _entries(self._folder(address))
        after = self.packs.look()
        if not before.archives and not after.archives:
            return dict(loose)
        return {**before.files(*where), **after.files(*where), **loose}

    def attempt(self, address: Address, attempt: str) -> Record | None:
        """One record; None when it is not there, or is none (which is noted in `unreadable`)."""
        try:
            return self.read(address, attempt)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            self.unreadable[self.folder(address) / f"{attempt}.json"] = f"{error}"
            return None

    def read(self, address: Address, attempt: str) -> Record:
        """Read one record.

        Raises
        ------
        OSError, ValueError
            When it cannot be read, or is none.
        """
        path = f"{self._folder(address)}/{attempt}.json"
        try:
            text = read_text(path)
        except FileNotFoundError:
            with packs.opened(path) as handle:
                text = handle.read().decode("utf-8")
        return Record.from_json(text, address, attempt)

    def passed_over(self) -> dict[Path, str]:
        """All that could not be read so far, damaged archives too, with the reason."""
        return {**self.unreadable, **self.packs.look().problems}

    def newest(self, address: Address) -> Record | None:
        """The newest ``ok`` record of a run, else the newest one, else None."""
        return newest(self.attempts(address))

    def arrays_path(self, record: Record) -> Path:
        """File of a record's arrays, which it may not have, or not by itself: `packs.opened`."""
        return Path(f"{self._folder(record.address)}/{record.attempt}.npz")

    def arrays(self, record: Record) -> dict[str, np.ndarray]:
        """Arrays of a record: of a predictor, or for pictures."""
        import numpy as np

        with (
            packs.opened(self.arrays_path(record)) as handle,
            np.load(handle, allow_pickle=False) as stored,
        ):
            return {name: stored[name] for name in stored.files}

    def places(self) -> list[tuple[str, str]]:
        """Data sets and methods that have records, in the order of their names."""
        loose = {(path.parent.name, path.name) for path in self.runs.glob("*/*")}
        return sorted(loose | self.packs.look().places())

    def keys(self, dataset: str, method: str) -> set[str]:
        """Runs of a method on a data set, begun or packed."""
        loose = set(_entries(f"{self.runs}/{dataset}/{method}"))
        return loose | self.packs.look().keys(dataset, method)

    def addresses(self, start: str = "") -> Iterator[Address]:
        """Yield the place of every run whose key begins so, in the order of the folders' names."""
        for dataset, method in self.places():
            for key in sorted(self.keys(dataset, method)):
                if key.startswith(start):
                    yield Address(dataset, method, key)

    def __iter__(self) -> Iterator[Record]:
        """Yield every record, in the order of the folders' names."""
        for address in self.addresses():
            yield from self.attempts(address)

    def leftovers(self) -> list[Path]:
        """What killed processes left: temporary files, stale claims, traces of lost attempts."""
        folders = [path for path in self.runs.glob("*/*/*") if path.is_dir()]
        places = (f"runs/*/*/*/{TEMPORARY}", f"index/*/{TEMPORARY}", f"packs/{TEMPORARY}")
        return sorted(
            [*(p for folder in (*folders, self.packs.folder) for p in claims.leftovers(folder)),
             *(path for place in places for path in self.root.glob(place))]
        )  # fmt: skip


def _entries(folder: str) -> dict[str, os.DirEntry[str]]:
    """What is in a folder by name; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return {entry.name: entry for entry in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def assembled(
    folder: Callable[[Address], Path],
    address: Address,
    names: Iterable[str],
    read: Callable[[str], Record | None],
) -> list[Record]:
    """The attempts of a run, oldest first, from the names of its files; lost ones among them.

    Parameters
    ----------
    folder
        Gives the folder of a run.
    address
        The run.
    names
        Files in its folder.
    read
        Gives the record of an attempt, None when it is none.
    """
    found: dict[str, Record] = {}
    lost = []
    for name in names:
        if name.endswith(".json") and not name.startswith("."):
            record = read(name.removesuffix(".json"))
            if record is not None:
                found[record.attempt] = record
        elif name == claims.CLAIM or name.endswith(claims.LOST):
            lost.append(name)
    if lost:
        known = next((found[name] for name in sorted(found) if found[name].question), None)
        for attempt in claims.lost_attempts(folder(address), names):
            found.setdefault(attempt, _lost(address, attempt, known))
    return [found[name] for name in sorted(found)]


def newest(records: Sequence[Record]) -> Record | None:
    """Pick the newest ``ok`` record, else the newest one, else None."""
    best = [record for record in records if record.status is Status.OK] or list(records)
    return max(best, key=lambda record: record.attempt, default=None)


def ranks_enough(record: Record, k: int) -> bool:
    """Whether a record of a selection answers for k genes: a nested ranking may be shorter."""
    if record.status is not Status.OK:
        return True
    # The k of an evaluation is None where the panel is not cut.
    return bool((record.asked.get("k") or 0) >= k or len(record.result.get("ranking", ())) >= k)


def _lost(address: Address, attempt: str, like: Record | None = None) -> Record:
    """What stands for an attempt that ended without a record."""
    return Record(
        stage=like.stage if like else "",
        address=address,
        attempt=attempt,
        question=like.question if like else "",
        status=Status.LOST,
        reason="the run stopped without leaving a record (killed, or the machine went)",
    )


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; only numbers and text are kept")
    with replacing(path) as temporary, temporary.open("xb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
