"""Utterances and codec streams that are parked: saved, pushed aside, and gone on with elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from csm_ggml import _core
from reference import devices, engines, scenes
from reference.compare import STREAMING_TOLERANCE
from reference.recipes import PLAIN4, WIDE, Recipe

FRAMES = 14
SAMPLED = {"seed": 11, "temperature": 0.8, "top_k": 20, "depth_top_p": 0.9}

Load = Callable[..., _core.Model]


@pytest.fixture(params=devices.ALL)
def load(gguf: Callable[..., Path], request: pytest.FixtureRequest) -> Load:
    """A recipe's model on a device with nodes of our own, and on one as GPUs are."""

    def model(name: str, type: str = "f32") -> _core.Model:
        return _core.Model([str(gguf(name, type))], device=request.param, threads=1)

    return model


@pytest.mark.parametrize(
    ("recipe", "type"),
    [(PLAIN4, "f32"), (WIDE, "f32"), (WIDE, "q8_0")],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("parked_at", [0, 1, 6])
def test_a_parked_utterance_goes_on(load: Load, recipe: Recipe, type: str, parked_at: int) -> None:
    """In another slot, and in another engine, while others use the one that it had."""
    model, prompt = load(recipe.name, type), scenes.context_prompt(recipe)
    wanted = engines.speak_alone(model, prompt, FRAMES, **SAMPLED)

    engine = _core.Engine(model, slots=3)
    slot = engines.open_slot(engine, prompt, **SAMPLED)
    said = [engine.step([slot])[0][0] for _ in range(parked_at)]
    data = engine.save_slot(slot)
    assert isinstance(data, bytes)
    engine.close(slot)
    busy = [engines.open_slot(engine, scenes.text_prompt(recipe), seed=seed) for seed in (1, 2)]
    assert slot in busy
    engines.speak(engine, busy, 3)

    smaller = _core.Engine(model, context=len(prompt.text) + FRAMES)
    for place, others in ((engine, busy), (smaller, [])):
        again = place.open(seed=5)
        place.load_slot(again, data)
        assert place.position(again) == len(prompt.text) + parked_at
        rest = [place.step([*others, again])[0][-1] for _ in range(FRAMES - parked_at)]
        np.testing.assert_array_equal(np.stack([*said, *rest]), wanted)


def test_parked_within_a_prompt(load: Load) -> None:
    """Between two pieces of a prompt, the pending row of which may be text or audio."""
    model, prompt = load("plain4"), scenes.context_prompt(PLAIN4)
    wanted = engines.speak_alone(model, prompt, FRAMES, **SAMPLED)
    engine = _core.Engine(model, slots=2)
    for rows in range(0, len(prompt.text), 5):
        first = engine.open(**SAMPLED)
        engine.append(first, prompt.text[:rows], prompt.audio[:rows])
        data = engine.save_slot(first)
        second = engine.open()
        engine.load_slot(second, data)
        assert engine.save_slot(second) == data
        engine.append(second, prompt.text[rows:], prompt.audio[rows:])
        np.testing.assert_array_equal(engines.speak(engine, [second], FRAMES)[0], wanted)
        engine.close(first)
        engine.close(second)


# 3 frames are less than the window of the codec's transformer, 40 many times as much.
@pytest.mark.parametrize("parked_at", [0, 3, 40])
def test_a_parked_stream_goes_on(load: Load, parked_at: int) -> None:
    model, frames = load("plain4"), parked_at + 9
    codes, others = (
        np.stack([scenes.codes(PLAIN4, f"{name} {i}", frames) for i in range(n)])
        for name, n in (("parked", 1), ("other", 2))
    )
    whole = _core.MimiDecoder(model).decode(codes[0])
    steady = _core.MimiDecoder(model)
    pieces = [codes[0, :parked_at], *codes[0, parked_at:, None]]
    wanted = np.concatenate([steady.decode(piece) for piece in pieces])
    # devices that choose a kernel by the number of columns round pieces in another way
    atol = 0 if devices.rounds_alike(model.device) else STREAMING_TOLERANCE
    np.testing.assert_allclose(wanted, whole, rtol=0, atol=atol)

    decoder = _core.MimiDecoder(model, streams=3)
    said = decoder.decode(codes[:, :parked_at], [1])[0]
    data = decoder.save(1)
    assert isinstance(data, bytes)
    decoder.reset(1)
    decoder.decode(others, [1, 0])
    for place in (decoder, _core.MimiDecoder(model)):
        stream = place.streams - 1
        place.decode(others[:1], [stream])
        place.load(stream, data)
        assert place.save(stream) == data
        rest = np.hstack(
            [place.decode(codes[:, f : f + 1], [stream])[0] for f in range(parked_at, frames)]
        )
        np.testing.assert_array_equal(np.hstack([said, rest]), wanted)


def damaged(data: bytes) -> list[bytes]:
    """Bytes that are not what was saved."""
    rng = np.random.default_rng(7)
    out = [
        b"",
        data[:1],
        data[:10],
        data[:-1],
        data + b"\0",
        data * 2,
        bytes(len(data)),
        data[::-1],
    ]
    out += [data[: rng.integers(len(data))] for _ in range(20)]
    for at in [*range(200), *rng.integers(0, len(data), 200)]:
        flipped = bytearray(data)
        flipped[at % len(data)] ^= 1 << int(rng.integers(8))
        out.append(bytes(flipped))
    return out


def test_damaged_slots_are_refused(load: Load) -> None:
    model, prompt = load("plain4"), scenes.context_prompt(PLAIN4)
    engine = _core.Engine(model, slots=2)
    slot = engines.open_slot(engine, prompt, **SAMPLED)
    engines.speak(engine, [slot], 2)
    data, target = engine.save_slot(slot), engine.open(seed=3)
    before = engine.save_slot(target)
    for other in [*damaged(data), engine.save_prefix(slot)]:
        with pytest.raises(ValueError, match="saved slot"):
            engine.load_slot(target, other)
    assert engine.save_slot(target) == before
    engine.close(target)
    with pytest.raises(ValueError, match="slot 1 is not open"):
        engine.load_slot(target, data)
    short = _core.Engine(model, context=len(prompt.text))
    with pytest.raises(ValueError, match=rf"{len(prompt.text) + 1} rows.*{len(prompt.text)}"):
        short.load_slot(short.open(), data)
    foreign = _core.Engine(load("grouped8"))
    with pytest.raises(ValueError, match="another model"):
        foreign.load_slot(foreign.open(), data)


def test_damaged_streams_are_refused(load: Load) -> None:
    model = load("plain4")
    decoder = _core.MimiDecoder(model, streams=2)
    codes = scenes.codes(PLAIN4, "parked", 5)
    decoder.decode(codes[None], [1])
    data = decoder.save(1)
    for other in damaged(data):
        with pytest.raises(ValueError, match="saved stream"):
            decoder.load(1, other)
    assert decoder.save(1) == data
    for call in (lambda: decoder.save(2), lambda: decoder.load(-1, data)):
        with pytest.raises(ValueError, match="no stream"):
            call()
    foreign = _core.MimiDecoder(load("grouped8"))
    with pytest.raises(ValueError, match="another model"):
        foreign.load(0, data)


def resealed(data: bytes) -> bytes:
    """The data with a checksum that fits: what someone makes who means harm."""
    body = data[:-8]
    whole = len(body) // 8 * 8
    sum = 0x9E3779B97F4A7C15 ^ len(body)
    for word in [*np.frombuffer(body[:whole], "<u8").tolist(), *body[whole:]]:
        sum = (sum ^ word) * 0xFF51AFD7ED558CCD & (2**64 - 1)
        sum ^= sum >> 32
    return body + sum.to_bytes(8, "little")


def test_malicious_slots_and_streams_are_refused_or_harmless(load: Load) -> None:
    """Every number of the headers is checked, not only the checksum."""
    model = load("plain4")
    engine, decoder = _core.Engine(model, context=64), _core.MimiDecoder(model)
    slot = engines.open_slot(engine, scenes.text_prompt(PLAIN4))
    engines.speak(engine, [slot], 2)
    decoder.decode(scenes.codes(PLAIN4, "parked", 5))
    saved_slot, saved_stream = engine.save_slot(slot), decoder.save(0)
    assert resealed(saved_slot) == saved_slot
    rng = np.random.default_rng(1)
    refused = 0
    for data, load_it, use in (
        (saved_slot, lambda d: engine.load_slot(slot, d), lambda: engine.step([slot])),
        (
            saved_stream,
            lambda d: decoder.load(0, d),
            lambda: decoder.decode(np.zeros((1, 4), np.int32)),
        ),
    ):
        for at in range(8, 104):
            for value in (0x00, 0x80, int(rng.integers(256))):
                changed = bytearray(data)
                changed[at] = value
                try:
                    load_it(resealed(bytes(changed)))
                except ValueError:
                    refused += 1
                    continue
                use()
    assert refused > 100
    for data, load_it in (
        (saved_slot, lambda d: engine.load_slot(slot, d)),
        (saved_stream, lambda d: decoder.load(0, d)),
    ):
        spoiled = data[:-12] + np.float32(np.nan).tobytes() + data[-8:]
        with pytest.raises(ValueError, match="finite"):
            load_it(resealed(spoiled))
