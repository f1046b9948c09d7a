"""How many CPUs this container may use, and how the numerical libraries learn it.

A container's limit is a quota of its cgroup and, rarely, a set of CPUs; `os.cpu_count` knows neither. With
the host's count, every library starts too many threads, and the kernel then stops the whole container for
the rest of each period.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def count_cpus(root: Path = Path("/"), available: int | None = None) -> int:
    """Whole CPUs this process may use, at least 1: the smaller of its CPU set and its cgroup's quota.

    Args:
        root: Where `proc` and `sys` are; another one in tests.
        available: Size of the CPU set; default: the kernel's answer.
    """
    if available is None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for quota in (_read_quota_v2(root), _read_quota_v1(root)) if quota is not None]
    return max(1, min([available, *(int(quota) for quota in quotas)]))


def limit_threads(threads: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell OpenMP, BLAS and tokenizers; to be called before numpy is first imported.

    What the image's or the container's environment already says, stays.
    """
    for variable in THREAD_VARIABLES:
        environ.setdefault(variable, str(threads))


def _read_quota_v2(root: Path) -> float | None:
    """The lowest `cpu.max` between this process's cgroup and the top, in CPUs."""
    top = root / "sys/fs/cgroup"
    quotas = []
    for directory in _directories(top, _cgroup_path(root, controller="")):
        words = _read(directory / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _read_quota_v1(root: Path) -> float | None:
    quotas = []
    for name in ("cpu", "cpu,cpuacct"):
        top = root / "sys/fs/cgroup" / name
        for directory in _directories(top, _cgroup_path(root, controller="cpu")):
            quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
            if quota and period and int(quota) > 0:
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_path(root: Path, controller: str) -> str:
    """This process's path below the hierarchy of `controller` (empty: version 2's only hierarchy)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and controller in parts[1].split(","):
            return parts[2]
    return "/"


def _directories(top: Path, path: str) -> list[Path]:
    """`top` and every directory on the way down to `path`: a limit may sit on any of them.

    Inside a container the path may be the host's while `top` is already the container's own; directories
    that are not there have no files to read.
    """
    directories = [top]
    for part in path.split("/"):
        if part and part != "..":
            directories.append(directories[-1] / part)
    return directories


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
