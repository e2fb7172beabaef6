"""Which runs are in the queue of a cluster, beside what the records say of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from panelbench.cluster.engine import ClusterError, Queued
from panelbench.cluster.slurm import Slurm
from panelbench.running.settings import Settings

_WORDS = {"pending": "queued"}
PATIENCE = 5.0
"""Seconds in which the queue has to answer: the list is of the records in any case."""


def with_queue(
    runs: Callable[[], Sequence[dict[str, Any]]], settings: Settings
) -> list[dict[str, Any]]:
    """Lines of runs, those in the queue marked, and those added that have no record yet.

    Parameters
    ----------
    runs
        Gives a line for each run that has records: ``key``, ``status``, ``reason`` and the like.
        The queue is asked meanwhile.
    settings
        For the results folder, whose jobs are looked for. Where there is no Slurm, nothing is.
    """
    with ThreadPoolExecutor(max_workers=1) as other:
        asked = other.submit(_queue, settings.results)
        return _marked(runs(), asked.result())


def _queue(results: Path) -> dict[str, Queued]:
    """Runs in the queue by their keys; none, with a note, where it does not answer."""
    if shutil.which("squeue") is None:
        return {}
    try:
        return Slurm(results).queue(PATIENCE)
    except ClusterError as error:
        print(f"note: the queue is not shown: {error}", file=sys.stderr)
        return {}


def _marked(lines: Sequence[dict[str, Any]], queue: Mapping[str, Queued]) -> list[dict[str, Any]]:
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
