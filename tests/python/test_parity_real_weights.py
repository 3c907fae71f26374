"""csm-1b itself, if it is at hand: the greedy frames that transformers' tests expect."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import CSM, _core
from csm_ggml.convert import make_random, quantize_file
from reference import engines
from reference.compare import GREEDY_DOUBT, assert_codes_equal, assert_greedy
from reference.expected import GOLDEN
from reference.scenes import text_rows

MODEL = os.environ.get("CSM_GGML_TEST_MODEL")


@pytest.mark.model
@pytest.mark.skipif(not MODEL, reason="CSM_GGML_TEST_MODEL names no weights of csm-1b")
def test_greedy_frames() -> None:
    golden = json.loads((GOLDEN / "hf_greedy_text_only.json").read_text())
    assert MODEL is not None
    csm = CSM.from_pretrained(MODEL)
    type = type_of(csm.model.files)
    assert type in GREEDY_DOUBT, f"{MODEL} holds {type}: the frames ask for weights in F32 or F16"
    ids = np.array(golden["prompt_ids"], np.int32)
    text = golden["prompt"].removeprefix("<|begin_of_text|>").removesuffix("<|end_of_text|>")
    assert csm.tokenize(text) == golden["prompt_ids"]

    frames = np.array(golden["frames"], np.int32)
    logits = engines.forced_logits(csm.model.core, text_rows(ids, csm.codebooks), frames)
    if assert_greedy(logits, frames, GREEDY_DOUBT[type], MODEL):
        return  # another code at a near tie is followed by other speech
    spoken = csm.generate_codes(
        text, temperature=0, depth_temperature=0, max_frames=len(frames) + 5
    )
    ends = ~frames.any(axis=1)
    assert_codes_equal(spoken, frames[: int(np.argmax(ends))] if ends.any() else frames, MODEL)


def type_of(files: tuple[Path, ...]) -> str:
    """The coarsest type that a language model's matrices have."""
    types = {
        tensor["type"]
        for file in files
        for tensor in _core.gguf_info(str(file))["tensors"]
        if tensor["name"].endswith("_q.weight")
    }
    return str(
        next(
            (type for type in types if type not in GREEDY_DOUBT),
            max(types - {"f32"}, default="f32"),
        )
    )


def test_the_doubt_is_of_weights_not_of_faults(tmp_path: Path) -> None:
    """What the test above takes and what it does not, on random weights."""
    exact, half = tmp_path / "f32.gguf", tmp_path / "f16.gguf"
    make_random(exact, progress=False)
    quantize_file(exact, half, "f16", progress=False)
    assert (type_of((exact,)), type_of((half,))) == ("f32", "f16")
    prompt = text_rows(
        np.arange(9, dtype=np.int32), _core.Model([str(exact)]).config["csm.codebooks"]
    )
    codes = engines.speak_alone(_core.Model([str(exact)]), prompt, 48, **engines.GREEDY)
    for file, type in ((exact, "f32"), (half, "f16")):
        logits = engines.forced_logits(_core.Model([str(file)]), prompt, codes)
        flipped = assert_greedy(logits, codes, GREEDY_DOUBT[type], type)
        assert flipped == 0 or type == "f16"
    for frame, codebook in ((0, 0), (20, 7), (47, codes.shape[1] - 1)):
        wrong = codes.copy()
        wrong[frame, codebook] = logits[frame, codebook].argsort()[-40]
        with pytest.raises(
            AssertionError, match=f"frame {frame}, codebook {codebook}: .*behind by"
        ):
            assert_greedy(logits, wrong, GREEDY_DOUBT["f16"], "wrong")
