"""Voices: made, saved, loaded, damaged, of another model; their prefix is computed once."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM, ContextLengthError, Segment, Voice, VoiceFileError, _core
from csm_ggml.convert import make_random, quantize_file
from csm_ggml.loading.codec_probe import probe, same_codec
from csm_ggml.speech.prefix import KEEP, PrefixCache
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment
from reference import devices

GREEDY: dict[str, Any] = {"temperature": 0, "max_frames": 8}
DRAWN: dict[str, Any] = {"seed": 3, "max_frames": 8}


@pytest.fixture(scope="module")
def other(path: Path) -> CSM:
    out = path.with_name("other.gguf")
    make_random(out, preset="tiny", type="f32", seed=1, progress=False)
    return CSM.from_pretrained(out, device=devices.SPEECH, threads=1)


@pytest.fixture
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device=devices.SPEECH, threads=1)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 10 * 1920 + 5).astype(np.float32)


@pytest.fixture
def voice(csm: CSM, sound: np.ndarray) -> Voice:
    return csm.create_voice(sound, "What I say in it.", speaker=3)


def segments(*voices: Voice) -> list[Segment]:
    return [Segment(v.speaker, v.transcript, codes=v.codes) for v in voices]


def test_create(csm: CSM, sound: np.ndarray, tmp_path: Path) -> None:
    voice = csm.create_voice(sound, "[3] What\nI say in it.", 3)
    assert (voice.speaker, voice.transcript) == (3, "What I say in it.")
    assert np.array_equal(voice.codes, csm.encode(sound))
    assert voice.duration == pytest.approx(11 * 0.08)
    assert repr(voice) == "Voice(speaker=3, 0.88 s, 11 frames of 8 codes, 'What I say in it.')"
    soundfile.write(tmp_path / "me.wav", sound, 24000, subtype="FLOAT")
    for audio in (tmp_path / "me.wav", (sound, 24000)):
        assert np.array_equal(csm.create_voice(audio, "What I say.").codes, voice.codes)
    spoken = csm.generate("Hello.", **DRAWN)
    assert np.array_equal(csm.create_voice(spoken, "Hello.").codes, spoken.codes)
    with pytest.raises(ValueError, match="text is empty"):
        csm.create_voice(sound, " ")
    with pytest.raises(ValueError, match="one turn of speaker 0"):
        csm.create_voice(sound, "[1]Hi.")
    with pytest.raises(ContextLengthError, match="the model's context has 512"):
        csm.create_voice(np.tile(sound, 60)[: 520 * 1920], "Hi.")


def test_a_voice_is_context(csm: CSM, voice: Voice) -> None:
    wanted = csm.generate("[3]Hello.", context=segments(voice), **DRAWN)
    assert np.array_equal(csm.generate("Hello.", voice=voice, **DRAWN).codes, wanted.codes)
    plain = csm.generate_codes("[3]Hello.", **DRAWN)
    assert not np.array_equal(plain, wanted.codes)
    more = [Segment(0, "More.", codes=voice.codes[:4])]
    wanted_codes = csm.generate_codes("[3]Hi.", context=[*segments(voice), *more], **DRAWN)
    again = csm.generate_codes("Hi.", voice=voice, context=more, **DRAWN)
    assert np.array_equal(again, wanted_codes)


def test_several_voices(csm: CSM, voice: Voice) -> None:
    second = replace(voice.with_speaker(1), codes=voice.codes[::-1].copy())
    wanted = csm.generate_codes("[3]A.[1]B.", context=segments(voice, second), **DRAWN)
    for _ in range(2):
        codes = csm.generate_codes("[3]A.[1]B.", voice=[voice, second], **DRAWN)
        assert np.array_equal(codes, wanted)
    with pytest.raises(ValueError, match=r"speaker of its own, got voices of speakers \[3, 3\]"):
        csm.generate("Hi.", voice=[voice, voice])
    with pytest.raises(TypeError, match="voice must be a Voice, its file, or a list"):
        csm.generate("Hi.", voice=3)  # type: ignore[arg-type]


def test_a_voice_that_nobody_speaks_with_is_told(csm: CSM, voice: Voice, recwarn: Any) -> None:
    unheard = "the voice of speaker 3 is not heard: the text is said by speakers 0, 1"
    for form in (None, "chain"):
        with pytest.warns(UserWarning, match=unheard):
            csm.generate("[0]Hello there. [1]Hi there.", voice=voice, long_form=form, **DRAWN)
    with pytest.warns(UserWarning, match="the voice of speaker 5 .* is said by speaker 3"):
        csm.generate("Hi.", voice=[voice, voice.with_speaker(5)], **DRAWN)
    with pytest.raises(ValueError, match=r"none of the voices, of speakers 3, 5, .*: speaker 1;"):
        csm.generate("[1]Hi.", voice=[voice, voice.with_speaker(5)], **DRAWN)
    # All texts of a batch are looked at together.
    both = [voice, voice.with_speaker(5)]
    recwarn.clear()
    csm.generate_batch(["[3]Hi.", "[5]Ho."], voice=both, **DRAWN)
    csm.generate("[3]Hi.[0]Ho.", voice=voice, **DRAWN)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="the voice of speaker 5 is not heard"):
        csm.generate_batch(["[3]Hi.", "[3]Ho."], voice=both, **DRAWN)


def test_a_list_of_voices_means_the_same_in_a_batch(csm: CSM, voice: Voice, tmp_path: Path) -> None:
    second = replace(voice.with_speaker(1), codes=voice.codes[::-1].copy())
    other = second.with_speaker(3)
    voice.save(tmp_path / "x.voice")
    text = "[3]A.[1]B."
    seeds: dict[str, Any] = {**DRAWN, "seed": [3, 3]}
    wanted = csm.generate_codes(text, voice=[voice, second], **DRAWN)
    for voices in ([voice, second], (str(tmp_path / "x.voice"), second)):
        for audio in csm.generate_batch([text] * 2, voice=voices, **seeds):
            assert np.array_equal(audio.codes, wanted)
    # A value for each text is what `generate` takes.
    each: list[Any] = [[voice, second], [other]]
    got = csm.generate_batch([text, "Hi."], voice=each, **seeds)
    assert np.array_equal(got[0].codes, wanted)
    assert np.array_equal(got[1].codes, csm.generate_codes("Hi.", voice=other, **DRAWN))
    with pytest.raises(ValueError, match=r"text 0: each voice .*voice=\[\[a\], \[b\]\]"):
        csm.generate_batch(["A.", "B."], voice=[voice, other], **seeds)
    for mixed in ([voice, None], [[voice], other]):
        with pytest.raises(TypeError, match="voice must be a list for all texts, or have a list"):
            csm.generate_batch(["A.", "B."], voice=mixed, **seeds)
    with pytest.raises(ValueError, match="voice has 1 values, expected one for each of 2 texts"):
        csm.generate_batch(["A.", "B."], voice=[[voice]], **seeds)


def test_the_prefix_is_evaluated_once(csm: CSM, voice: Voice, tmp_path: Path) -> None:
    text = len(csm.tokenize("Hello.", speaker=3))
    rows = len(csm.tokenize(voice.transcript, speaker=3)) + 11 + 1
    first = csm.generate("Hello.", voice=voice, **DRAWN)
    assert first.stats.prefill_rows == rows + text
    voice.save(tmp_path / "x.voice")
    # The row that ends the voice goes with what follows; a voice that sounds the same is the same.
    for same in (voice, Voice.load(tmp_path / "x.voice"), tmp_path / "x.voice"):
        again = csm.generate("Hello.", voice=same, **DRAWN)
        assert again.stats.prefill_rows == 1 + text
        assert np.array_equal(again.codes, first.codes)
        assert np.array_equal(again.samples, first.samples)
    chunks = list(csm.stream("Hello.", voice=voice, **DRAWN))
    assert chunks[-1].stats.prefill_rows == 1 + text
    batch = csm.generate_batch(["Hello.", "Hi.", "[3]Hello."], voice=voice, batch_size=2, **DRAWN)
    assert all(a.stats.prefill_rows < rows for a in batch)
    assert np.array_equal(batch[0].codes, first.codes)
    own = csm.generate_batch(["Hello."] * 2, voice=[[voice], None], **{**DRAWN, "seed": [3, 3]})
    assert np.array_equal(own[0].codes, first.codes)
    assert np.array_equal(own[1].codes, csm.generate_codes("Hello.", **DRAWN))


def test_forgetting_keeps_the_voice(csm: CSM, voice: Voice) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_frames": 120}
    text = "[3]One.[3]Two.[3]Three.[3]Four."
    wanted = csm.generate(text, context=segments(voice), **options)
    for _ in range(2):
        assert np.array_equal(csm.generate(text, voice=voice, **options).codes, wanted.codes)


def test_a_file_with_its_prefix(csm: CSM, path: Path, sound: np.ndarray, tmp_path: Path) -> None:
    voice = csm.create_voice(sound, "What I say.", 3, prefix=True)
    voice.save(tmp_path / "x.voice")
    fresh = CSM.from_pretrained(path, device=devices.SPEECH, threads=1)
    loaded = Voice.load(tmp_path / "x.voice")
    assert "prefix of 'tiny.gguf'" in repr(loaded)
    audio = fresh.generate("Hi.", voice=loaded, **GREEDY)
    assert audio.stats.prefill_rows == 1 + len(csm.tokenize("Hi.", speaker=3))
    wanted = csm.generate_codes("[3]Hi.", context=segments(voice), **GREEDY)
    assert np.array_equal(audio.codes, wanted)
    voice.without_prefix().save(tmp_path / "small.voice")
    assert (tmp_path / "small.voice").stat().st_size < 1000 < (tmp_path / "x.voice").stat().st_size


def test_a_prefix_of_another_model_is_refused(csm: CSM, other: CSM, sound: np.ndarray) -> None:
    voice = csm.create_voice(sound, "What I say.", prefix=True)
    message = rf"made with the model tiny\.gguf \(fingerprint {csm.fingerprint}\), but this is "
    with pytest.raises(ValueError, match=message + rf"other\.gguf .* {other.fingerprint}\)"):
        other.generate("Hi.", voice=voice)
    plain = voice.without_prefix().without_codec()
    codes = other.generate_codes("Hi.", voice=plain, **GREEDY)
    assert np.array_equal(codes, other.generate_codes("Hi.", context=segments(voice), **GREEDY))


def test_a_voice_of_another_codec_is_refused(
    csm: CSM, other: CSM, voice: Voice, path: Path, tmp_path: Path
) -> None:
    """Its codes would be other sounds. The same codec in other number formats is the same."""
    voice.save(tmp_path / "x.voice")
    for same in (voice, Voice.load(tmp_path / "x.voice"), tmp_path / "x.voice"):
        csm.generate("Hi.", voice=same, **GREEDY)
        with pytest.raises(
            ValueError, match=r"speaker 3 was made with another codec .* other\.gguf"
        ):
            other.generate("Hi.", voice=same)
    with pytest.raises(ValueError, match="another codec"):
        other.conversation(voice=voice)
    slower = replace(voice, sample_rate=16000, codec=None)
    with pytest.raises(ValueError, match=r"\(1920 samples a frame, 16000 Hz\) than .* 24000 Hz\)"):
        csm.generate("Hi.", voice=slower)
    quantized = quantize_file(path, tmp_path / "q.gguf", "q8_0", codec_type="f16", progress=False)
    again = CSM.from_pretrained(quantized.path, device=devices.SPEECH, threads=1)
    assert again.fingerprint != csm.fingerprint
    again.generate("Hi.", voice=voice, **GREEDY)
    csm.generate("Hi.", voice=again.create_voice(csm.decode(voice.codes), "Hi."), **GREEDY)


def test_probes() -> None:
    random = np.random.default_rng(0)
    one, other = (tuple(random.standard_normal(32)) for _ in range(2))
    near = tuple(value + 0.03 for value in one)
    assert same_codec(one, one) and same_codec(one, near)
    assert not same_codec(one, other)
    assert not same_codec(one, one[:-1])
    assert not same_codec(one, (0.0,) * 32) and same_codec((0.0,) * 32, (0.0,) * 32)
    assert probe(lambda codes: np.zeros(10, np.float32), 8, 128) == (0.0,) * 32


def test_a_voice_that_does_not_tell_its_codec(csm: CSM, other: CSM, voice: Voice) -> None:
    """Files of before, and codes from elsewhere."""
    plain = Voice.from_bytes(voice.without_codec().to_bytes())
    assert plain.codec is None
    for model in (csm, other):
        codes = model.generate_codes("Hi.", voice=plain, **GREEDY)
        wanted = model.generate_codes("[3]Hi.", context=segments(voice), **GREEDY)
        assert np.array_equal(codes, wanted)


def test_a_voice_of_another_kind_of_model_is_refused(csm: CSM, voice: Voice) -> None:
    wide = replace(voice, codes=np.ones((3, 32), np.int32))
    with pytest.raises(ValueError, match=r"voice of speaker 3 must be .* \(frames, 8\)"):
        csm.generate("Hi.", voice=wide)


def test_fingerprints(csm: CSM, other: CSM, path: Path, tmp_path: Path) -> None:
    assert len(csm.fingerprint) == 32
    assert csm.fingerprint != other.fingerprint
    copy = tmp_path / "copy.gguf"
    data = bytearray(path.read_bytes())
    copy.write_bytes(data)
    load = CSM.from_pretrained
    assert load(copy, device=devices.SPEECH, threads=1).fingerprint == csm.fingerprint
    data[-3] ^= 1
    copy.write_bytes(data)
    assert load(copy, device=devices.SPEECH, threads=1).fingerprint != csm.fingerprint


def test_files(voice: Voice, tmp_path: Path) -> None:
    spoken = replace(voice, transcript="Größe “100 %” — 你好")
    spoken.save(tmp_path / "x.voice")
    loaded = Voice.load(tmp_path / "x.voice")
    assert (loaded.speaker, loaded.transcript) == (3, spoken.transcript)
    assert (loaded.sample_rate, loaded.frame_size, loaded.prefix) == (24000, 1920, None)
    assert loaded.codes.dtype == np.int32 and np.array_equal(loaded.codes, voice.codes)
    assert loaded.to_bytes() == spoken.to_bytes()
    with pytest.raises(FileNotFoundError):
        Voice.load(tmp_path / "none.voice")


def test_the_layout_is_the_documented_one(voice: Voice) -> None:
    data = voice.to_bytes()
    magic, version, header = struct.unpack_from("<8sII", data)
    assert (magic, version) == (b"CSMVOICE", 1)
    codes = np.frombuffer(data[16 + header : -32], "<u2").reshape(11, 8)
    assert np.array_equal(codes, voice.codes)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_damaged_files(voice: Voice, tmp_path: Path) -> None:
    data = voice.to_bytes()
    for position in range(len(data)):
        wrong = bytearray(data)
        wrong[position] ^= 1
        with pytest.raises(VoiceFileError):
            Voice.from_bytes(bytes(wrong))
    for end in range(len(data)):
        with pytest.raises(VoiceFileError):
            Voice.from_bytes(data[:end])
    with pytest.raises(VoiceFileError):
        Voice.from_bytes(data + b"\0")
    with pytest.raises(VoiceFileError, match="version 2, this program knows version 1"):
        Voice.from_bytes(data[:8] + b"\2" + data[9:])
    (tmp_path / "x.voice").write_bytes(b"RIFF")
    with pytest.raises(VoiceFileError, match=r"x\.voice: not a voice file"):
        Voice.load(tmp_path / "x.voice")
    for header in (b"[]", b"{}", b"\xff", b'{"speaker": 0}', b'"x"', b"1"):
        content = struct.pack("<8sII", b"CSMVOICE", 1, len(header)) + header
        with pytest.raises(VoiceFileError, match="no valid voice"):
            Voice.from_bytes(content + hashlib.sha256(content).digest())


def test_the_cache_is_bounded(csm: CSM) -> None:
    cache = PrefixCache()
    prompts = csm._resolver.prompts
    made = []
    for number in range(KEEP + 1):
        codes = np.full((1, 8), number, np.int32)
        made.append([EncodedSegment(Turn(0, "a"), codes)])
    first = cache.get(made[0], prompts)
    assert cache.get(made[0], prompts) is first
    for segment in made[1:]:
        cache.get(segment, prompts)
    assert cache.get(made[0], prompts) is not first


def test_a_model_without_encoder_speaks_with_voices(voice: Voice, tmp_path: Path) -> None:
    make_random(tmp_path / "x.gguf", preset="tiny", encoder=False, progress=False)
    csm = CSM.from_pretrained(tmp_path / "x.gguf", device=devices.SPEECH, threads=1)
    assert len(csm.generate_codes("Hi.", voice=voice, **GREEDY)) == 8
    with pytest.raises(_core.ModelFormatError, match="holds no Mimi encoder"):
        csm.create_voice(np.zeros(1920), "Hi.")
