"""Where and with what a run was made. Recorded beside a result, never part of its key."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
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


def usable_memory() -> int | None:
    """Bytes this process may hold: the scheduler's grant or the control group's limit.

    Returns
    -------
    The smallest that is known, None when nothing limits it.
    """
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    grants = [_megabytes("SLURM_MEM_PER_NODE")]
    if cores.isdigit():
        grants.append(_megabytes("SLURM_MEM_PER_CPU") * int(cores))
    known = [grant for grant in grants if grant]
    for place in _MEMORY_LIMITS:
        with contextlib.suppress(OSError):
            text = place.read_text(encoding="ascii").strip()
            # "max", or a number near 2^63, is no limit.
            known += [int(text)] if text.isdigit() and int(text) < 2**60 else []
    return min(known, default=None)


_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def _megabytes(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) * 1024**2 if value.isdigit() else 0


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
