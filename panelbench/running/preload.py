"""What a worker reads before it forks: libraries and code, once and not anew in every child."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from panelbench.running.jobs import RunJob

USED_BY_ALL = (
    "numpy",
    "scipy.sparse",
    "pandas",
    "anndata",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.neighbors",
    "panelbench.stages.evaluation",
    "panelbench.stages.preprocess",
    "panelbench.stages.selection",
)
_IMPORT_NAMES = {"scikit-learn": "sklearn", "mrmr-selection": "mrmr", "scikit-misc": "skmisc",
                 "scvi-tools": "scvi"}  # fmt: skip


def read_code(job: RunJob) -> None:
    """Read the code that a run is compared with: here once, not anew in every child."""
    from panelbench.records.code import code_digest
    from panelbench.registry import discover, discover_evaluators
    from panelbench.stages.questions import SelectQuestion

    # Shipped code only; what is anybody's own is read, and imported, by the child.
    with contextlib.suppress(Exception):
        shipped: Any = discover().methods.get(job.place.method)
        if not isinstance(job.question, SelectQuestion):
            shipped = discover_evaluators().declared.get(job.question.evaluator)
        for module in (*job.code, *([shipped.module] if shipped is not None else [])):
            code_digest(module)


def import_libraries(names: tuple[str, ...]) -> bool:
    """Import libraries before the fork; what cannot be imported fails in the child, visibly.

    Returns
    -------
    Whether anything new was imported.
    """
    before = len(sys.modules)
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    return len(sys.modules) > before
