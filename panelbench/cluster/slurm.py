"""Slurm: jobs as batch scripts that ``sbatch`` takes, and the queue as ``squeue`` shows it.

The scripts are all there is: each names the keys of its runs, and is read back from the scheduler
to know what is queued. So a job is sent by ``sbatch`` alone; a library that pickles a function
would add files that nobody can read or edit.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from panelbench.cluster.engine import LOGS, ClusterError, Queued
from panelbench.cluster.jobs import Job

MiB = 1024**2
ROOM = 1024**3
"""Bytes of a job beside its run: the command, its worker and their libraries."""
_ROW = re.compile(r"^(?:# )?(\d+|-) ([0-9a-f]{8,}) (.*)$", flags=re.M)
_RESULTS = "# results: "


@dataclass(frozen=True)
class Options:
    """What is passed on to ``sbatch``.

    Attributes
    ----------
    partition, account, qos, constraint
        As there.
    gres
        What a job that needs GPUs asks for; ``gpu:N`` by default.
    throttle
        Tasks of an array that may run at a time (``%N``).
    extra
        Further options, as ``--reservation=course`` or ``reservation=course``.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    throttle: int | None = None
    extra: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Options of a script."""
        names = ("partition", "account", "qos", "constraint")
        found = [f"--{n}={getattr(self, n)}" for n in names if getattr(self, n)]
        return found + ["--" + option.lstrip("-") for option in self.extra]


@dataclass(frozen=True)
class Slurm:
    """The scheduler, and what its jobs are to be like."""

    results: Path
    options: Options = field(default_factory=Options)

    def answers(self) -> bool:
        """Whether it is there, and answers."""
        return answers()

    def waiting(self) -> dict[str, dict[str, str]]:
        """Own jobs in the queue: states of their tasks, by the jobs' ids."""
        return waiting()

    def most_tasks(self) -> int:
        """Tasks that an array may have."""
        shown = _ask(["scontrol", "show", "config"])
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, flags=re.M)
        # Indices are below this number.
        return max(1, int(found[1])) if found else 1000

    def submit(self, job: Job, after: Sequence[str]) -> str:
        """Send a job off; the id it gets."""
        (self.results / LOGS).mkdir(parents=True, exist_ok=True)
        command = ["sbatch", "--parsable", *dependency(after)]
        return _ask(command, self.script(job)).strip().partition(";")[0]

    def script(self, job: Job) -> str:
        """The script of a job, to be read and edited by people."""
        log = f"{self.results.absolute() / LOGS}/%x-%{'A_%a' if job.tasks else 'j'}.log"
        head = [
            f"--job-name={job.name}",
            *self._array(job),
            f"--time={_time(job.need.time)}",
            f"--mem={ceil((job.need.memory + ROOM) / MiB)}M",
            f"--cpus-per-task={job.need.cores}",
            *self._gpus(job),
            f"--output={log}",
            "--open-mode=append",
            "--requeue",
            *self.options.lines(),
        ]
        lines = ["#!/bin/bash", *(f"#SBATCH {_quoted(option)}" for option in head)]
        lines += ["", f"{_RESULTS}{self.results.absolute()}"]
        # The shell becomes the command, so that signals of the scheduler reach it.
        command = f"exec {shlex.quote(sys.executable)} -m panelbench.cli {_folded(job.command)}"
        if not job.tasks:
            return "\n".join([*lines, *_rows([job.makes], "# -"), "", command, ""])
        return "\n".join(
            [
                *lines,
                "# Each run by task, key and what it is. A run that is done is passed over; lines",
                "# may be taken out.",
                "keys=$(awk -v task=\"$SLURM_ARRAY_TASK_ID\" '$1 == task { print $2 }' <<'RUNS'",
                *_rows(job.tasks),
                "RUNS",
                ")",
                f"{command} \\",
                "    --key \"${keys//$'\\n'/,}\"",
                "",
            ]
        )

    def _array(self, job: Job) -> list[str]:
        if not job.tasks:
            return []
        throttle = f"%{self.options.throttle}" if self.options.throttle else ""
        return [f"--array=0-{len(job.tasks) - 1}{throttle}"]

    def _gpus(self, job: Job) -> list[str]:
        return [f"--gres={self.options.gres or f'gpu:{job.need.gpus}'}"] if job.need.gpus else []

    def queue(self, seconds: float = 60.0) -> dict[str, Queued]:
        """The runs of this results folder that are in the queue, by the keys that scripts name.

        Whoever does not answer within so many seconds is not waited for.
        """
        found: dict[str, Queued] = {}
        for job, tasks in waiting(seconds).items():
            shown = _ask(["scontrol", "write", "batch_script", job, "-"], or_else="")
            if f"{_RESULTS}{self.results.absolute()}\n" not in shown:
                continue
            for task, key, what in _ROW.findall(shown):
                if task in tasks:
                    found[key] = Queued(job, task, tasks[task], what)
        return found


