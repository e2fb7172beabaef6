"""What ``submit`` prints: the jobs that were sent, and how they go on."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from panelbench.cluster.dask import Dask
from panelbench.cluster.jobs import Job
from panelbench.cluster.slurm import Options
from panelbench.commands import show
from panelbench.commands.output import print_json, print_table, short_path, text_table
from panelbench.records.status import exit_code
from panelbench.running.settings import Settings
from panelbench.submission import Submission, arrange, engine_of
from panelbench.suite.request import Request
from panelbench.units import seconds

_MiB, _GiB = 1024**2, 1024**3


def submit(request: Request, settings: Settings, values: dict[str, Any]) -> int:
    """Send what is missing to the queue; with ``--wait``, follow it to its end."""
    options = Options(
        partition=values["partition"],
        account=values["account"],
        qos=values["qos"],
        constraint=values["constraint"],
        gres=values["gres"],
        throttle=values["throttle"],
        extra=tuple(values["sbatch"] or ()),
    )
    pack, folder = seconds(values["pack"], "--pack"), values["print_"]
    unsent = values["dry_run"] or folder is not None
    engine = engine_of(
        values["executor"], settings, options, values["scheduler"], values["scheduler_file"]
    )
    found = arrange(request, settings, engine, pack, need_queue=not unsent)
    as_json = values["output"] == "json"
    files = found.write(folder) if folder is not None else []
    try:
        if not unsent:
            found.send()
    finally:
        if as_json:
            print_json(
                jobs=[_line(job, found) for job in found.jobs],
                queued=found.standing.queued,
                files=[str(path) for path in files],
            )
        else:
            _print(found, sent=not unsent)
    if files and not as_json:
        print(f"scripts: {short_path(folder)}; `bash {short_path(folder)}/submit.sh` sends them")
    if not values["wait"] or unsent:
        return 0
    jobs = {*found.ids.values(), *(run.job for run in engine.queue().values())}
    follow(jobs, engine.waiting)
    states = arrange(request, settings, engine, pack).standing.states
    show.ends(states)
    return exit_code(state.status for _, state in states)


def _line(job: Job, found: Submission) -> dict[str, Any]:
    """A job for programs."""
    return {
        "id": found.ids.get(job.name, ""),
        "name": job.name,
        "tasks": len(job.tasks) or 1,
        "runs": job.runs,
        "seconds": job.need.time,
        "memory": job.need.memory,
        "cores": job.need.cores,
        "gpus": job.need.gpus,
        "after": [found.ids.get(name, name) for name in job.after],
        "command": list(job.command),
        "keys": [[key for key, _ in task] for task in job.tasks],
    }


def _print(found: Submission, *, sent: bool) -> None:
    rows = [
        (
            *([found.ids.get(job.name, "not sent")] if sent else []),
            job.name,
            f"{len(job.tasks) or 1}",
            f"{job.runs or ''}",
            f"{job.need.time / 60:.0f} min",
            f"{job.need.memory / _GiB:.3g} GB",
            f"{job.need.cores}" + (f", {job.need.gpus} GPU" if job.need.gpus else ""),
            ", ".join(found.ids.get(name, name) for name in job.after[:3])
            + (", ..." if len(job.after) > 3 else ""),
        )
        for job in found.jobs
    ]
    head = ("job", "name", "tasks", "runs", "time", "memory", "cores", "after")
    if rows:
        print_table(text_table(head if sent else head[1:], rows))
    counts = Counter(str(state.status) for _, state in found.standing.states)
    stand = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    runs, verb = len(found.standing.todo), "sent" if sent else "to send"
    queue = f", {found.standing.queued} in the queue already" if found.standing.queued else ""
    print(f"{runs} runs {verb}{queue}; where all stand: {stand}")
    for lacking in (
        found.engine.unmet(found.jobs) if isinstance(found.engine, Dask) and sent else ()
    ):
        print(f"note: no worker offers {lacking} now: `dask worker --resources` says what one has")


def follow(
    jobs: Collection[str],
    look: Callable[[], dict[str, dict[str, str]]],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for jobs, and say how many of their tasks are left; they do not need the waiting."""
    total, last, wait = 0, "", 1.0
    while True:
        counts = Counter(
            state for job, tasks in look().items() if job in jobs for state in tasks.values()
        )
        left = sum(counts.values())
        total = max(total, left)
        states = "".join(f", {count} {state}" for state, count in sorted(counts.items()))
        line = f"queue: {total - left} of {total} tasks over{states}"
        if line != last:
            end = "\r" if sys.stderr.isatty() and left else "\n"
            print(line.ljust(72), file=sys.stderr, end=end, flush=True)
        if not left:
            return
        last = line
        pause(wait)
        wait = min(30.0, 1.2 * wait)
