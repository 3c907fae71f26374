"""Type hints: there for checkers, and resolvable when the program runs."""

import importlib
import inspect
import pkgutil
import typing
from pathlib import Path
from typing import Any

import csm_ggml
import pytest

# The command line imports what it needs when it runs, and is no interface of Python.
LAZY = ("csm_ggml.cli", "csm_ggml.__main__", "csm_ggml._core")
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(csm_ggml.__path__, "csm_ggml.")
    if not name.startswith(LAZY)
]


def functions(thing: Any) -> list[Any]:
    """A function, or a class with its methods."""
    if inspect.isfunction(thing):
        return [thing]
    inner = [getattr(m, "__func__", getattr(m, "fget", m)) for m in vars(thing).values()]
    return [thing, *filter(inspect.isfunction, inner)]


@pytest.mark.parametrize("name", MODULES)
def test_hints_resolve(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs an extra: {error}")
    own = [
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing) or inspect.isfunction(thing)
    ]
    for thing in own:
        if thing.__module__ == name:
            for function in functions(thing):
                typing.get_type_hints(function)


def test_the_package_says_that_it_has_hints() -> None:
    assert (Path(csm_ggml.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("name", csm_ggml.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(csm_ggml, name) is not None
