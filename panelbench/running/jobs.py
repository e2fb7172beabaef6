"""Jobs and replies: what a worker is told to do, and what it says. JSON at the pipe only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from panelbench.data.specs import DatasetSpec
from panelbench.records.status import Status, status_of
from panelbench.records.store import Address, Record
from panelbench.stages.questions import EvaluateQuestion, SelectQuestion

MESSAGE = 2000
"""Characters of a reason that are kept; a reply must fit into one write to a pipe."""


@dataclass(frozen=True)
class Resources:
    """What one run may use; recorded, in no key."""

    n_jobs: int
    device: str
    time_limit: float | None
    memory_limit: int | None


@dataclass(frozen=True)
class PrepareJob:
    """Prepare a data set and fit folds (seed by key)."""

    spec: DatasetSpec
    prepared: Path
    facts: Path
    cache: Path
    downloads: Path
    mirrors: tuple[Path, ...]
    folds: Mapping[str, int]
    preload: tuple[str, ...] = ("scanpy",)
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Attempt:
    """An attempt of a selection, by place and name."""

    dataset: str
    method: str
    key: str
    attempt: str

    @property
    def address(self) -> Address:
        """Where it lies."""
        return Address(self.dataset, self.method, self.key)


@dataclass(frozen=True)
class RunJob:
    """Do one selection or evaluation and write its record.

    Attributes
    ----------
    question
        What the stage is asked.
    place
        Where the record is to lie.
    stage, question_digest, identity, asked
        What the record says of the run.
    code
        Modules whose code was planned, with the digests it had then.
    selection
        The attempt whose panel is evaluated.
    cache_key
        Under which the stage cache keeps the result.
    preload
        Libraries to import before the process of the run is forked.
    """

    question: SelectQuestion | EvaluateQuestion
    place: Attempt
    stage: str
    question_digest: str
    identity: Mapping[str, Any]
    asked: Mapping[str, Any]
    spec: DatasetSpec
    prepared: Path
    results: Path
    cache: Path
    cache_key: str
    resources: Resources
    code: Mapping[str, str] = field(default_factory=dict)
    methods_dirs: tuple[Path, ...] = ()
    evaluators_dirs: tuple[Path, ...] = ()
    selection: Attempt | None = None
    preload: tuple[str, ...] = ()
    kind: Literal["run"] = "run"

    @property
    def first(self) -> RunJob:
        """The run that stands for all: itself."""
        return self

    def record(self, status: Status, reason: str = "", **more: Any) -> Record:
        """A record of this run."""
        return Record(
            stage=self.stage,
            address=self.place.address,
            attempt=self.place.attempt,
            question=self.question_digest,
            status=status,
            reason=reason,
            identity=self.identity,
            asked=self.asked,
            **{"outside": asdict(self.resources), **more},
        )


@dataclass(frozen=True)
class GroupJob:
    """Do several selections together in one process, and write a record of each that ends well.

    Attributes
    ----------
    runs
        Runs of one method on one data set, two or more.
    resources
        What all of them together may use.
    """

    runs: tuple[RunJob, ...]
    resources: Resources
    kind: Literal["group"] = "group"

    @property
    def first(self) -> RunJob:
        """The run that stands for all where they are alike."""
        return self.runs[0]

    @property
    def prepared(self) -> Path:
        """The prepared data set."""
        return self.first.prepared

    @property
    def preload(self) -> tuple[str, ...]:
        """Libraries to import before the process is forked."""
        return self.first.preload


Job = PrepareJob | RunJob | GroupJob


@dataclass(frozen=True)
class Order:
    """A job, with a scratch folder and a file for what the run prints."""

    job: Job = field(metadata={"discriminator": "kind"})
    scratch: Path
    log: Path


@cache
def _orders() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Order)


def encode_order(order: Order) -> bytes:
    """One line of JSON."""
    line: bytes = _orders().dump_json(order)
    return line + b"\n"


def decode_order(line: bytes) -> Order:
    """Read what `encode_order` wrote."""
    order: Order = _orders().validate_json(line)
    return order


# -- replies -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The process of the run has begun."""

    pid: int


@dataclass(frozen=True)
class Progress:
    """How far the run is."""

    fraction: float
    message: str


@dataclass(frozen=True)
class Done:
    """How the run ended, from its own process.

    `recorded` says whether it wrote its record, `cached` whether the stage cache had the result,
    `damaged` whether the prepared data could not be read.
    """

    status: Status
    reason: str = ""
    recorded: bool = False
    cached: bool = False
    damaged: bool = False


@dataclass(frozen=True)
class Exited:
    """The process of the run is gone, with an exit code (negative: a signal).

    `memory_ran_out` says whether the kernel killed processes meanwhile.
    """

    code: int
    memory_ran_out: bool = False


Reply = Started | Progress | Done | Exited
_REPLIES: dict[str, type[Reply]] = {c.__name__: c for c in (Started, Progress, Done, Exited)}


def encode_reply(reply: Reply) -> bytes:
    """One line of JSON."""
    return json.dumps([type(reply).__name__, asdict(reply)]).encode() + b"\n"


def decode_reply(line: bytes) -> Reply:
    """Read what `encode_reply` wrote."""
    name, fields = json.loads(line)
    if "status" in fields:
        fields["status"] = status_of(fields["status"])
    return _REPLIES[name](**fields)
