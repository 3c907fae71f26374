"""What is measured on: processor, memory, build, and how busy the machine is."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from csm_ggml.loading.backends import load_backends
from csm_ggml.loading.threads import physical_cores

# Above this, other processes take time that the timings then contain.
QUIET_LOAD = 0.5


def describe() -> dict[str, Any]:
    """Processor, system and build, as they stand in the JSON results.

    Raises:
        BackendError: If no CPU backend can be loaded.
    """
    core = load_backends()
    devices = core.devices()
    cpu = next((device for device in devices if device["type"] == "cpu"), None)
    return {
        "cpu": cpu["description"] if cpu else platform.processor(),
        "physical_cores": physical_cores(),
        "logical_processors": os.cpu_count(),
        "cpu_features": core.cpu_features(),
        "instruction_set": core.instruction_set(),
        "memory_bytes": cpu["memory_total"] if cpu else None,
        "devices": [f"{device['name']}: {device['description']}" for device in devices],
        "system": platform.platform(),
        "python": platform.python_version(),
        "csm_ggml": core.__version__,
        "ggml": core.ggml_version,
        "ggml_commit": core.ggml_commit,
    }


def load_average() -> float | None:
    """Processes that ran or waited to in the last minute; None where the system has no count."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held; None where that is not known.

    Linux's getrusage would count in what the parent held when it started this process.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    elif sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
