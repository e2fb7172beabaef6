"""Block HSIC Lasso by pyHSICLasso: the reference."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np

from panelbench.errors import MethodError
from panelbench.method import Selection, Task


def select_with_library(task: Task, block_size: int, permutations: int) -> Selection:
    """Rank genes as pyHSICLasso does.

    Parameters
    ----------
    task
        The task; `Task.n_jobs` processes are started.
    block_size, permutations
        B and M of the library.

    Raises
    ------
    MethodError
        When the library fails or returns fewer than k genes.
    """
    from pyHSICLasso import HSICLasso

    model = HSICLasso()
    model.input(task.dense(), np.asarray(task.target.values).reshape(-1))
    fit = model.classification if task.target.kind == "classification" else model.regression
    # The library seeds numpy's global generator, prints, and warns about cells beyond the blocks.
    state = np.random.get_state()  # noqa: NPY002
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(task.k, B=block_size, M=permutations, n_jobs=task.n_jobs)
    except (ValueError, AttributeError, np.linalg.LinAlgError) as error:
        raise MethodError(
            f"pyHSICLasso failed ({error}); it cannot rank all genes, nor two that are copies of "
            "each other: use backend=panelbench"
        ) from error
    finally:
        np.random.set_state(state)  # noqa: NPY002
    chosen = model.get_index()
    if len(chosen) < task.k:
        raise MethodError(
            f"pyHSICLasso's path ended with {len(chosen)} of {task.k} genes: use "
            "backend=panelbench, which fills the panel, or a smaller k"
        )
    return Selection(
        ranking=task.genes[chosen].tolist(), scores=model.get_index_score().ravel().tolist()
    )
