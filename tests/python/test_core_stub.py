"""The hand-written `_core.pyi` describes the compiled module: every name, argument and default."""

import subprocess
import sys
from pathlib import Path

ALLOWLIST = Path(__file__).with_name("core_stub_allowlist.txt")


def test_stub_matches_compiled_module(tmp_path: Path) -> None:
    # An empty configuration: the project's own names source folders, and the installed package is what counts here.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy.stubtest",
            "csm_ggml._core",
            "--mypy-config-file",
            str(config),
            "--allowlist",
            str(ALLOWLIST),
            "--ignore-unused-allowlist",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
