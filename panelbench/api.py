"""The suite from Python: the same as on the command line, returning a data frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.data.fetch import source_checksum
from panelbench.data.specs import DatasetSpec
from panelbench.errors import ConfigError, Fault, InputError
from panelbench.keywords import request_of, settings_of
from panelbench.records.bulk import many_objects
from panelbench.records.files import write_atomically
from panelbench.records.status import Status, exit_code
from panelbench.records.store import Store
from panelbench.registry import discover, discover_evaluators
from panelbench.report.collect import collect
from panelbench.report.frame import scores_frame
from panelbench.report.panel_file import panel_csv
from panelbench.report.results import Results
from panelbench.running.executor import Executor
from panelbench.running.needs import check_names, with_suite
from panelbench.running.settings import Settings
from panelbench.running.states import StageSummary, State, States
from panelbench.suite.choice import with_keys
from panelbench.suite.panels import check_panel, read_panel
from panelbench.suite.plan import make_plan
from panelbench.suite.request import Request
from panelbench.suite.runs import Plan, Run, SelectRun

if TYPE_CHECKING:
    import pandas as pd

SAID = 20_000
"""Runs from which on their number is said before they are planned: it takes a second or more."""
STAGES = ("preprocess", "select", "evaluate", "report")
__all__ = ["STAGES", "Done", "design", "inspect", "perform", "plan_for", "report", "run"]


@dataclass
class Done:
    """What a call did.

    Attributes
    ----------
    plan
        The runs that were asked for.
    summaries
        One per stage that was gone through.
    states
        Where each run of the stages asked for stands now.
    results
        What the records say, when an evaluation or the report was asked for.
    report
        Files of the report.
    unreadable
        Files among the records that are none, with what is wrong.
    """

    plan: Plan
    summaries: list[StageSummary] = field(default_factory=list)
    states: list[tuple[Run, State]] = field(default_factory=list)
    results: Results | None = None
    report: list[Path] = field(default_factory=list)
    unreadable: Mapping[Path, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 all runs are done, 3 some are, 1 none is."""
        return exit_code(state.status for _, state in self.states)


def plan_for(
    request: Request,
    settings: Settings,
    shard: tuple[int, int] | None = None,
    *,
    keys: Sequence[str] = (),
    download: bool = True,
) -> Plan:
    """Plan a request, or the runs of it whose keys begin with `keys`; nothing is run.

    A data set whose files have no known checksum is known by their contents: with `download` they
    are fetched here, without it is a data set with a problem.

    Raises
    ------
    InputError
        For anything in the request that does not fit.
    """
    downloads = settings.cache / "downloads"

    def checksum(spec: DatasetSpec) -> str:
        return source_checksum(spec, downloads, settings.mirrors, download=download)

    registry = discover(settings.methods_dirs)
    evaluators = discover_evaluators(settings.evaluators_dirs)
    suite = request.resolve()
    check_names(suite.needs, registry, evaluators, f"needs of suite {suite.name}")
    check_names(settings.needs, registry, evaluators, "--need")
    catalogue, most = request.catalogue(), request.max_runs
    with many_objects():
        plan = make_plan(
            suite,
            catalogue,
            registry,
            checksum,
            evaluators,
            most,
            shard,
            lambda count: None if settings.quiet else _say(count),
        )
        return with_keys(plan, keys) if keys else plan


def _say(count: int) -> None:
    """Say at once how much there is to plan, where that takes a while."""
    if count >= SAID:
        print(f"planning up to {count:,} runs", file=sys.stderr, flush=True)


