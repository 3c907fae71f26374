"""The examples of README.md and docs/ run.

Blocks marked `python` run, those of a page one after another in one namespace; in blocks marked
`console` the lines after `$ ` run in a shell. Blocks of other kinds, such as `sh`, are for reading.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """Line number and text of the page's blocks of a kind."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in BLOCK.finditer(text)
        if match[1] == kind
    ]


@pytest.fixture(autouse=True)
def _small_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSM_GGML_THREADS", "1")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_examples(page: Path) -> None:
    namespace: dict[str, object] = {}
    for line, source in blocks(page, "python"):
        # Empty lines before it, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + source, str(page), "exec"), namespace)


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "console")], ids=lambda p: p.name)
def test_console_examples(page: Path, tmp_path: Path) -> None:
    here = f'csm-ggml() {{ {shlex.quote(sys.executable)} -m csm_ggml "$@"; }}; set -e -o pipefail\n'
    for line, source in blocks(page, "console"):
        commands = [text[2:] for text in source.splitlines() if text.startswith("$ ")]
        assert commands, f"{page.name}:{line}: a console block without a command"
        for command in commands:
            result = subprocess.run(
                ["bash", "-c", here + command], cwd=tmp_path, capture_output=True, text=True
            )
            assert result.returncode == 0, f"{page.name}:{line}: {command}\n{result.stderr}"
