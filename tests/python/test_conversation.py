"""Conversations: the kept cache says what the whole context, evaluated anew, would say."""

import gc
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, Audio, Segment, Turn, Voice
from reference import devices

GREEDY: dict[str, Any] = {"temperature": 0, "max_frames": 8}
LINES = ["[0]How are you?", "[1]Fine, thanks!", "[0]Good.", "[1]And you? [0]Well."]


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device=devices.SPEECH, threads=1)


@pytest.fixture(scope="module")
def voices(csm: CSM) -> list[Voice]:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 8 * 1920))
    return [csm.create_voice(own, f"Voice {n}.", speaker=n) for n, own in enumerate(noise)]


def as_segments(voices: list[Voice]) -> list[Segment]:
    return [voice.segment() for voice in voices]


def test_each_turn_is_what_the_whole_context_gives(csm: CSM, voices: list[Voice]) -> None:
    context = [Segment(1, "Before.", codes=voices[0].codes[:3])]
    said = [*as_segments(voices), *context]
    with csm.conversation(voice=voices, context=context, **GREEDY) as talk:
        for line in LINES:
            audio = talk.say(line)
            assert np.array_equal(audio.codes, csm.generate_codes(line, context=said, **GREEDY))
            for turn in audio.turns:
                codes = audio.codes[turn.start : turn.start + turn.frames]
                said.append(Segment(turn.speaker, turn.text, codes=codes))
            # Only what is new was evaluated: the texts, and a row that ends what went before.
            texts = sum(len(csm.tokenize(f"[{t.speaker}]{t.text}")) for t in audio.turns)
            if line != LINES[0]:
                assert audio.stats.prefill_rows == texts + len(audio.turns)
        assert [turn.text for turn in talk.turns] == [segment.text for segment in said[3:]]


def test_brackets_in_what_was_said_are_no_tags(csm: CSM, tmp_path: Path) -> None:
    """What was read once is not read again: by a conversation, a voice and its file."""
    written = "[1]See [12] there."
    with csm.conversation(**GREEDY) as talk:
        talk.say([Turn(0, written), Turn(1, "I see.")])
        assert [(turn.speaker, turn.text) for turn in talk.turns] == [(0, written), (1, "I see.")]
    sound = np.random.default_rng(0).normal(0, 0.1, 8 * 1920)
    voice = csm.create_voice(sound, written, speaker=0, tags=False)
    assert voice.transcript == voice.segment().turn().text == written
    voice.save(tmp_path / "me.voice")
    assert Voice.load(tmp_path / "me.voice").transcript == written
    assert csm.tokenize(written, tags=False) == csm.model.tokenizer.encode_turn(0, written)
    with pytest.raises(ValueError, match=r"tags of \[1\]"):
        csm.create_voice(sound, written, speaker=0)


def test_a_conversation_is_one_text_with_many_turns(csm: CSM, voices: list[Voice]) -> None:
    whole = csm.generate("".join(LINES), voice=voices, **GREEDY)
    with csm.conversation(voice=voices, **GREEDY) as talk:
        parts = [talk.say(line) for line in LINES]
    assert np.array_equal(np.concatenate([part.codes for part in parts]), whole.codes)
    assert np.array_equal(np.concatenate([part.samples for part in parts]), whole.samples)


def test_oldest_turns_are_forgotten_whole(csm: CSM, voices: list[Voice]) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_frames": 90}
    said: list[Segment] = []
    forgotten = 0
    with csm.conversation(voice=voices, **options) as talk:
        for number in range(9):
            text = f"[{number % 2}]Line {number}."
            audio = talk.say(text)
            assert len(audio.codes) == 90
            said.append(Segment(number % 2, f"Line {number}.", codes=audio.codes))
            kept = talk.turns
            assert [turn.text for turn in kept] == [s.text for s in said[len(said) - len(kept) :]]
            if len(said) - len(kept) > forgotten:
                forgotten = len(said) - len(kept)
                context = [*as_segments(voices), *said[forgotten:-1]]
                wanted = csm.generate_codes(text, context=context, **options)
                assert np.array_equal(audio.codes, wanted)
    assert forgotten > 3


