"""The hand-written `_core.pyi` describes the compiled module: its names, arguments and defaults."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import _core

ALLOWLIST = Path(__file__).with_name("core_stub_allowlist.txt")
STUB = Path(_core.__file__).with_name("_core.pyi")


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of the stub under its dotted name; properties take no arguments."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield prefix + node.name, node


def compiled_signature(name: str) -> ast.FunctionDef:
    """pybind11 writes a function's signature into the first line of its docstring."""
    found: object = _core
    for part in name.split("."):
        found = getattr(found, part)
    line = (found.__doc__ or "").partition("\n")[0]
    node = ast.parse(f"def {line}: ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def default(node: ast.expr | None) -> object:
    """A default's value; the core holds its numbers in single precision."""
    if node is None:
        return "none"
    value = ast.literal_eval(node)
    return np.float32(value) if isinstance(value, float) else value


def parameters(node: ast.FunctionDef) -> dict[str, object]:
    """What a caller sees of a signature, without types: those are the stub's own business."""
    arguments = node.args
    return {
        "positional": [a.arg for a in arguments.posonlyargs + arguments.args],
        "keyword only": [a.arg for a in arguments.kwonlyargs],
        "defaults": [default(d) for d in arguments.defaults],
        "keyword defaults": [default(d) for d in arguments.kw_defaults],
    }


@pytest.mark.parametrize(
    ("name", "stub"),
    [pytest.param(*pair, id=pair[0]) for pair in functions(ast.parse(STUB.read_text()).body)],
)
def test_arguments_and_defaults(name: str, stub: ast.FunctionDef) -> None:
    assert parameters(compiled_signature(name)) == parameters(stub)


def test_names_and_kinds(tmp_path: Path) -> None:
    # An empty configuration: the project's own names source folders, but the module that is
    # imported here is the one that counts.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n")
    command = [sys.executable, "-m", "mypy.stubtest", "csm_ggml._core", "--ignore-unused-allowlist"]
    result = subprocess.run(
        [*command, "--mypy-config-file", str(config), "--allowlist", str(ALLOWLIST)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
