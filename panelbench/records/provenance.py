"""Where and with what a run was made. Recorded beside a result, never part of its key."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterable
from typing import Any

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


def usable_cores() -> int:
    """Cores this process may use: the scheduler's grant or the affinity mask, not the node's."""
    for variable in ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            return min(int(value), _affinity())
    return _affinity()


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    }


def _gpu() -> str:
    """Name of the GPU in use, "" when this process has not used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    return str(torch.cuda.get_device_name())