def perform(
    request: Request,
    settings: Settings,
    stages: Sequence[str] = STAGES,
    shard: tuple[int, int] | None = None,
    out: Path | None = None,
    said: Callable[[StageSummary], None] = lambda summary: None,
    keys: Sequence[str] = (),
) -> Done:
    """Go through stages, doing what is not done yet.

    Parameters
    ----------
    request, settings
        What, where and how.
    stages
        Some of `STAGES`. Selections and evaluations preprocess what they need.
    shard
        ``(i, n)``: only the runs of shard i of n; the report is left out then, since it shows
        all shards.
    out
        Where to write the panel of the only selection, as CSV: rank, gene, score.
    said
        Called with each stage's summary as soon as the stage is over.
    keys
        Only the runs whose keys begin so; the report is left out then too.

    Raises
    ------
    InputError
        When nothing can be run: bad options, or no data set can be had.
    """
    download = bool({*stages} - {"report"})
    plan = plan_for(request, settings, shard, keys=keys, download=download)
    _check_asked(plan, stages, out)
    settings = with_suite(settings, plan.suite)
    done = Done(plan)
    wanted = set(stages)
    if request.panel and "evaluate" in wanted:
        wanted.add("select")

    def finish(summary: StageSummary) -> None:
        done.summaries.append(summary)
        said(summary)

    with Executor(settings) as executor:
        if wanted & {"preprocess", "select", "evaluate"}:
            finish(executor.preprocess(plan))
            _check_problems(plan, executor.states.problems, done.summaries[0])
            for panel in request.panel:
                _check_panel(panel, plan, executor)
        if "select" in wanted:
            finish(executor.select(plan))
        if out is not None:
            _write_panel(plan.selections[0], executor.states, out)
        if "evaluate" in wanted:
            finish(executor.evaluate(plan))
        runs: list[Run] = []
        runs += plan.selections if "select" in wanted else ()
        runs += plan.evaluations if "evaluate" in wanted else ()
        with executor.states.one_look(len(runs)) as states:
            done.states = [(run, states.of(run)) for run in runs]
        done.unreadable = executor.store.passed_over()
    if stages and stages[-1] == "evaluate" and any(s.status == "done" for _, s in done.states):
        done.results = collect(plan, executor.states.store)
    if "report" in wanted and shard is None and not keys:
        done.results, done.report = report(plan, settings)
        if wanted == {"report"} and all(line.status != "ok" for line in done.results.scores):
            where = f"{plan.suite.name} in {settings.results}"
            raise InputError(f"no results of suite {where}: `panelbench run` makes them")
    return done


def _check_asked(plan: Plan, stages: Sequence[str], out: Path | None) -> None:
    """Stop when there is nothing to do, or more than one panel for one file."""
    if not plan.rows and {*stages} != {"preprocess"}:
        raise ConfigError("nothing to run: give --suite NAME, or --method (repeatable)")
    if out is not None and len(plan.selections) != 1:
        asked = "; ".join(run.describe() for run in plan.selections[:3])
        more = ", ..." if len(plan.selections) > 3 else ""
        raise ConfigError(
            f"--out takes one panel, and there are {len(plan.selections)} selections ({asked}"
            f"{more}): give one --method, --task, --k and --seed"
        )


def report(plan: Plan, settings: Settings) -> tuple[Results, list[Path]]:
    """Write tables, figures and page of a plan from the records."""
    from panelbench.report import build
    from panelbench.report.manifest import report_folder

    published = Path(__file__).parent / "reference"
    with many_objects():
        results = collect(plan, Store(settings.results))
        folder = report_folder(settings.results / "reports", results)
        return results, build(results, folder, published)


def inspect(
    request: Request,
    settings: Settings,
    shard: tuple[int, int] | None = None,
    keys: Sequence[str] = (),
) -> list[tuple[Run, State]]:
    """Where every run of a request stands; nothing is run."""
    plan = plan_for(request, settings, shard, keys=keys, download=False)
    runs: list[Run] = [*plan.selections, *plan.evaluations]
    with States(Store(settings.results), settings.retry).one_look(len(runs)) as states:
        return [(run, states.explain(run)) for run in runs]


def _write_panel(run: SelectRun, states: States, out: Path) -> None:
    """Write the panel of a selection; nothing is written when there is none."""
    state = states.of(run)
    if state.record is None or state.record.status is not Status.OK:
        return
    write_atomically(out, panel_csv(state.record.result, run.k))


def _check_problems(plan: Plan, problems: Mapping[str, str], did: StageSummary) -> None:
    files = {dataset.file: dataset for dataset in plan.datasets}
    if plan.selections:
        files = {run.dataset.file: run.dataset for run in plan.selections}
    if files and files.keys() <= problems.keys():
        file, dataset = next(iter(files.items()))
        reason, kind = problems[file], Fault if did.outcomes[Status.FAULT] else InputError
        raise kind(reason if dataset.id in reason else f"data set {dataset.id}: {reason}")


def _check_panel(panel: Path, plan: Plan, executor: Executor) -> None:
    """Say at once which genes of a panel the data do not have."""
    from panelbench.stages.prepared import gene_names

    genes = read_panel(panel)
    for dataset in plan.datasets:
        path = executor.prepared(dataset)
        if path.exists():
            check_panel(panel, genes, gene_names(path), dataset.id)


