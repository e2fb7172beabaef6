"""Watching what code does beside its task: processes, and random states that others use too."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np

from panelbench.contract.rules import Breach, demand


def starts_no_process(run: Callable[[], object]) -> None:
    """Run something that may start neither a process nor a program.

    Raises
    ------
    Breach
        When it starts one.
    """
    with _started() as started:
        run()
    # What was tried may have caught the error.
    demand(not started, "".join(started[:1]))


@contextlib.contextmanager
def _started() -> Iterator[list[str]]:
    """Processes and programs whose start was refused."""
    found: list[str] = []

    def refuse(what: str) -> None:
        found.append(f"starts {what}, though n_jobs is 1")
        raise Breach(found[-1])

    def process(self: Any, *args: Any) -> None:
        refuse(f"the process {self.name}")

    def program(self: Any, args: Any, *more: Any, **options: Any) -> None:
        refuse(f"the program {args if isinstance(args, str) else args[0]}")

    with (
        patch.object(multiprocessing.process.BaseProcess, "start", process),
        patch.object(subprocess.Popen, "__init__", program),
    ):
        yield found


def leaves_random_states(run: Callable[[], object]) -> None:
    """Run something that may neither seed nor use a global random state.

    Raises
    ------
    Breach
        When it does.
    """
    before = _random_states()
    run()
    after = _random_states()
    changed = [name for name, state in before.items() if after[name] != state]
    demand(not changed, f"seeds or uses the global random state of {' and '.join(changed)}; take "
                        "generators from rng('purpose')")  # fmt: skip


def _random_states() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    numpy_state = np.random.get_state()  # noqa: NPY002
    return {
        "numpy": [p.tolist() if isinstance(p, np.ndarray) else p for p in numpy_state],
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist() if torch else None,
    }
