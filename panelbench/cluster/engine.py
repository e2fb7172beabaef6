"""What an engine is: it takes jobs, and says which runs are in its queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from panelbench.cluster.jobs import Job
from panelbench.errors import PanelbenchError

LOGS = "logs"
"""Folder within the results in which jobs print."""


class ClusterError(PanelbenchError):
    """The scheduler does not do what it was asked for."""


@dataclass(frozen=True)
class Queued:
    """A run in the queue: the id of its job, its task, where it stands there, and what it is."""

    job: str
    task: str
    state: str
    what: str

    @property
    def place(self) -> str:
        """Job and task, as Slurm writes them."""
        return self.job if self.task == "-" else f"{self.job}_{self.task}"


class Engine(Protocol):
    """A scheduler, and what its jobs are to be like."""

    @property
    def results(self) -> Path:
        """The results folder that its jobs fill."""

    def answers(self) -> bool:
        """Whether it is there, and answers."""

    def most_tasks(self) -> int:
        """Tasks that an array may have."""

    def submit(self, job: Job, after: Sequence[str]) -> str:
        """Send a job off, to begin when others (ids) are over, however these end; its id."""

    def queue(self) -> dict[str, Queued]:
        """The runs of this results folder that are in the queue, by the keys that jobs name."""

    def waiting(self) -> dict[str, dict[str, str]]:
        """Own jobs in the queue: states of their tasks, by the jobs' ids."""
