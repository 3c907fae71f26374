"""The Python face against transformers' whole path: processor, encoder, model, greedy generation.

A context of several recordings, whose lengths are no whole frames, with texts of several speakers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from csm_ggml import CSM, Segment
from reference import scenes
from reference.compare import assert_codes_equal
from reference.recipes import AUDIO, Recipe

if TYPE_CHECKING:
    from reference.runner import Reference

FRAMES = 8
SAID = [
    (0, "How are you?"),
    (1, "Fine, thanks. And what about 1,234 of naïve yöu?"),
    (0, "Well, ça va."),
]


@pytest.mark.parity
def test_context_of_recordings(
    recipe: Recipe,
    checkpoint: Callable[[str], Path],
    gguf: Callable[..., Path],
    reference: Callable[[str], Reference],
) -> None:
    from transformers import CsmProcessor, EncodecFeatureExtractor, PreTrainedTokenizerFast

    frame = recipe.frame_size
    lengths = [4 * frame + 1, 3 * frame - 1]
    sounds = [scenes.waveform(recipe, length) for length in lengths]
    context = [
        Segment(speaker, text, sound) for (speaker, text), sound in zip(SAID, sounds, strict=False)
    ]
    csm = CSM.from_pretrained(gguf(recipe.name), device="cpu", threads=1)
    speaker, text = SAID[-1]
    ours = csm.generate_codes(
        f"[{speaker}]{text}", context=context, temperature=0, max_frames=FRAMES
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint(recipe.name) / "tokenizer.json"), pad_token="<|AUDIO|>"
    )
    tokenizer.audio_token, tokenizer.audio_token_id = "<|AUDIO|>", AUDIO
    processor = CsmProcessor(
        EncodecFeatureExtractor(feature_size=1, sampling_rate=csm.sample_rate), tokenizer
    )
    model = reference(recipe.name).model
    script = "".join(
        f"<|begin_of_text|>[{s}]{t}<|end_of_text|>" + ("<|AUDIO|><|audio_eos|>" if n < 2 else "")
        for n, (s, t) in enumerate(SAID)
    )
    inputs = processor(
        text=script,
        audio=sounds,
        sampling_rate=csm.sample_rate,
        return_tensors="pt",
        add_special_tokens=False,
        # As one convolution: a frame of samples, the last one padded, is a frame of codes.
        encoded_length_kwargs={
            "kernel_sizes": [frame],
            "strides": [frame],
            "dilations": [1],
            "use_causal_conv": True,
        },
    )
    inputs["attention_mask"][:] = 1
    theirs = model.generate(
        **inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=FRAMES
    )
    assert_codes_equal(ours, np.asarray(theirs[0], np.int32), recipe.name)
