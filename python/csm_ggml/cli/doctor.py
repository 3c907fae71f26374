"""`csm-ggml doctor`: what this installation is, what it found, and whether it works."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csm_ggml.cli.common import Subparsers, say, size

_LIBRARIES = (
    "numpy",
    "tokenizers",
    "soundfile",
    "soxr",
    "huggingface_hub",
    "gguf",
    "tqdm",
)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Show versions, devices, CPU features and threads, and try the demo model.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Report; each line stands for itself, so that one broken thing does not hide the others."""
    reports: list[tuple[str, Callable[[], str]]] = [
        ("csm-ggml", _package),
        ("ggml", _ggml),
        ("python", lambda: f"{platform.python_version()} ({sys.executable})"),
        ("system", lambda: f"{platform.platform()} {platform.machine()}"),
        ("libraries", _libraries),
        ("devices", _devices),
        ("CPU features", _features),
        ("kernels", _kernels),
        ("threads", _threads),
        ("memory", _memory),
        ("hub cache", _hub_cache),
        ("own cache", _own_cache),
        ("self-test", _self_test),
    ]
    failed = 0
    for name, report in reports:
        try:
            text = report()
        except Exception as error:
            failed += 1
            text = f"FAILED: {type(error).__name__}: {error}"
        for number, line in enumerate(text.splitlines()):
            say(f"{name if number == 0 else '':14}{line}")
    return 1 if failed else 0


def _package() -> str:
    folder = Path(__file__).parent.parent
    try:
        version = importlib.metadata.version("csm-ggml")
    except importlib.metadata.PackageNotFoundError:
        # Used from a source tree that is not installed.
        from csm_ggml import __version__ as version
    return f"{version} ({folder})"


def _ggml() -> str:
    from csm_ggml import _core

    return f"{_core.ggml_version} ({_core.ggml_commit})"


def _libraries() -> str:
    found = []
    failed = []
    for name in _LIBRARIES:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            # Installed is not enough: a library may lack one of the system's under it.
            failed.append(f"{name} ({error})")
            continue
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} {getattr(module, '__version__', 'of unknown version')}")
    if failed:
        raise RuntimeError(
            f"cannot be imported: {', '.join(failed)} (found: {', '.join(found) or 'none'})"
        )
    return ", ".join(found)


def _devices() -> str:
    from csm_ggml.loading.backends import load_backends

    lines = []
    for device in load_backends().devices():
        memory = ""
        if device["memory_total"]:
            memory = f", {size(device['memory_free'])} of {size(device['memory_total'])} free"
        lines.append(f"{device['name']} ({device['type']}): {device['description']}{memory}")
    if not lines:
        raise RuntimeError("none: no backend could be loaded")
    return "\n".join(lines)


def _features() -> str:
    from csm_ggml.loading.backends import load_backends

    return " ".join(load_backends().cpu_features()) or "none beyond the baseline"


def _kernels() -> str:
    from csm_ggml import _core

    used = _core.instruction_set()
    if used is None:
        return "ggml's only; this build has none of its own"
    others = [name for name in _core.instruction_sets() if name != used]
    return f"{used} (of {', '.join([used, *others])}; CSM_GGML_ISA chooses)"


def _threads() -> str:
    from csm_ggml.loading.threads import cpu_quota, default_threads, physical_cores

    quota = cpu_quota()
    return (
        f"{default_threads()} by default ({physical_cores()} physical cores usable, "
        f"{os.cpu_count()} logical processors, "
        f"{'no CPU quota' if quota is None else f'CPU quota {quota:.2g} cores'})"
    )


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return "unknown on this system"
    values = {
        key: int(value.split()[0]) * 1024 for key, value in (line.split(":") for line in lines)
    }
    return f"{size(values['MemAvailable'])} of {size(values['MemTotal'])} available"


def _hub_cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


def _own_cache() -> str:
    from csm_ggml.loading.hub import user_cache

    return str(user_cache())


def _self_test() -> str:
    from csm_ggml.csm import CSM
    from csm_ggml.loading.backends import load_backends

    gpus = [device["name"] for device in load_backends().devices() if "gpu" in device["type"]]
    lines, failed = [], False
    for name in ("cpu", *gpus):
        try:
            with CSM.from_pretrained("demo", device=name) as csm:
                started = time.perf_counter()
                audio = csm.generate("[0]Hello.", seed=1, max_frames=4)
                seconds = time.perf_counter() - started
        except Exception as error:
            failed = True
            lines.append(f"model demo on {name}: {type(error).__name__}: {error}")
            continue
        frames = len(audio.codes)
        lines.append(f"ok, model demo on {name}: {frames} frames in {seconds * 1000:.0f} ms")
    if failed:
        raise RuntimeError("; ".join(lines))
    return "\n".join(lines)
