"""The comparisons would notice: files with one number slightly wrong fail them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from csm_ggml import _core
from reference import engines, scenes
from reference.compare import SAMPLES_TOLERANCE, assert_logits_close, assert_samples_close
from reference.expected import Expected
from reference.gguf_document import F32, U32, parse
from reference.recipes import GROUPED8, PLAIN4, SINGLE32, Recipe

SMALL = pytest.mark.parametrize("recipe", [PLAIN4, GROUPED8, SINGLE32], ids=lambda r: r.name)


@pytest.fixture
def with_another(
    gguf: Callable[..., Path], tmp_path: Path
) -> Callable[[Recipe, str, Callable[[float], float]], _core.Model]:
    """The recipe's model with one key changed."""

    def load(recipe: Recipe, name: str, change: Callable[[float], float]) -> _core.Model:
        document = parse(gguf(recipe.name).read_bytes())
        (key,) = (key for key in document.keys if key.name == name.encode())
        code = {U32: "<I", F32: "<f"}[key.type]
        (value,) = struct.unpack(code, key.value)
        key.value = struct.pack(code, change(value))
        path = tmp_path / "changed.gguf"
        path.write_bytes(document.build())
        return _core.Model([str(path)], device="cpu", threads=1)

    return load


@SMALL
@pytest.mark.parametrize("change", [-1, 1])
def test_window(recipe: Recipe, expected_of: Callable, with_another: Callable, change: int) -> None:
    """An attention window one latent too short or too long."""
    wanted: Expected = expected_of("golden", recipe.name)
    model = with_another(
        recipe, "mimi.transformer.attention.sliding_window", lambda n: int(n) + change
    )
    sound = _core.MimiDecoder(model).decode(scenes.decode_codes(recipe))
    with pytest.raises(AssertionError, match="samples differ"):
        assert_samples_close(
            sound.reshape(-1, recipe.frame_size)[wanted.frames],
            wanted.samples,
            recipe.name,
            SAMPLES_TOLERANCE,
        )


@SMALL
@pytest.mark.parametrize(
    ("key", "factor"),
    [
        ("csm.backbone.rope.freq_base", 1.01),
        ("csm.backbone.attention.layer_norm_rms_epsilon", 1000),
        ("csm.depth.rope.freq_base", 1.1),
        ("csm.depth.attention.layer_norm_rms_epsilon", 1000),
    ],
)
def test_language_models(
    recipe: Recipe, expected_of: Callable, with_another: Callable, key: str, factor: float
) -> None:
    wanted: Expected = expected_of("golden", recipe.name)
    model = with_another(recipe, key, lambda value: value * factor)
    prompt, codes = scenes.context_prompt(recipe), scenes.forced_codes(recipe)
    with pytest.raises(AssertionError, match="logits differ"):
        assert_logits_close(
            engines.forced_logits(model, prompt, codes), wanted.forced["context"], recipe.name
        )