def test_streams(csm: CSM, voices: list[Voice]) -> None:
    with (
        csm.conversation(voice=voices, **GREEDY) as one,
        csm.conversation(voice=voices, **GREEDY) as other,
    ):
        for line in LINES:
            chunks = list(one.stream(line, chunk_frames=3))
            assert len(chunks) > 2
            whole = other.say(line)
            joined = Audio.concatenate(chunks)
            assert np.array_equal(joined.samples, whole.samples)
            assert [turn.text for turn in joined.turns] == [turn.text for turn in whole.turns]


def test_what_is_not_heard_to_the_end_was_never_said(csm: CSM, voices: list[Voice]) -> None:
    with csm.conversation(voice=voices, **GREEDY) as talk:
        first = talk.say(LINES[0])
        never, many = "[1]Never mind.", "[1]One.[0]Two.[1]Three."
        for text, chunks in ((never, 1), (never, 7), (many, 1), (many, 8), (many, 9)):
            stream = talk.stream(text, chunk_frames=1)
            for _ in range(chunks):
                next(stream)
            stream.close()
            assert [turn.text for turn in talk.turns] == ["How are you?"]
        context = [*as_segments(voices), Segment(0, "How are you?", codes=first.codes)]
        wanted = csm.generate_codes(LINES[1], context=context, **GREEDY)
        assert np.array_equal(talk.say(LINES[1]).codes, wanted)


def test_a_turn_that_failed_was_never_said(
    csm: CSM, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        csm.conversation(voice=voices, **GREEDY) as talk,
        csm.conversation(voice=voices, **GREEDY) as other,
    ):
        talk.say(LINES[0])
        other.say(LINES[0])

        def fail(*_: object) -> None:
            raise ArithmeticError

        with monkeypatch.context() as patch:
            patch.setattr("csm_ggml.speech.utterance.Utterance.hear", fail)
            with pytest.raises(ArithmeticError):
                talk.say("[1]Never mind.")
        assert [turn.text for turn in talk.turns] == ["How are you?"]
        assert np.array_equal(talk.say(LINES[1]).codes, other.say(LINES[1]).codes)


def test_the_last_chunk_says_the_turn(csm: CSM) -> None:
    with csm.conversation(**GREEDY) as talk:
        for chunk in talk.stream(LINES[0]):
            if chunk.finish_reason is not None:
                break
        assert len(talk.turns) == 1
        second = talk.say(LINES[1])
    assert np.array_equal(second.codes, csm.generate(LINES[0] + LINES[1], **GREEDY).codes[8:])


def test_listening(csm: CSM, voices: list[Voice]) -> None:
    heard = Segment(1, "Fine, thanks!", codes=voices[0].codes[:5])
    with csm.conversation(voice=voices, **GREEDY) as talk:
        first = talk.say(LINES[0])
        talk.listen(heard)
        third = talk.say(LINES[2])
    context = [*as_segments(voices), Segment(0, "How are you?", codes=first.codes), heard]
    assert np.array_equal(third.codes, csm.generate_codes(LINES[2], context=context, **GREEDY))


def test_retries(csm: CSM) -> None:
    with (
        csm.conversation(max_frames=4, retries=2, seed=5) as talk,
        csm.conversation(max_frames=4, seed=5) as plain,
    ):
        # None of three attempts ends, so the first is kept; what follows continues from that one.
        for line in LINES[:3]:
            assert np.array_equal(talk.say(line).codes, plain.say(line).codes)


def test_seeds(csm: CSM) -> None:
    with csm.conversation(seed=5, max_frames=4) as talk:
        assert [talk.say("Hi.").seed, talk.say("Hi.").seed, talk.say("Hi.", seed=1).seed] == [
            5,
            6,
            1,
        ]
        assert talk.say("Hi.").seed == 7
        assert len(talk.say("Hi.", max_frames=2).codes) == 2
    with csm.conversation(seed=5, max_frames=4) as talk:
        assert np.array_equal(
            talk.say("Hi.").codes, csm.generate_codes("Hi.", seed=5, max_frames=4)
        )


