"""Which runs are in the queue of a cluster, beside what the records say of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from panelbench.cluster import slurm
from panelbench.cluster.engine import ClusterError
from panelbench.cluster.slurm import Slurm
from panelbench.running.settings import Settings

_WORDS = {"pending": "queued"}


def with_queue(lines: Sequence[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Lines of runs, those in the queue marked, and those added that have no record yet.

    Parameters
    ----------
    lines
        One for each run that has records: ``key``, ``status``, ``reason`` and the like.
    settings
        For the results folder, whose jobs are looked for. Where no Slurm answers, nothing is.
    """
    if not slurm.answers():
        return list(lines)
    try:
        queue = Slurm(settings.results).queue()
    except ClusterError as error:
        print(f"note: the queue is not shown: {error}", file=sys.stderr)
        return list(lines)
    digits = len(lines[0]["key"]) if lines else 10
    held = {
        key[:digits]: run
        for key, run in queue.items()
        if run.what.startswith(("select ", "evaluate "))
    }
    found = []
    for line in lines:
        run = held.pop(line["key"], None)
        if run is not None and line["status"] != "ok":
            before = f"; before: {line['status']} {line['reason']}".rstrip()
            status = _WORDS.get(run.state, run.state)
            line = {**line, "status": status, "reason": f"job {run.place}{before}"}
        found.append(line)
    blank = dict.fromkeys(
        lines[0] if lines else ("key", "stage", "method", "status", "attempts", "reason"), ""
    )
    for key, run in held.items():
        stage, _, what = run.what.partition(" ")
        found.append(
            {
                **blank,
                "key": key,
                "stage": stage,
                "method": what.partition(" ")[0],
                "status": _WORDS.get(run.state, run.state),
                "attempts": 0,
                "reason": f"job {run.place}: {what}",
            }
        )
    return found
