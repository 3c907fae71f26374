"""The examples of docs/SERVER.md, against a server: those whose libraries are installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from csm_ggml.server.settings import Settings
from server_harness import Running, running

PAGE = Path(__file__).parents[2] / "docs" / "SERVER.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
EXAMPLES = [(kind, text) for kind, text in BLOCKS if "localhost:8080" in text]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(voices=tmp_path_factory.mktemp("voices"), models=("csm-1b",))
    with running(settings, slots=2) as found:
        yield found


def ready(text: str, server: Running) -> str:
    return text.replace("localhost:8080", f"localhost:{server.port}")


@pytest.mark.parametrize("text", [text for kind, text in EXAMPLES if kind == "py"])
def test_python_examples(text: str, server: Running, tmp_path: Path) -> None:
    for module in re.findall(r"^(?:from|import) ([\w]+)", text, re.M):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    (tmp_path / "example.py").write_text(ready(text, server))
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("text", [text for kind, text in EXAMPLES if kind == "sh"])
def test_shell_examples(text: str, server: Running, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    here = f'csm-ggml() {{ "{sys.executable}" -m csm_ggml "$@"; }}; set -e\n'
    script = here + ready(text, server).replace("curl ", "curl --fail-with-body ")
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("text", [text for kind, text in EXAMPLES if kind == "js"])
def test_javascript_examples(text: str, server: Running, tmp_path: Path) -> None:
    """With the openai package of npm, in the folder that NODE_PATH names."""
    import os

    modules = os.environ.get("NODE_PATH", "")
    if not (modules and Path(modules, "openai").is_dir() and shutil.which("node")):
        pytest.skip("needs node, and NODE_PATH with openai in it")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "example.mjs").write_text(ready(text, server))
    subprocess.run(["node", "example.mjs"], cwd=tmp_path, check=True, timeout=60)
