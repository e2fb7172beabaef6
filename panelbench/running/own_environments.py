"""Environments of methods that runs are about to need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from panelbench.environments.make import make
from panelbench.environments.place import Place, environments_folder
from panelbench.errors import Fault
from panelbench.records.grant import in_job
from panelbench.running.settings import Settings
from panelbench.suite.runs import SelectRun


def make_missing(
    runs: Iterable[SelectRun],
    settings: Settings,
    due: Callable[[SelectRun], bool] = lambda run: True,
) -> None:
    """Make the environments that runs need, and say so; not in a job of a scheduler.

    Where one cannot be made, that is said too, and the runs that need it end with a fault.

    Parameters
    ----------
    runs
        Selections.
    settings
        Where environments lie, and whether anything is said.
    due
        Whether one is still to be done.
    """

    def say(text: str) -> None:
        if not settings.quiet:
            print(text, file=sys.stderr, flush=True)

    wanted = {}
    for run in runs:
        environment = getattr(run.declared, "environment", None)
        if environment is not None and run.method not in wanted and due(run):
            wanted[run.method] = Place(environments_folder(settings.cache), environment)
    for name, place in wanted.items():
        # On a node of a cluster there may be no network, and nobody to ask.
        if place.facts() or in_job():
            continue
        try:
            make(place, name, say)
        except Fault as error:
            say(f"note: {error}")
