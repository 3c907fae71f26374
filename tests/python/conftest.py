"""Fixtures shared by the tests: random checkpoints, converted and loaded, and their reference.

Tests marked `parity` run PyTorch beside the engine; without torch and transformers they are skipped
and say so. All others compare with the committed fixtures of the same reference (tests/golden).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from csm_ggml import _core
from csm_ggml.convert import convert, make_random
from reference import expected as expectations
from reference.checkpoint import write_checkpoint
from reference.expected import Expected
from reference.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from reference.runner import Reference

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if HAS_TORCH:
        return
    skip = pytest.mark.skip(reason="live comparison needs torch and transformers, not installed")
    for item in items:
        if "parity" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a recipe's checkpoint, written once a session."""

    @cache
    def write(name: str) -> Path:
        return write_checkpoint(RECIPES[name], tmp_path_factory.mktemp(name) / "checkpoint")

    return write


@pytest.fixture(scope="session")
def gguf(checkpoint: Callable[[str], Path]) -> Callable[..., Path]:
    """The recipe's checkpoint converted to a GGUF file of some type."""

    @cache
    def make(name: str, type: str = "f32") -> Path:
        out = checkpoint(name).parent / f"{name}-{type}.gguf"
        convert(checkpoint(name), out, type=type)
        return out

    return make


@pytest.fixture(scope="session")
def model(gguf: Callable[..., Path]) -> Callable[..., _core.Model]:
    """The recipe's checkpoint on the CPU; one thread unless asked for, as it is small."""

    @cache
    def load(name: str, type: str = "f32", threads: int = 1) -> _core.Model:
        return _core.Model([str(gguf(name, type))], device="cpu", threads=threads)

    return load


@pytest.fixture(scope="session")
def reference(checkpoint: Callable[[str], Path]) -> Callable[[str], Reference]:
    """The recipe's checkpoint in transformers."""

    @cache
    def load(name: str) -> Reference:
        from reference.runner import Reference

        return Reference(checkpoint(name))

    return load


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each recipe in turn."""
    wanted: Recipe = request.param
    return wanted


@pytest.fixture(scope="session")
def expected_of(reference: Callable[[str], Reference]) -> Callable[[str, str], Expected]:
    """What the reference says of a recipe, from "golden" fixtures or "live"."""

    @cache
    def get(source: str, name: str) -> Expected:
        if source == "live":
            return expectations.compute(reference(name), RECIPES[name])
        golden = expectations.load(RECIPES[name])
        if golden.digest != expectations.weights_digest(RECIPES[name]):
            raise AssertionError(
                f"tests/golden/{name}.npz belongs to other weights than its recipe draws; "
                "run tests/golden/make_golden.py"
            )
        return golden

    return get


@pytest.fixture(params=["golden", pytest.param("live", marks=pytest.mark.parity)])
def expected(
    request: pytest.FixtureRequest, recipe: Recipe, expected_of: Callable[[str, str], Expected]
) -> Expected:
    """What the reference says of the recipe: from the committed fixture, and computed now."""
    return expected_of(request.param, recipe.name)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of random weights, in F32."""
    out = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    make_random(out, preset="tiny", type="f32", seed=0, progress=False)
    return out