def test_wrong_use(csm: CSM) -> None:
    with pytest.raises(TypeError, match="unknown option 'temprature'"):
        csm.conversation(temprature=1)
    with pytest.raises(ValueError, match="temperature"):
        csm.conversation(temperature=-1)
    talk = csm.conversation(**GREEDY)
    with pytest.raises(TypeError, match="voice belongs to the whole conversation"):
        talk.say("Hi.", voice=None)
    with pytest.raises(ValueError, match="text is empty"):
        talk.say("")
    stream = talk.stream("Hi.")
    next(stream)
    for use in (talk.close, lambda: talk.say("Hi."), lambda: next(talk.stream("Hi."))):
        with pytest.raises(RuntimeError, match="a stream of this conversation is still open"):
            use()
    stream.close()
    talk.say("Hi.")
    talk.close()
    talk.close()
    with pytest.raises(RuntimeError, match="the conversation is closed"):
        talk.say("Hi.")


def test_a_conversation_gives_its_slot_back(path: Path) -> None:
    csm = CSM.from_pretrained(path, device=devices.SPEECH, threads=1, slots=1)
    for close in (True, False, True):
        talk = csm.conversation(**GREEDY)
        talk.say("Hi.")
        if close:
            talk.close()
        del talk
        gc.collect()
    csm.generate("Hi.", **GREEDY)
    loop = csm.scheduler._runner.loop
    assert not loop._held and not loop._saved and not loop._leases


def test_memory_is_given_back_after_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch, voices: list[Voice]
) -> None:
    monkeypatch.setattr("csm_ggml.speech.scheduler.IDLE_SECONDS", 0.05)
    csm = CSM.from_pretrained(path, device=devices.SPEECH, threads=1)
    lively = CSM.from_pretrained(path, device=devices.SPEECH, threads=1)
    rests: list[None] = []
    loop = csm.scheduler._runner.loop
    rest = loop.rest
    monkeypatch.setattr(loop, "rest", lambda: rests.append(rest()))
    with (
        csm.conversation(voice=voices, **GREEDY) as talk,
        lively.conversation(voice=voices, **GREEDY) as other,
    ):
        for line in LINES:
            # It may rest while the other one still speaks.
            before = len(rests)
            audio, expected = talk.say(line), other.say(line)
            assert np.array_equal(audio.samples, expected.samples)
            assert audio.stats.prefill_rows == expected.stats.prefill_rows
            until = time.monotonic() + 10
            while len(rests) == before and time.monotonic() < until:
                time.sleep(0.01)
            assert len(rests) > before


def test_more_conversations_than_slots(csm: CSM, path: Path, voices: list[Voice]) -> None:
    few = CSM.from_pretrained(path, device=devices.SPEECH, threads=1, slots=2)
    few.generate("Hi.", voice=voices, max_frames=1)  # Evaluates the voices.
    with ExitStack() as stack:
        talks = [
            stack.enter_context(few.conversation(voice=voices, seed=n, max_frames=4))
            for n in range(7)
        ]
        alone = [
            stack.enter_context(csm.conversation(voice=voices, seed=n, max_frames=4))
            for n in range(7)
        ]
        for line in LINES:
            for talk, other in zip(talks, alone, strict=True):
                audio, expected = talk.say(line), other.say(line)
                assert np.array_equal(audio.samples, expected.samples)
                # What was said before was saved, and is not evaluated again.
                assert audio.stats.prefill_rows == expected.stats.prefill_rows


def test_threads_wait_for_each_other(csm: CSM) -> None:
    with csm.conversation(**GREEDY) as talk:
        workers = [threading.Thread(target=talk.say, args=("Hi.",)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(talk.turns) == 4