def answers() -> bool:
    """Whether there is a Slurm here, and it answers."""
    if shutil.which("squeue") is None:
        return False
    try:
        waiting()
    except ClusterError:
        return False
    return True


def waiting(seconds: float = 60.0) -> dict[str, dict[str, str]]:
    """Own jobs in the queue whose name is ours: tasks by job id, and what Slurm says of each."""
    found: dict[str, dict[str, str]] = {}
    command = ["squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%j"]
    shown = _ask(command, seconds=seconds)
    for line in shown.splitlines():
        job, task, state, name = line.strip().split("|", 3)
        # A job that is about to end does no run any more.
        if name.startswith(NAME) and state != "COMPLETING":
            found.setdefault(job, {})["-" if task == "N/A" else task] = state.lower()
    return found


NAME = "panelbench-"
"""How the names of jobs begin."""


def dependency(after: Sequence[str]) -> list[str]:
    """Option that lets a job wait for others, however these end: no failure stops anybody else."""
    return [f"--dependency=afterany:{':'.join(after)}"] if after else []


def driver(jobs: Sequence[Job], files: Mapping[str, str]) -> str:
    """A shell script that sends off the scripts of jobs, in their order."""
    lines = ["#!/bin/bash", "# Sends the jobs of this folder off; each waits for those it needs.",
             "set -euo pipefail", 'cd "$(dirname "$0")"', "declare -A id"]  # fmt: skip
    for job in jobs:
        after = [f"${{id[{name}]}}" if name in files else name for name in job.after]
        option = "".join(f' "{part}"' for part in dependency(after))
        lines.append(f"id[{job.name}]=$(sbatch --parsable{option} {files[job.name]})")
        lines.append(f'echo "${{id[{job.name}]}} {job.name}"')
    return "\n".join([*lines, ""])


def _rows(tasks: Sequence[Sequence[tuple[str, str]]], task: str | None = None) -> list[str]:
    return [
        f"{index if task is None else task} {key} {' '.join(what.split())}"
        for index, runs in enumerate(tasks)
        for key, what in runs
    ]


def _time(seconds: float) -> str:
    minutes = ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}:00"


def _quoted(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}{equals}{shlex.quote(value)}" if equals else option


def _folded(command: Sequence[str]) -> str:
    """A command with one option on a line."""
    text = ""
    for word in command:
        text += " \\\n    " if word.startswith("--") else " " if text else ""
        text += shlex.quote(word)
    return text


def _ask(
    command: Sequence[str],
    script: str | None = None,
    *,
    or_else: str | None = None,
    seconds: float = 60.0,
) -> str:
    """What a command of Slurm's prints.

    Raises
    ------
    ClusterError
        When it is not there or fails, unless there is something else to return.
    """
    try:
        found = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=seconds, check=True
        )
        return found.stdout
    except FileNotFoundError:
        reason = "is not to be found: is this a machine of the cluster?"
    except subprocess.TimeoutExpired:
        reason = f"does not answer within {seconds:g} seconds"
    except subprocess.CalledProcessError as error:
        reason = "says: " + (error.stderr.strip() or f"exit code {error.returncode}")
    if or_else is not None:
        return or_else
    raise ClusterError(f"{command[0]} {reason}")
