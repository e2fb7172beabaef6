"""What a suite will take: what is to be downloaded, how many runs are due, about how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panelbench.data.download import in_words
from panelbench.data.fetch import is_here
from panelbench.data.specs import PACKAGE, DatasetSpec
from panelbench.method import Method
from panelbench.records.keys import library_versions
from panelbench.records.status import Status
from panelbench.running.states import State
from panelbench.suite.runs import Plan, Run, SelectRun

_COMING = (Status.WAITING, Status.NO_DATA)


@dataclass(frozen=True)
class FileNeeded:
    """A file of a data set: where it comes from, how large it is, whether it is here."""

    dataset: str
    name: str
    source: str
    size: str
    licence: str
    here: bool


def files_needed(
    specs: Iterable[DatasetSpec], downloads: Path, mirrors: Sequence[Path]
) -> list[FileNeeded]:
    """Files of data sets, each once however many data sets are made of it."""
    found: dict[tuple[str, str], FileNeeded] = {}
    for spec in specs:
        for file in spec.files:
            packaged = file.url is not None and file.url.startswith(PACKAGE)
            found.setdefault(
                (file.name, file.url or ""),
                FileNeeded(
                    dataset=spec.id,
                    name=file.name,
                    source=file.url or "to be put into a mirror folder by hand",
                    size=in_words(file.size) if file.size else "size unknown",
                    licence=spec.licence or "licence not known",
                    here=packaged or is_here(spec, file, downloads, mirrors),
                ),
            )
    return list(found.values())


def missing_libraries(plan: Plan) -> dict[str, list[str]]:
    """Methods of a plan that need libraries that are not installed, and which."""
    found = {}
    for run in plan.selections:
        if isinstance(run.declared, Method):
            versions = library_versions(run.declared.libraries)
            missing = [name for name, version in versions.items() if version is None]
            if missing:
                found[run.method] = missing
    return found


@dataclass
class Work:
    """Work that is due.

    Attributes
    ----------
    selections, evaluations, planned
        Runs that are due, and runs of the plan.
    minutes
        Minutes of one core that they take.
    gpu_minutes
        The part of `minutes` in methods that can use a GPU.
    unknown
        Methods and evaluators of runs whose time nothing is known of.
    """

    selections: int = 0
    evaluations: int = 0
    planned: int = 0
    minutes: float = 0.0
    gpu_minutes: float = 0.0
    unknown: set[str] = field(default_factory=set)

    def hours(self, jobs: int, gpu: float = 1.0) -> float:
        """Hours with this many runs at a time, and a GPU that is `gpu` times as fast."""
        rest = self.minutes - self.gpu_minutes
        return (rest + self.gpu_minutes / gpu) / max(jobs, 1) / 60


def work(
    states: Sequence[tuple[Run, State]],
    minutes: Mapping[str, float],
    scoring: Mapping[str, float],
) -> Work:
    """Work that is due of some runs.

    Parameters
    ----------
    states
        Where the runs stand.
    minutes, scoring
        Minutes of a selection by method, of an evaluation by evaluator; of what has run here, the
        mean of the records counts instead.
    """
    seen: dict[tuple[str, ...], list[float]] = {}
    for run, state in states:
        seconds = state.record.cost.get("seconds") if state.record is not None else None
        if state.status == Status.DONE and seconds:
            seen.setdefault(_kind(run), []).append(float(seconds) / 60)
    found = Work(planned=len(states))
    for run, state in states:
        if not state.due and state.status not in _COMING:
            continue
        is_selection = isinstance(run, SelectRun)
        name = run.method if isinstance(run, SelectRun) else run.evaluator
        known = seen.get(_kind(run))
        one = sum(known) / len(known) if known else (minutes if is_selection else scoring).get(name)
        found.selections += is_selection
        found.evaluations += not is_selection
        if one is None:
            found.unknown.add(name)
            continue
        found.minutes += one
        if is_selection and getattr(run.declared, "gpu", "no") != "no":
            found.gpu_minutes += one
    return found


def _kind(run: Run) -> tuple[str, ...]:
    """Runs that take about the same time."""
    if isinstance(run, SelectRun):
        return (run.dataset.id, run.row.variant, "")
    return (run.dataset.id, "", run.evaluator_variant)


def in_time(hours: float) -> str:
    """Hours in words, as roughly as they are known."""
    if hours < 1 / 60:
        return "less than a minute"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h" if hours < 72 else (
        f"{hours / 24:.0f} days"
    )  # fmt: skip
