"""Rows: BOS text EOS, audio, a row of zeros after each audio, the text to be spoken last."""

import numpy as np
import pytest
from csm_ggml import Audio, Segment, Stats
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder
from fakes import CODEBOOKS, LetterTokenizer


@pytest.fixture
def prompts() -> PromptBuilder:
    return PromptBuilder(LetterTokenizer(), codebooks=CODEBOOKS, audio_vocab_size=51)  # type: ignore[arg-type]


def test_text_only(prompts: PromptBuilder) -> None:
    rows = prompts.prompt([], Turn(0, "Hi"))
    assert rows.text.tolist() == [1000, *map(ord, "[0]Hi"), 1001]
    assert rows.text.dtype == rows.audio.dtype == np.int32
    assert rows.audio.tolist() == [[0, 0]] * 7
    assert len(rows) == 7


def test_context_comes_first_and_each_audio_ends_with_zeros(prompts: PromptBuilder) -> None:
    codes = np.array([[1, 2], [3, 4]], np.int32)
    silent = np.zeros((0, CODEBOOKS), np.int32)
    rows = prompts.prompt(
        [EncodedSegment(Turn(1, "a"), codes), EncodedSegment(Turn(0, "b"), silent)], Turn(1, "c")
    )
    text = [1000, 91, 49, 93, 97, 1001]
    assert rows.text.tolist() == [
        *text,
        *[-1, -1, -1],
        *[1000, 91, 48, 93, 98, 1001],
        -1,
        *[1000, 91, 49, 93, 99, 1001],
    ]
    assert rows.audio[6:9].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert rows.audio[15].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((3, 3), np.int32), r"shape \(frames, 2\)"),
        (np.zeros(4, np.int32), r"shape \(frames, 2\)"),
        (np.zeros((3, 2), np.float32), "whole numbers"),
        ([[0, 51]], r"must be in 0\.\.50, got 0\.\.51"),
        ([[-1, 0]], r"must be in 0\.\.50, got -1\.\.0"),
    ],
)
def test_codes_are_checked(prompts: PromptBuilder, codes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.check_codes(codes, what="codes")  # type: ignore[arg-type]


def test_segment_needs_words_and_sound() -> None:
    codes = np.ones((1, CODEBOOKS), np.int32)
    assert Segment(1, " Hello\nthere ", codes=codes).turn() == Turn(1, "Hello there")
    assert Segment(1, "[1]Hello", codes=codes).turn() == Turn(1, "Hello")
    with pytest.raises(ValueError, match="neither"):
        Segment(0, "Hello")
    with pytest.raises(ValueError, match="nothing to say"):
        Segment(0, " ", codes=codes)
    with pytest.raises(ValueError, match=r"tags of \[1\]"):
        Segment(0, "[1]Hello", codes=codes)
    with pytest.raises(ValueError, match=r"tags of \[0\], \[1\]"):
        Segment(0, "Hello. [1]Hi", codes=codes)
    with pytest.raises(ValueError, match=r"0\.\.9999"):
        Segment(-1, "Hello", codes=codes)


def test_segment_takes_speech_that_was_made() -> None:
    stats = Stats(1, 2, 0.1, 1, 0.1, 0.1, 0.1, 0.1, 0.1)
    audio = Audio(np.zeros(4, np.float32), 24000, np.ones((1, 2), np.int32), "eos", 1, (), stats)
    assert Segment(0, "Hello", audio).audio is audio
