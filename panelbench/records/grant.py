"""What this process may use: what the scheduler granted, never the whole node.

The smallest of what is known counts: the scheduler's variables, the affinity mask, and the limits
of the control group and of all above it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SGE_TASK_ID", "PANELBENCH_CORES")
"""Variables that a job has: of schedulers, and of ours."""


def usable_cores() -> int:
    """Cores this process may use, at least one."""
    known = [_affinity()]
    for variable in (
        "PANELBENCH_CORES",
        "SLURM_CPUS_PER_TASK",
        "PBS_NCPUS",
        "NSLOTS",
        "LSB_DJOB_NUMPROC",
    ):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            known.append(int(value))
            break
    known += [int(cores) for cores in _quotas()]
    return max(1, min(known))


def usable_memory() -> int | None:
    """Bytes this process may hold, None when nothing limits it."""
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
    grants = [_megabytes("SLURM_MEM_PER_NODE")]
    if cores.isdigit():
        grants.append(_megabytes("SLURM_MEM_PER_CPU") * int(cores))
    known = [grant for grant in grants if grant]
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            # "max", or a number near 2^63, is no limit.
            known += [int(text)] if text.isdigit() and int(text) < 2**60 else []
    return min(known, default=None)


def in_job() -> bool:
    """Whether this process is part of a scheduler's job, not started by a person."""
    return any(os.environ.get(name) for name in _JOBS)


def kernel_kills() -> int:
    """Processes that the kernel has killed for want of memory, as far as it counts them."""
    total = 0
    for place in (_CGROUPS / "memory.events", Path("/proc/vmstat")):
        for line in _read(place).splitlines():
            name, _, count = line.partition(" ")
            total += int(count) if name == "oom_kill" and count.isdigit() else 0
    return total


def scratch_root() -> Path:
    """Folder for scratch files: the job's own, which goes with the job, where there is one."""
    folder = os.environ.get("SLURM_TMPDIR", "")
    return Path(folder if folder and os.access(folder, os.W_OK) else tempfile.gettempdir())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _megabytes(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) * 1024**2 if value.isdigit() else 0


def _quotas() -> Iterator[float]:
    """Cores that control groups let their members use at a time."""
    for folder in _groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those above it (both versions)."""
    seen = [_CGROUPS, _CGROUPS / controller]
    for line in _read(_OWN_GROUP).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = _CGROUPS / controller if names else _CGROUPS
        group = top / path.lstrip("/")
        # In a container the path may be that of the machine, which is not to be seen here.
        seen += [p for p in (group, *group.parents) if p.is_relative_to(top) and p.is_dir()]
    yield from dict.fromkeys(seen)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="ascii").strip()
    return ""
