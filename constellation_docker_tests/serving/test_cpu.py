"""The number of threads comes from the container's limit, in either version of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from constellation_docker.serving.cpu import THREAD_VARIABLES, count_cpus, limit_threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "0::/\n"
V1 = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("files", "available", "expected"),
    [
        ({}, 8, 8),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, 8),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 8, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 8, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 8, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 3, 3),
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            },
            8,
            3,
        ),
        ({"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 8, 1),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
            },
            8,
            3,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            8,
            1,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
            8,
        ),
    ],
)
def test_the_smaller_of_quota_and_cpu_set_counts(
    tmp_path: Path, files: dict[str, str], available: int, expected: int
) -> None:
    assert count_cpus(write(tmp_path, files), available) == expected


def test_here_it_is_at_least_one() -> None:
    assert count_cpus() >= 1


def test_the_libraries_are_told_unless_the_environment_has_spoken() -> None:
    environ = {"OMP_NUM_THREADS": "7"}
    limit_threads(2, environ)
    assert environ["OMP_NUM_THREADS"] == "7"
    assert {environ[name] for name in THREAD_VARIABLES} == {"2", "7"}
