"""Send what is missing to a cluster's queue; the jobs do the rest by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panelbench.api import plan_for
from panelbench.cluster import slurm
from panelbench.cluster.arrange import PACK, Arrangement, jobs_of
from panelbench.cluster.dask import Dask
from panelbench.cluster.engine import ClusterError, Engine, Queued
from panelbench.cluster.jobs import Job
from panelbench.cluster.slurm import Options, Slurm
from panelbench.cluster.todo import Standing, standing
from panelbench.errors import ConfigError, UnknownName
from panelbench.keywords import request_of, settings_of
from panelbench.records.files import write_atomically
from panelbench.records.store import Store
from panelbench.running.executor import Executor
from panelbench.running.needs import parse_needs, with_suite
from panelbench.running.own_environments import make_missing
from panelbench.running.settings import Settings
from panelbench.running.states import States
from panelbench.suite.request import Request
from panelbench.suite.runs import SelectRun

EXECUTORS = ("slurm", "dask")


@dataclass(frozen=True)
class Submission:
    """What is to be sent off, and what was.

    Attributes
    ----------
    engine
        The scheduler.
    jobs
        Jobs in their order.
    standing
        Where the runs stand, and how many are queued.
    settings
        Where and how.
    ids
        Ids that jobs got, by name.
    """

    engine: Engine
    jobs: list[Job]
    standing: Standing
    settings: Settings
    ids: dict[str, str] = field(default_factory=dict)

    def send(self, said: Callable[[Job, str], None] = lambda job, id: None) -> dict[str, str]:
        """Send the jobs off, in their order; `said` is called with each and its id.

        Environments that methods need are made first: jobs make none.

        Raises
        ------
        ClusterError
            When the scheduler refuses one; those before it are sent, and the next call sends
            what is missing.
        """
        make_missing(
            (i.run for i in self.standing.todo if isinstance(i.run, SelectRun)), self.settings
        )
        for job in self.jobs:
            after = [self.ids.get(name, name) for name in job.after]
            try:
                self.ids[job.name] = self.engine.submit(job, after)
            except ClusterError as error:
                sent = f"{len(self.ids)} of {len(self.jobs)} jobs are sent"
                raise ClusterError(
                    f"{job.name}: {error} ({sent}; submit again for the rest)"
                ) from None
            said(job, self.ids[job.name])
        return self.ids

    def write(self, folder: Path) -> list[Path]:
        """Write the scripts of the jobs, and one that sends them off, into a folder."""
        if not isinstance(self.engine, Slurm):
            raise ConfigError("only jobs of Slurm are scripts that can be printed")
        files = {job.name: f"{i}-{job.name}.sh" for i, job in enumerate(self.jobs, start=1)}
        texts = {files[job.name]: self.engine.script(job) for job in self.jobs}
        texts["submit.sh"] = slurm.driver(self.jobs, files)
        for name, text in texts.items():
            write_atomically(folder / name, text)
        return [folder / name for name in texts]


def engine_of(
    executor: str,
    settings: Settings,
    options: Options,
    scheduler: str | None = None,
    scheduler_file: Path | None = None,
) -> Engine:
    """The engine of that name.

    Raises
    ------
    ConfigError
        When there is none, or it is given what is for another.
    """
    if executor == "slurm":
        if scheduler or scheduler_file:
            raise ConfigError("--scheduler and --scheduler-file go with --executor dask")
        return Slurm(settings.results, options)
    if executor != "dask":
        raise UnknownName("executor", executor, EXECUTORS, "--executor")
    if (scheduler is None) == (scheduler_file is None):
        raise ConfigError("--executor dask needs --scheduler ADDRESS or --scheduler-file FILE")
    if options != Options():
        raise ConfigError("--partition, --gres, --throttle and the like go with --executor slurm")
    return Dask(settings.results, scheduler, scheduler_file)


def arrange(
    request: Request,
    settings: Settings,
    engine: Engine,
    pack: float = PACK,
    *,
    need_queue: bool = True,
) -> Submission:
    """Find out what is missing, and in which jobs it is to be done; nothing is sent yet.

    Parameters
    ----------
    request, settings
        What, where and how.
    engine
        The scheduler.
    pack
        Expected seconds of a task that short runs share.
    need_queue
        It is an error when the scheduler does not answer.
    """
    plan = plan_for(request, settings)
    settings = with_suite(settings, plan.suite)
    queue: dict[str, Queued] = {}
    how = Arrangement(pack)
    if need_queue or engine.answers():
        how, queue = Arrangement(pack, engine.most_tasks()), engine.queue()
    queued = {key: run.job for key, run in queue.items()}
    states = States(Store(settings.results), settings.retry)
    with states.one_look(len(plan.selections) + len(plan.evaluations)) as look:
        found = standing(plan, look, settings, queued)
    ready = Executor(settings)
    todo = {item.run.dataset.file for item in found.todo}
    unprepared = [dataset for dataset in ready.unprepared(plan) if dataset.file in todo]
    jobs = jobs_of(plan, request, settings, found.todo, unprepared, queued, how)
    return Submission(engine, jobs, found, settings)


def submit(
    suite: str | Path | None = None,
    *,
    results: str | Path = "results",
    cache: str | Path | None = None,
    mirror: str | Path | Iterable[str | Path] | None = None,
    methods_dir: str | Path | Iterable[str | Path] = (),
    evaluators_dir: str | Path | Iterable[str | Path] = (),
    device: str = "auto",
    retry: Iterable[str] = (),
    time_limit: float | None = None,
    memory_limit: int | None = None,
    needs: Sequence[str] = (),
    pack: float = PACK,
    options: Options | None = None,
    executor: str = "slurm",
    scheduler: str | None = None,
    scheduler_file: Path | None = None,
    **request: Any,
) -> dict[str, str]:
    """Send what is missing of a suite to the queue of Slurm or Dask, and return at once.

    Parameters
    ----------
    suite, results, cache, mirror, methods_dir, evaluators_dir, device, retry, time_limit
        As in `panelbench.run`.
    memory_limit, **request
        Likewise.
    needs
        ``["yoto.memory=32G"]``, as ``--need`` on the command line.
    pack
        Expected seconds of a task that short runs share.
    options
        For ``sbatch``: partition, account and the like.
    executor, scheduler, scheduler_file
        ``"slurm"``, or ``"dask"`` with the address of a scheduler or the file that it wrote.

    Returns
    -------
    Ids of the jobs by name; empty when nothing is missing.

    Raises
    ------
    InputError
        When something that was given does not fit.
    ClusterError
        When the scheduler does not answer, or refuses a job.

    Examples
    --------
    >>> panelbench.submit("demo", needs=["all.memory=2G"])
    """
    settings = settings_of(
        results,
        cache,
        mirror,
        methods_dir,
        evaluators_dir,
        device=device,
        retry=frozenset(retry),
        time_limit=time_limit,
        memory_limit=memory_limit,
        needs=parse_needs(needs),
    )
    asked = request_of(suite, request, "submit")
    engine = engine_of(executor, settings, options or Options(), scheduler, scheduler_file)
    return arrange(asked, settings, engine, pack).send()
