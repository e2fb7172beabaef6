"""Torch's global state: set for a training, and put back behind it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from panelbench.method import Task


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread.

    The matrices of a panel are small, so more threads gain little, and with one the result does
    not depend on `Task.n_jobs`.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """One thread, and the global generators of torch, numpy and Python seeded for the time being.

    For libraries that draw from the global generators; a method's own code takes a `generator`.

    Parameters
    ----------
    seed
        32-bit seed of all of them.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``: the generator of this GPU is seeded too.
    """
    import torch

    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with one_thread(), torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def generator(task: Task, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return torch's counterpart of `Task.rng`: a generator for one purpose, on a device."""
    import torch

    return torch.Generator(device).manual_seed(task.int_seed(purpose))
