"""Dask: jobs as tasks of a ``dask.distributed`` scheduler, for PBS, LSF, SGE and whatever else.

A task runs a command line, as a batch script does; which runs it holds is kept by the scheduler,
and nothing else is. Once a job is sent, no front process has to live.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from panelbench.cluster.engine import LOGS, ClusterError, Queued
from panelbench.cluster.jobs import Job

_NOTES = "panelbench"
"""Where the scheduler keeps what each job holds."""
_ANSWER = 20.0
"""Seconds to wait for the scheduler."""
_STATES = {"processing": "running", **dict.fromkeys(("waiting", "queued", "no-worker"), "pending")}
"""States of tasks that are not over."""


@dataclass(frozen=True)
class Dask:
    """A scheduler by its address or its file, for jobs that fill a results folder."""

    results: Path
    address: str | None = None
    scheduler_file: Path | None = None

    @cached_property
    def _client(self) -> Any:
        try:
            from distributed import Client
        except ImportError:
            raise ClusterError(
                "Dask is an extra: pip install 'panelbench[dask]', here and where tasks run"
            ) from None
        file = None if self.scheduler_file is None else str(self.scheduler_file)
        try:
            return Client(self.address, scheduler_file=file, timeout=_ANSWER, set_as_default=False)
        except (OSError, ValueError) as error:
            where = self.address or self.scheduler_file
            raise ClusterError(f"no Dask scheduler answers at {where}: {error}") from None

    def answers(self) -> bool:
        """Whether it is there, and answers."""
        try:
            return bool(self._client)
        except ClusterError:
            return False

    def most_tasks(self) -> int:
        """Tasks that a job may have."""
        return 100_000

    def submit(self, job: Job, after: Sequence[str]) -> str:
        """Send a job off; the id it gets."""
        from distributed import Future, fire_and_forget

        client = self._client
        id = f"{job.name}-{secrets.token_hex(4)}"
        logs = self.results.absolute() / LOGS
        logs.mkdir(parents=True, exist_ok=True)
        # What is over is forgotten, and not waited for; what is held here stays known, if it was.
        there = self._states()
        held = {name: Future(name, client) for name in after if name in there}
        there = self._states()
        before = [future for name, future in held.items() if name in there]
        tasks = job.tasks or (job.makes,)
        client.set_metadata([_NOTES, id], {"results": str(self.results.absolute()), "tasks": tasks})
        futures = [
            client.submit(
                perform, _command(job, task), f"{logs}/{id}-{number}.log", job.need.cores, before,
                key=f"{id}/{number}", resources=_resources(job), pure=False,
            )
            for number, task in enumerate(tasks)
        ]  # fmt: skip
        # The id is that of a task that waits for all others.
        end = client.submit(len, futures, key=id, pure=False)
        fire_and_forget([*futures, end])
        self._wait_for(end.key)
        return id

    def _wait_for(self, key: str) -> None:
        """Wait until the scheduler itself wants a job: then this process may go."""
        until = time.monotonic() + _ANSWER
        while time.monotonic() < until:
            if self._client.run_on_scheduler(_kept, key):
                return
            time.sleep(0.05)
        raise ClusterError(f"the Dask scheduler did not take {key} within {_ANSWER:.0f} seconds")

    def queue(self) -> dict[str, Queued]:
        """The runs of this results folder that are in the queue, by their keys."""
        notes: Mapping[str, Any] = self._client.get_metadata([_NOTES], {})
        return {
            key: Queued(job, task, state, what)
            for job, tasks in self.waiting().items()
            if notes.get(job, {}).get("results") == str(self.results.absolute())
            for task, state in tasks.items()
            for key, what in notes[job]["tasks"][int(task)]
        }

    def waiting(self) -> dict[str, dict[str, str]]:
        """Jobs in the queue: states of their tasks, by the jobs' ids."""
        found: dict[str, dict[str, str]] = {}
        for key, state in self._states().items():
            job, slash, task = key.partition("/")
            if slash and state in _STATES:
                found.setdefault(job, {})[task] = _STATES[state]
        return found

    def _states(self) -> dict[str, str]:
        found: dict[str, str] = self._client.run_on_scheduler(_states)
        return found

    def unmet(self, jobs: Sequence[Job]) -> list[str]:
        """What jobs ask for that no worker offers now; they wait until one does."""
        offers = self._client.run_on_scheduler(_offers)
        asked = {tuple(_resources(job).items()) for job in jobs}
        return [
            " ".join(f"{name}={amount:g}" for name, amount in need)
            for need in sorted(asked)
            if not any(all(o.get(n, 0) >= amount for n, amount in need) for o in offers)
        ]


def perform(command: Sequence[str], log: str, cores: int, before: object) -> int:
    """Run a command on a worker; its exit code. However it ends, what waits for it goes on."""
    environment = {**os.environ, "PANELBENCH_CORES": str(cores)}
    with Path(log).open("ab") as output:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        ).returncode


def _command(job: Job, task: Sequence[tuple[str, str]]) -> list[str]:
    keys = ("--key", ",".join(key for key, _ in task)) if job.tasks else ()
    return [sys.executable, "-m", "panelbench.cli", *job.command, *keys]


def _resources(job: Job) -> dict[str, float]:
    """What a task takes of a worker, in the names that workers are started with."""
    gpus = {"GPU": float(job.need.gpus)} if job.need.gpus else {}
    return {"CPU": float(job.need.cores), "MEMORY": float(job.need.memory), **gpus}


def _states(dask_scheduler: Any) -> dict[str, str]:
    """States of our tasks, on the scheduler."""
    return {
        key: task.state
        for key, task in dask_scheduler.tasks.items()
        if isinstance(key, str) and key.startswith("panelbench-")
    }


def _offers(dask_scheduler: Any) -> list[dict[str, float]]:
    """What each worker has, on the scheduler."""
    return [dict(worker.resources) for worker in dask_scheduler.workers.values()]


def _kept(key: str, dask_scheduler: Any) -> bool:
    """Whether the scheduler goes on with a task though nobody asks for it, or it is over."""
    task = dask_scheduler.tasks.get(key)
    if task is None:
        return False
    return task.state in ("memory", "erred") or any(
        client.client_key == "fire-and-forget" for client in task.who_wants or ()
    )