def run(
    suite: str | Path | None = None,
    *,
    results: str | Path = "results",
    cache: str | Path | None = None,
    stages: Sequence[str] = STAGES,
    mirror: str | Path | Iterable[str | Path] | None = None,
    methods_dir: str | Path | Iterable[str | Path] = (),
    evaluators_dir: str | Path | Iterable[str | Path] = (),
    jobs: int | None = None,
    together: int | None = None,
    device: str = "auto",
    retry: Iterable[str] = (),
    shard: tuple[int, int] | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    quiet: bool = True,
    **request: Any,
) -> pd.DataFrame:
    """Run a suite, or what the options say, and return the scores.

    Parameters
    ----------
    suite
        Name of a suite or path of a YAML file; leave it out to name everything by options.
    results, cache
        Folders; the cache is the user's cache folder by default.
    stages
        Some of ``preprocess``, ``select``, ``evaluate``, ``report``.
    mirror
        Folders searched for files before they are downloaded.
    methods_dir, evaluators_dir
        Folders with methods and evaluators of one's own.
    jobs, together, device, retry, shard, time_limit, memory_limit
        As on the command line; seconds and bytes.
    quiet
        No progress.
    **request
        Fields of `panelbench.suite.request.Request`: ``dataset``, ``method``, ``task``, ``k``,
        ``seed``, ``evaluator`` (each one value or a list), ``sets``, ``data``, ``label``, ...

    Returns
    -------
    One row per evaluation and level of label noise: data set, method, task, k, seed, evaluator,
    the fraction of noisy labels and who saw them (``both`` or ``select``), status, reason, one
    column per metric, and the costs.

    Raises
    ------
    InputError
        When something that was given does not fit.

    Examples
    --------
    >>> panelbench.run(dataset="pbmc68k-reduced", method=["mrmr-f", "random"], k=16)
    """
    settings = settings_of(
        results,
        cache,
        mirror,
        methods_dir,
        evaluators_dir,
        jobs=jobs,
        together=together,
        device=device,
        retry=frozenset(retry),
        time_limit=time_limit,
        memory_limit=memory_limit,
        quiet=quiet,
    )
    done = perform(request_of(suite, request, "run"), settings, stages, shard)
    found = done.results or collect(done.plan, Store(settings.results))
    return scores_frame(found)


def design(
    data: str | Path | None = None,
    label: str | None = None,
    *,
    k: int | Iterable[int] = 32,
    out: str | Path = "design",
    folds: int = 5,
    maps: bool = True,
    cache: str | Path | None = None,
    mirror: str | Path | Iterable[str | Path] | None = None,
    methods_dir: str | Path | Iterable[str | Path] = (),
    jobs: int | None = None,
    device: str = "auto",
    quiet: bool = True,
    **request: Any,
) -> pd.DataFrame:
    """Choose a panel from data alone, and write its page.

    Parameters
    ----------
    data, label
        A file of one's own and its column of classes; or ``dataset`` and ``task``.
    k
        Genes; of several sizes the smallest that is good enough is taken.
    out
        Folder of the design: ``index.html``, ``panel.csv``, ``figures/``, and the records.
    folds
        Parts of the cells that take turns in being held away.
    maps
        Draw UMAPs, which take a while.
    cache, mirror, methods_dir, jobs, device, quiet, **request
        As in `run`: ``method``, ``constraints``, ``data_options``, ...

    Returns
    -------
    One row per gene of the panel, in its order; `panelbench.design.genes.COLUMNS` names the
    columns.

    Raises
    ------
    InputError
        When something that was given does not fit.
    PanelbenchError
        When no selector has a score, or none finds a panel that keeps to the constraints.
    """
    import pandas as pd

    from panelbench.design import page
    from panelbench.design import perform as designing

    given = {"data": data, "label": label, "k": [k] if isinstance(k, int) else list(k), **request}
    asked = {name: value for name, value in given.items() if value is not None}
    settings = settings_of(
        out, cache, mirror, methods_dir, (), jobs=jobs, device=device, quiet=quiet
    )
    found = designing.perform(request_of(None, asked, "design"), settings, folds, maps=maps)
    return pd.DataFrame(page.write(found, settings).genes)
