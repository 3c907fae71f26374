"""Pieces of a text become one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from csm_ggml.csm import CSM
from csm_ggml.errors import NoSpeechError
from csm_ggml.server.flow import PAUSE_SECONDS, Flow, Manner, SentenceReader, Sound, pieces_of
from csm_ggml.voices.voice import Voice
from fakes import say_nothing_of
from server_harness import STORY, load


async def texts(*pieces: str) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece


def flowed(csm: CSM, manner: Manner, *pieces: str) -> list[Sound]:
    async def run() -> list[Sound]:
        return [part async for part in Flow(csm, manner).sound(texts(*pieces))]

    return asyncio.run(run())


def joined(parts: list[Sound], piece: int) -> Any:
    return np.concatenate([part.samples for part in parts if part.piece == piece])


def test_one_piece_is_what_generate_says() -> None:
    with load() as csm:
        parts = flowed(csm, Manner(seed=5), "Hello there.")
        assert np.array_equal(joined(parts, 0), csm.generate("Hello there.", seed=5).samples)


def test_later_pieces_have_the_voice_of_the_first_and_pauses_before_them() -> None:
    with load() as csm:
        parts = flowed(csm, Manner(seed=5), "Hello there.", "How are you today?")
        first = csm.generate("Hello there.", seed=5)
        voice = Voice(0, "Hello there.", first.codes, csm.sample_rate, csm.frame_size)
        second = csm.generate("How are you today?", seed=6, voice=voice).samples
    assert np.array_equal(joined(parts, 0), first.samples)
    rest = joined(parts, 1)
    # Its end is untouched; its beginning is a pause instead of its own silence.
    assert np.array_equal(rest[-20_000:], second[-20_000:])
    [loud] = np.nonzero(np.abs(rest) > 0.02)
    [quiet] = np.nonzero(np.abs(first.samples) > 0.02)
    pause = (loud[0] + len(first.samples) - quiet[-1]) / 24_000
    assert PAUSE_SECONDS - 0.1 < pause < PAUSE_SECONDS + 0.3


def test_the_first_piece_that_goes_well_is_the_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = "Hello there.", "How are you today?", "I am well."
    with load() as csm:
        say_nothing_of(monkeypatch, "Hello")
        parts = flowed(csm, Manner(seed=5), *pieces)
        first = csm.generate(pieces[1], seed=6)
        voice = Voice(0, pieces[1], first.codes, csm.sample_rate, csm.frame_size)
        second = csm.generate(pieces[2], seed=7, voice=voice).samples
    assert [parts[0].finish_reason, len(parts[0].samples)] == ["empty", 0]
    # No pause before the first sound.
    assert parts[1].piece == 1 and np.abs(parts[1].samples).max() > 0
    assert np.array_equal(joined(parts, 1)[-20_000:], first.samples[-20_000:])
    assert np.array_equal(joined(parts, 2)[-10_000:], second[-10_000:])


def test_nothing_said_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    say_nothing_of(monkeypatch, "")
    with load() as csm, pytest.raises(NoSpeechError, match="nothing to say to this text"):
        flowed(csm, Manner(seed=5), "Hello there.", "How are you?")


def test_closing_the_stream_cancels_all_that_was_asked_for() -> None:
    async def run(csm: CSM) -> None:
        sound = Flow(csm, Manner(seed=5)).sound(texts("Hello there.", "How are you?", "Fine."))
        await anext(sound)
        await sound.aclose()
        for _ in range(200):
            stats = csm.scheduler.stats()
            if not stats.queued + stats.prefilling + stats.speaking:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("jobs are left")

    with load() as csm:
        asyncio.run(run(csm))


def test_long_texts_are_cut_into_whole_sentences() -> None:
    async def run(text: str, *, whole: bool) -> list[str]:
        return [piece async for piece in pieces_of(text, whole=whole)]

    long = " ".join([STORY] * 10)
    pieces = asyncio.run(run(long, whole=False))
    assert " ".join(pieces) == long
    assert pieces[0] == "Hello there." and all(len(piece) >= 60 for piece in pieces[1:-1])
    assert asyncio.run(run(long, whole=True)) == [long]
    assert asyncio.run(run(STORY, whole=False)) == [STORY]


def test_sentences_are_cut_as_the_model_file_says() -> None:
    text = "and so on, " * 40 + "to the end. " + "This is of some length, I say. " * 9
    for config, most in ((None, 200), ({"csm.generation.piece_characters": 60}, 60)):
        reader = SentenceReader(config)
        pieces = [*reader.add(text), *reader.finish()]
        assert most - 12 < max(map(len, pieces)) <= most
        assert " ".join(pieces) == text.strip()


@pytest.mark.parametrize("text", ["", "...", "* * *", "\n\n"])
def test_nothing_to_say_is_no_piece(text: str) -> None:
    reader = SentenceReader()
    assert [*reader.add(text), *reader.finish()] == []
