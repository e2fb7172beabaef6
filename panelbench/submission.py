"""Send what is missing to a cluster's queue; the jobs do the rest by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panelbench.api import plan_for
from panelbench.cluster import slurm
from panelbench.cluster.arrange import PACK, Arrangement, jobs_of
from panelbench.cluster.jobs import Job
from panelbench.cluster.slurm import ClusterError, Options, Slurm
from panelbench.cluster.todo import Standing, standing
from panelbench.keywords import request_of, settings_of
from panelbench.records.files import write_atomically
from panelbench.records.store import Store
from panelbench.running.executor import Executor
from panelbench.running.needs import parse_needs, with_suite
from panelbench.running.settings import Settings
from panelbench.running.states import States
from panelbench.suite.request import Request


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
    ids
        Ids that jobs got, by name.
    """

    engine: Slurm
    jobs: list[Job]
    standing: Standing
    ids: dict[str, str] = field(default_factory=dict)

    def send(self, said: Callable[[Job, str], None] = lambda job, id: None) -> dict[str, str]:
        """Send the jobs off, in their order; `said` is called with each and its id.

        Raises
        ------
        ClusterError
            When the scheduler refuses one; those before it are sent, and the next call sends
            what is missing.
        """
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
        files = {job.name: f"{i}-{job.name}.sh" for i, job in enumerate(self.jobs, start=1)}
        texts = {files[job.name]: self.engine.script(job) for job in self.jobs}
        texts["submit.sh"] = slurm.driver(self.jobs, files)
        for name, text in texts.items():
            write_atomically(folder / name, text)
        return [folder / name for name in texts]


def arrange(
    request: Request,
    settings: Settings,
    options: Options,
    pack: float = PACK,
    *,
    need_queue: bool = True,
) -> Submission:
    """Find out what is missing, and in which jobs it is to be done; nothing is sent yet.

    Parameters
    ----------
    request, settings
        What, where and how.
    options
        For the scheduler.
    pack
        Expected seconds of a task that short runs share.
    need_queue
        It is an error when the scheduler does not answer.
    """
    plan = plan_for(request, settings)
    settings = with_suite(settings, plan.suite)
    engine = Slurm(settings.results, options)
    queue: dict[str, slurm.Queued] = {}
    how = Arrangement(pack)
    if need_queue or slurm.answers():
        how, queue = Arrangement(pack, engine.most_tasks()), engine.queue()
    queued = {key: run.job for key, run in queue.items()}
    states = States(Store(settings.results), settings.retry)
    with states.one_look(len(plan.selections) + len(plan.evaluations)) as look:
        found = standing(plan, look, settings, queued)
    ready = Executor(settings)
    todo = {item.run.dataset.file for item in found.todo}
    unprepared = [dataset for dataset in ready.unprepared(plan) if dataset.file in todo]
    jobs = jobs_of(plan, request, settings, found.todo, unprepared, queued, how)
    return Submission(engine, jobs, found)


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
    **request: Any,
) -> dict[str, str]:
    """Send what is missing of a suite to the queue of Slurm, and return at once.

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

    Returns
    -------
    Ids of the jobs by name; empty when nothing is missing.

    Raises
    ------
    InputError
        When something that was given does not fit.
    ClusterError
        When Slurm does not answer, or refuses a job.

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
    return arrange(asked, settings, options or Options(), pack).send()
