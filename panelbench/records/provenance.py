"""Where and with what a run was made. Recorded beside a result, never part of its key."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterable
from typing import Any

from panelbench.records.grant import usable_cores
from panelbench.records.keys import library_versions

LIBRARIES = (
    "panelbench",
    "anndata",
    "joblib",
    "numpy",
    "pandas",
    "scanpy",
    "scikit-learn",
    "scipy",
)


def environment(libraries: Iterable[str] = ()) -> dict[str, Any]:
    """Facts about this machine and its libraries, JSON-ready.

    Parameters
    ----------
    libraries
        Distributions to list beside the usual ones.
    """
    versions = library_versions([*LIBRARIES, *libraries])
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": usable_cores(),
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "versions": {name: found for name, found in versions.items() if found},
        "gpu": _gpu(),
        "gpus_granted": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }


def _gpu() -> str:
    """Name of the GPU in use, "" when this process has not used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    return str(torch.cuda.get_device_name())
