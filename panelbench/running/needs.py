"""What a run needs of a machine: declared, or said by the suite or by options; in no key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from panelbench.errors import ConfigError, UnknownName
from panelbench.records.grant import usable_memory
from panelbench.registry import Evaluators, Registry
from panelbench.running.settings import Settings
from panelbench.schema import parse
from panelbench.suite.runs import Run
from panelbench.suite.specs import Needs, SuiteSpec

GiB = 1024**3
ALL = "all"
"""Stands for every method and evaluator that is not named itself."""
STAGES = {
    "preprocess": Needs(time=4 * 3600, memory=16 * GiB),
    "report": Needs(time=3600, memory=8 * GiB),
}
"""Jobs that are of no method, with what they need."""


@dataclass(frozen=True, order=True)
class Need:
    """What one run needs.

    Attributes
    ----------
    time, memory
        Its limits, seconds and bytes.
    cores, gpus
        How many of each.
    usual
        Seconds that it usually takes, None when nobody has said so.
    """

    time: float
    memory: int
    cores: int = 1
    gpus: int = 0
    usual: float | None = None


def need_of(run: Run, settings: Settings) -> Need:
    """What a run needs.

    Options that hold for all runs come first, then what was said of its method or evaluator,
    then what the suite says of all runs, then what the method or evaluator declares.
    """
    declared, limits = run.declared, settings.limits
    said = _joined(settings.needs.get(ALL, Needs()), settings.needs.get(declared.id, Needs()))
    # One that cannot be imported declares nothing, and fails at once.
    minutes, memory = getattr(declared, "minutes", 1.0), getattr(declared, "memory_gb", 1.0)
    required = int(getattr(declared, "gpu", "no") == "required")
    return Need(
        time=settings.time_limit or said.time or limits.time or 60.0 * minutes,
        memory=settings.memory_limit or said.memory or limits.memory or int(memory * GiB),
        cores=said.cores or 1,
        gpus=required if said.gpus is None else said.gpus,
        usual=said.usual,
    )


def need_of_stage(stage: str, settings: Settings) -> Need:
    """What a job needs that prepares data or writes a report."""
    said = STAGES[stage]
    for name in (ALL, stage):
        said = _joined(said, settings.needs.get(name, Needs()))
    assert said.time is not None and said.memory is not None
    return Need(said.time, said.memory, said.cores or 1)


def allowed(memory: int) -> int:
    """Bytes of a run: what it needs, and never more than the job has."""
    grant = usable_memory()
    return memory if grant is None else min(memory, grant)


def with_suite(settings: Settings, suite: SuiteSpec) -> Settings:
    """Settings with what a suite says of its runs; what options say of the same comes first."""
    names = {*suite.needs, *settings.needs}
    needs = {
        name: _joined(suite.needs.get(name, Needs()), settings.needs.get(name, Needs()))
        for name in names
    }
    return replace(settings, limits=suite.limits, needs=needs)


def _joined(first: Needs, then: Needs) -> Needs:
    """What two say, the second where both say something."""
    return first.model_copy(update={n: v for n, v in dict(then).items() if v is not None})


def check_names(
    needs: Iterable[str], registry: Registry, evaluators: Evaluators, where: str
) -> None:
    """Names among needs must be of methods or evaluators that there are.

    Raises
    ------
    UnknownName
        With the near matches.
    """
    known = {ALL, *STAGES, *registry.methods, *registry.broken}
    known |= {*evaluators.declared, *evaluators.broken}
    for name in needs:
        if name not in known:
            raise UnknownName("method or evaluator", name, known, where)


def parse_needs(items: Sequence[str]) -> dict[str, Needs]:
    """Read ``ID.time=10m``, ``ID.memory=8G``, ``ID.cores=4``, ``ID.gpus=1``, ``ID.usual=5s``.

    Raises
    ------
    ConfigError
        When an item is not of this form.
    """
    found: dict[str, dict[str, str]] = {}
    for item in items:
        name, equals, value = item.partition("=")
        id, dot, what = name.strip().rpartition(".")
        if not (equals and dot and id):
            raise ConfigError(f"--need {item}: write ID.WHAT=VALUE, for example yoto.memory=32G")
        found.setdefault(id, {})[what] = value.strip()
    return {id: parse(Needs, said, f"--need {id}") for id, said in found.items()}
