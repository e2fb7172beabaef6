"""A paper's suites, one command: what it will take, doing it, and the paper's tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from panelbench import api
from panelbench.commands import show
from panelbench.commands.output import print_json, print_rows, short_path
from panelbench.errors import ConfigError, InputError
from panelbench.records.status import Status, exit_code
from panelbench.registry import discover, discover_evaluators
from panelbench.report.paper import Reported, build_paper
from panelbench.running.estimate import (
    Work,
    files_needed,
    in_time,
    missing_libraries,
    work,
)
from panelbench.running.settings import Settings
from panelbench.running.states import State
from panelbench.suite.papers import PaperSpec, load_paper, suite_of
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request
from panelbench.suite.runs import Plan, Run

_WHOLE = ("suite", "dataset", "method", "task", "k", "seed", "evaluator", "sets", "data", "panel")
"""Options that change a suite: a paper's tables are those of whole suites."""


def paper(
    name: str,
    request: Request,
    settings: Settings,
    stages: Sequence[str],
    *,
    shard: tuple[int, int] | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Do the stages of all suites of a paper, and write its tables and figures.

    What is to be downloaded, about how long it takes and what is missing is said first; with
    `dry_run`, that is all. A suite whose data cannot be had does not stop the others.

    Raises
    ------
    ConfigError
        When an option would change the suites.
    """
    given = [option for option in _WHOLE if getattr(request, option)]
    if given:
        names = ", ".join(f"--{'set' if option == 'sets' else option}" for option in given)
        raise ConfigError(f"--paper takes whole suites: leave out {names}")
    spec = load_paper(name)
    requests = {suite: replace(request, suite=suite_of(name, suite)) for suite in spec.suites}
    doing = tuple(stage for stage in stages if stage != "report")
    if doing or dry_run:
        _announce(spec, requests, settings, as_json=as_json)
    if dry_run:
        return 0
    found: list[tuple[Run, State]] = []
    reported = []
    for suite, asked in requests.items():
        try:
            if doing:
                said = _quiet if as_json else _said
                done = api.perform(asked, settings, doing, shard, said=said)
                found += done.states
            if shard is None:
                results, files = api.report(api.plan_for(asked, settings, download=False), settings)
                (page,) = [path for path in files if path.name == "report.html"]
                reported.append(Reported(suite, results, page.parent))
        except InputError as error:
            print(f"{suite}: {error}", file=sys.stderr)
            reported.append(Reported(suite, problem=str(error)))
    code = 1 if all(item.problem for item in reported) else exit_code(s.status for _, s in found)
    if doing and code == 0 and any(item.problem for item in reported):
        code = 3
    if shard is not None:
        return code
    out = settings.results / "reports" / f"paper-{spec.name}"
    files = build_paper(spec, reported, out, Path(api.__file__).parent / "reference")
    if as_json:
        print_json(paper=spec.name, report=[str(path) for path in files], exit_code=code)
    else:
        show.failures(found)
        print(f"paper: {short_path(out / 'report.html')}, tables in {short_path(out)}")
    return code


def _said(summary: Any) -> None:
    print(summary, file=sys.stderr, flush=True)


def _quiet(summary: Any) -> None:
    """Say nothing: what is printed is for programs."""


def _announce(
    spec: PaperSpec, requests: Mapping[str, Request], settings: Settings, *, as_json: bool
) -> None:
    """Say what a paper needs, takes and lacks."""
    plans = {suite: _plan(asked, settings) for suite, asked in requests.items()}
    datasets = {d.spec.id: d.spec for plan in plans.values() for d in plan.datasets}
    files = files_needed(datasets.values(), settings.cache / "downloads", settings.mirrors)
    due = {suite: _due(spec, suite, plans[suite], requests[suite], settings) for suite in requests}
    lacking: dict[str, list[str]] = {}
    for plan in plans.values():
        lacking |= missing_libraries(plan)
    if as_json:
        print_json(
            paper=spec.name,
            files=[vars(file) for file in files],
            work={
                suite: {**vars(item), "unknown": sorted(item.unknown)}
                for suite, item in due.items()
            },
            missing=lacking,
        )
        return
    print(f"{spec.title or spec.name}" + (f" ({spec.citation})" if spec.citation else ""))
    for file in files:
        where = "is here" if file.here else f"{file.size}, from {file.source}"
        print(f"{file.dataset}: {file.name} ({file.licence}), {where}")
    jobs = settings.n_workers
    rows = [
        (
            suite,
            f"{item.selections} selections and {item.evaluations} evaluations "
            f"of {item.planned} runs",
            _about(item, jobs),
            _about(item, jobs, spec.gpu) if spec.gpu > 1 else "not known",
        )
        for suite, item in due.items()
    ]
    print_rows(("suite", "due", f"here, {jobs} at a time", "with a GPU"), rows)
    print(
        "Times are guesses within a factor of three, from what has run here or else from what was "
        "measured on two cores"
        + (f"; a GPU is taken to be {spec.gpu:g} times as fast, which nobody has measured."
           if spec.gpu > 1 else ".")
    )  # fmt: skip
    for method, libraries in sorted(lacking.items()):
        print(f"missing: {method} needs {', '.join(libraries)}; without, it is skipped")
    for file in files:
        if not file.here and not file.source.startswith("http"):
            print(f"missing: {file.name} of {file.dataset}, {file.source} (--mirror FOLDER)")


def _about(item: Work, jobs: int, gpu: float = 1.0) -> str:
    """How long work takes, in words."""
    if item.unknown and not item.minutes:
        return "not known"
    text = f"about {in_time(item.hours(jobs, gpu))}"
    return f"{text}, not counting {', '.join(sorted(item.unknown))}" if item.unknown else text


def _plan(request: Request, settings: Settings) -> Plan:
    """A plan, whether its data are here or not."""
    try:
        return api.plan_for(request, settings, download=False)
    except InputError as error:
        if isinstance(error, ConfigError):
            raise
    return make_plan(
        request.resolve(),
        request.catalogue(),
        discover(settings.methods_dirs),
        lambda _: "",
        discover_evaluators(settings.evaluators_dirs),
        request.max_runs,
    )


def _due(spec: PaperSpec, suite: str, plan: Plan, request: Request, settings: Settings) -> Work:
    try:
        states = api.inspect(request, settings)
    except InputError:
        runs: list[Run] = [*plan.selections, *plan.evaluations]
        states = [(run, State(Status.TO_DO, due=True)) for run in runs]
    return work(states, spec.minutes.get(suite, {}), spec.scoring)
