"""csm-1b itself, if it is at hand: the greedy frames that transformers' tests expect."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from csm_ggml import CSM, _core
from reference import engines
from reference.compare import assert_codes_equal
from reference.expected import GOLDEN
from reference.scenes import text_rows

MODEL = os.environ.get("CSM_GGML_TEST_MODEL")


@pytest.mark.model
@pytest.mark.skipif(not MODEL, reason="CSM_GGML_TEST_MODEL names no weights of csm-1b")
def test_greedy_frames() -> None:
    golden = json.loads((GOLDEN / "hf_greedy_text_only.json").read_text())
    assert MODEL is not None
    csm = CSM.from_pretrained(MODEL)
    ids = np.array(golden["prompt_ids"], np.int32)
    text = golden["prompt"].removeprefix("<|begin_of_text|>").removesuffix("<|end_of_text|>")
    assert csm.tokenize(text) == golden["prompt_ids"]

    frames = np.array(golden["frames"], np.int32)
    engine = _core.Engine(csm._model)
    slot = engines.open_slot(engine, text_rows(ids, csm.codebooks), **engines.GREEDY)
    assert_codes_equal(engines.speak(engine, [slot], len(frames))[0], frames, MODEL)

    spoken = csm.generate_codes(
        text, temperature=0, depth_temperature=0, max_frames=len(frames) + 5
    )
    ends = ~frames.any(axis=1)
    assert_codes_equal(spoken, frames[: int(np.argmax(ends))] if ends.any() else frames, MODEL)
