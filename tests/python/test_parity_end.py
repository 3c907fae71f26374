"""When an utterance ends: all codes of a frame are zero, and not when only some are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM
from csm_ggml.convert import convert
from reference.checkpoint import Tensors, write_checkpoint
from reference.recipes import PLAIN4

GREEDY: dict[str, Any] = {"temperature": 0.0, "depth_temperature": 0.0}


def silence_all(tensors: Tensors) -> None:
    """Equal logits everywhere: the lowest code, zero, is the likeliest."""
    silence_first(tensors)
    tensors["depth_decoder.codebooks_head.weight"][:] = 0


def silence_first(tensors: Tensors) -> None:
    """Code zero in the first codebook, always; any code in the others."""
    tensors["lm_head.weight"][:] = 0


def silence_all_but_last(tensors: Tensors) -> None:
    """Code zero in all codebooks but the last, which never says it."""
    silence_all(tensors)
    # of a logit and its negative one is above zero
    page = tensors["depth_decoder.codebooks_head.weight"][-1]
    page[:, 1] = np.float32(0.5)
    page[:, 2] = np.float32(-0.5)


def silence_depth(tensors: Tensors) -> None:
    """Code zero in all codebooks but the first, which never says it."""
    tensors["lm_head.weight"][0] = 0
    tensors["depth_decoder.codebooks_head.weight"][:] = 0


def load(folder: Path, change: Any) -> CSM:
    out = folder / "model.gguf"
    convert(write_checkpoint(PLAIN4, folder / "checkpoint", change=change), out, type="f32")
    return CSM.from_pretrained(out, device="cpu", threads=1)


def test_first_frame_ends_it(tmp_path: Path) -> None:
    """Nothing was said: no samples, no codes, and a reason."""
    csm = load(tmp_path, silence_all)
    audio = csm.generate("[0]Hello.", max_frames=20, **GREEDY)
    assert audio.samples.shape == (0,) and audio.samples.dtype == np.float32
    assert audio.codes.shape == (0, PLAIN4.codebooks)
    assert audio.finish_reason == "empty"
    assert csm.generate_codes("[0]Hello.", max_frames=20, **GREEDY).shape == (0, PLAIN4.codebooks)


@pytest.mark.parametrize("change", [silence_first, silence_all_but_last, silence_depth])
def test_some_zeros_do_not_end_it(tmp_path: Path, change: Any) -> None:
    """Not a zero in the first codebook, nor zeros in all but the first or the last."""
    csm = load(tmp_path, change)
    audio = csm.generate("[0]Hello.", max_frames=20, **GREEDY)
    assert audio.codes.shape == (20, PLAIN4.codebooks)
    assert audio.samples.shape == (20 * PLAIN4.frame_size,)
    assert audio.finish_reason == "max_frames"
    zeros = (audio.codes == 0).all(axis=0)
    wanted = {
        silence_first: [True, False, False, False],
        silence_all_but_last: [True, True, True, False],
        silence_depth: [False, True, True, True],
    }
    assert list(zeros) == wanted[change]


def test_the_ending_frame_is_dropped(tmp_path: Path) -> None:
    """Codes 0 and 1 are drawn evenly: the frame of zeros comes by chance, and is no speech."""
    csm = load(tmp_path, silence_all)
    settings = {"temperature": 1.0, "depth_temperature": 1.0, "top_k": 2, "depth_top_k": 2}
    settings["max_characters_per_second"] = 0  # no length is implausible
    lengths = set()
    for seed in range(20):
        audio = csm.generate("[0]Hello.", max_frames=200, seed=seed, **settings)
        assert audio.codes.any(axis=1).all()
        assert len(audio.samples) == len(audio.codes) * PLAIN4.frame_size
        if audio.finish_reason == "eos":
            lengths.add(len(audio.codes))
    assert len(lengths) > 5
