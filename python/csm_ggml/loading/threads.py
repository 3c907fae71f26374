"""How many threads to compute with when nobody says: the physical cores that this process may use.

A second thread on the same core shares its arithmetic units and its path to memory, which is what
bounds speech, so logical processors do not count. Containers limit cores by affinity or by a quota
of CPU time; both are respected.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from csm_ggml.limits import MOST_THREADS

_SYS_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")

ENVIRONMENT_VARIABLE = "CSM_GGML_THREADS"


def default_threads() -> int:
    """CSM_GGML_THREADS of the environment, else physical cores within affinity and CPU quota.

    Raises:
        ValueError: If the variable is set to something else than a number of threads.
    """
    if value := os.environ.get(ENVIRONMENT_VARIABLE):
        digits = value.isascii() and value.isdigit() and len(value) < 10
        if not digits or not 1 <= int(value) <= MOST_THREADS:
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE} must be a positive number of at most {MOST_THREADS}, "
                f"got {value[:40]!r}"
            )
        return int(value)
    cores = physical_cores()
    quota = cpu_quota()
    if quota is not None:
        cores = min(cores, int(quota))
    return max(1, cores)


def physical_cores() -> int:
    """Physical cores that this process may run on (macOS: performance cores)."""
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or 1
    if not hasattr(os, "sched_getaffinity"):
        logical = os.cpu_count() or 1
        # Desktop x86 has two logical processors a core as a rule, ARM one.
        return (
            max(1, logical // 2) if platform.machine().lower() in ("amd64", "x86_64") else logical
        )
    allowed = os.sched_getaffinity(0)
    return len({_siblings(cpu) for cpu in allowed}) or 1


def cpu_quota() -> float | None:
    """CPU time per second that the control group allows, in cores; None if unlimited or unknown."""
    try:
        lines = _PROC_CGROUP.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _walk(_CGROUP, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _walk(_CGROUP / controllers, path, _quota_v1)
    return min(quotas, default=None)


def _walk(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Quotas of a control group and the groups above; a container may not see its own path."""
    quotas = []
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if (quota := read(folder)) is not None:
            quotas.append(quota)
        if folder == root:
            break
    return quotas


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _siblings(cpu: int) -> str:
    """The logical processors that share a core with this one, as the kernel writes them."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return (_SYS_CPU / f"cpu{cpu}" / "topology" / name).read_text().strip()
        except OSError:
            continue
    return str(cpu)


def _sysctl(name: str) -> int | None:
    value = ctypes.c_int64(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    library = ctypes.CDLL(None)
    if library.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) != 0:
        return None
    return value.value
