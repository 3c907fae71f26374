"""From what a caller asked for to complete requests, checked before any work.

Voices and context are loaded, encoded and checked once, into values that a batch, a book or a
conversation share.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from csm_ggml.audio.recording import check_words
from csm_ggml.errors import ContextLengthError
from csm_ggml.limits import check_count
from csm_ggml.loading.codec_probe import same_codec
from csm_ggml.loading.model import Model
from csm_ggml.speech.options import GenerateOptions, resolve_length, resolve_sampling, resolve_seed
from csm_ggml.speech.prefix import KVPrefix, PrefixCache
from csm_ggml.speech.request import Conditioning, Request, Settings, check_fits
from csm_ggml.speech.stop import resolve_stop_rules
from csm_ggml.text.lexicon import Lexicon, LexiconLike, as_lexicon
from csm_ggml.text.reading import Text, read_text
from csm_ggml.text.turns import Turn, check_speaker
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder
from csm_ggml.voices.segment import Segment
from csm_ggml.voices.voice import Voice, VoicePrefix

OPTIONS = frozenset(GenerateOptions.__annotations__)


def check_options(options: Mapping[str, Any]) -> None:
    """Make sure that there is no unknown option.

    Raises:
        TypeError: If there is one; the message lists the known ones.
    """
    if unknown := sorted(set(options) - OPTIONS):
        raise TypeError(
            f"unknown option {unknown[0]!r}, expected one of {', '.join(sorted(OPTIONS))}"
        )


class Known:
    """Voice files and segments that were read for one call, so that each is read once."""

    def __init__(self) -> None:
        self.files: dict[str, Voice] = {}
        self.segments: dict[Segment, EncodedSegment] = {}
        self.conditionings: dict[tuple[object, ...], Conditioning] = {}
        self._speakers: set[int] = set()
        self._voices: dict[Voice, None] = {}
        # Beside each what it was made of, which keeps the identity of a mapping its own.
        self._lexicons: dict[str | int, tuple[object, Lexicon]] = {}

    def spoken(self, voices: Sequence[Voice], speakers: Collection[int]) -> None:
        """Take note of who speaks, with these voices.

        Raises:
            ValueError: If there are several voices, and none is of a speaker.
        """
        if len(voices) > 1 and not any(voice.speaker in speakers for voice in voices):
            raise ValueError(
                f"none of the voices, of {_named(voice.speaker for voice in voices)}, is of who "
                f"speaks: {_named(speakers)}; tag the text with the voices' numbers, or give the "
                "voices others with voice.with_speaker()"
            )
        self._speakers.update(speakers)
        self._voices.update(dict.fromkeys(voices))

    def warn_of_unused_voices(self) -> None:
        """Say which voices are of nobody who spoke, in all that was taken note of."""
        unused = {voice.speaker for voice in self._voices} - self._speakers
        if unused:
            warnings.warn(
                f"the voice of {_named(unused)} is not heard: the text is said by "
                f"{_named(self._speakers)}; tag it with the voice's number, or use "
                "voice.with_speaker()",
                stacklevel=4,
            )

    def lexicon(self, value: LexiconLike | None) -> Lexicon | None:
        """The lexicon of an option, made once.

        Raises:
            As `csm_ggml.text.lexicon.as_lexicon`.
        """
        if value is None or isinstance(value, Lexicon):
            return value
        key = os.fspath(value) if isinstance(value, str | os.PathLike) else id(value)
        if key not in self._lexicons:
            made = as_lexicon(value)
            assert made is not None
            self._lexicons[key] = value, made
        return self._lexicons[key][1]


def speakers_of(voices: Sequence[Voice], context: object) -> set[int]:
    """Numbers that are speakers whatever a text says: of the voices and of the context."""
    segments = context if isinstance(context, Sequence) else ()
    return {item.speaker for item in (*voices, *segments) if isinstance(item, Voice | Segment)}


def _named(speakers: Iterable[int]) -> str:
    """Speakers for messages."""
    numbers = sorted(set(speakers))
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"speaker {shown}" if len(numbers) == 1 else f"speakers {shown}"


class Resolver:
    """Completes requests for one loaded model.

    Attributes:
        prompts: Builds the model's prompt rows.
        config: Hyper-parameters of the model, under the names of docs/GGUF.md.
    """

    def __init__(self, model: Model) -> None:
        """Take the model.

        Raises:
            ModelFormatError: If it has no tokenizer.
        """
        self.prompts = PromptBuilder(
            model.tokenizer,
            codebooks=model.geometry.codebooks,
            audio_vocab_size=int(model.config["csm.audio_vocab_size"]),
            voice_match=model.prompt.voice_match,
        )
        self.config = model.config
        self._model = model
        self._prefixes = PrefixCache()

    # Requests

    def request(
        self,
        text: Text,
        seed: int | None,
        options: Mapping[str, Any],
        known: Known | None = None,
        *,
        sound: bool = True,
    ) -> Request:
        """Check and complete what a caller asked for.

        Args:
            text: With speaker tags, or turns.
            seed: The caller's, or None.
            options: The caller's; see `GenerateOptions`.
            known: What was read for an earlier request of the same call, which warns of voices that
                nobody speaks with when it has all of them.
            sound: Whether samples are wanted, not only codes.

        Raises:
            As `CSM.generate`.
        """
        asked = time.perf_counter()
        check_options(options)
        alone = known is None
        known = Known() if known is None else known
        voices = self.voices(options.get("voice"), known)
        request = Request(
            turns=self.turns(
                text,
                options,
                speaker=self.speaker(options, voices),
                speakers=speakers_of(voices, options.get("context")),
                known=known,
            ),
            seed=resolve_seed(seed),
            settings=self.settings(options),
            conditioning=self.conditioning(voices, options.get("context"), known),
            sound=sound,
            asked=asked,
        )
        known.spoken(voices, {turn.speaker for turn in request.turns})
        if alone:
            known.warn_of_unused_voices()
        return self.checked(request)

    def reading_options(
        self, options: Mapping[str, Any], known: Known | None = None
    ) -> dict[str, Any]:
        """The options of `read_text` and `split_pieces` that a caller's ask for."""
        return {
            "tags": options.get("tags"),
            "normalize": options.get("normalize"),
            "lexicon": (Known() if known is None else known).lexicon(options.get("lexicon")),
            "kept": self._model.tokenizer.added,
        }

    def turns(
        self,
        text: Text,
        options: Mapping[str, Any],
        *,
        speaker: int,
        speakers: Collection[int],
        known: Known | None = None,
    ) -> tuple[Turn, ...]:
        """What is said, from a caller's text and options.

        Args:
            text: As `request`.
            options: As `request`.
            speaker: Who says text before a first tag.
            speakers: Numbers that are speakers whatever the text says.
            known: What was read for an earlier request of the same call.

        Raises:
            ValueError: If there is nothing to say, or a tag, a pause or an option is not right.
        """
        how = self.reading_options(options, known)
        return tuple(read_text(text, speaker=speaker, speakers=speakers, **how))

    def checked(self, request: Request) -> Request:
        """The request, if it fits.

        Raises:
            ContextLengthError: If it does not.
        """
        check_fits(request, self.prompts, self._model.geometry.context_length)
        return request

    def settings(self, options: Mapping[str, Any]) -> Settings:
        """How turns are spoken, from the caller's options and the model file's defaults.

        Raises:
            ValueError: If an option is out of range.
            TypeError: If an option is unknown or of the wrong type.
        """
        check_options(options)
        frame_rate = self._model.geometry.frame_rate
        sampling = resolve_sampling(self._model.config, options)
        retries = options.get("retries")
        return Settings(
            sampling=sampling,
            length=resolve_length(
                options.get("max_seconds"), options.get("max_frames"), frame_rate
            ),
            stop=resolve_stop_rules(options, greedy=sampling.greedy, frame_rate=frame_rate),
            retries=0 if retries is None else check_count("retries", retries, least=0),
        )

    @staticmethod
    def speaker(options: Mapping[str, Any], voices: Sequence[Voice]) -> int:
        """Who says text before a first tag."""
        speaker = options.get("speaker")
        if speaker is None:
            return voices[0].speaker if voices else 0
        return check_speaker(speaker)

    # What goes before

    def voices(self, voice: Any, known: Known | None = None) -> tuple[Voice, ...]:
        """The voices of a `voice` option, read from their files where it names files.

        Raises:
            TypeError: If it is something else than a Voice, a path or a list of them.
            VoiceFileError: If a file is no voice.
        """
        known = Known() if known is None else known
        if voice is None:
            return ()
        if isinstance(voice, Voice):
            return (voice,)
        if isinstance(voice, str | os.PathLike):
            path = os.path.abspath(os.fspath(voice))
            if path not in known.files:
                known.files[path] = Voice.load(voice)
            return (known.files[path],)
        if isinstance(voice, Sequence):
            return tuple(single for item in voice for single in self.voices(item, known))
        raise TypeError(f"voice must be a Voice, its file, or a list of them, got {voice!r}")

    def conditioning(
        self,
        voices: Sequence[Voice],
        context: Sequence[Segment] | None,
        known: Known | None = None,
    ) -> Conditioning:
        """What a prompt begins with.

        Args:
            voices: One for each speaker.
            context: What was said before.
            known: What was read for an earlier request of the same call.

        Raises:
            ValueError: If two voices have the same speaker, a voice is not of this kind of model,
                was made with another codec, or its cached KV prefix with another model; or a
                segment cannot be encoded.
            TypeError: If the context is no list of segments.
        """
        known = Known() if known is None else known
        if context is not None and (
            isinstance(context, Segment) or not all(isinstance(s, Segment) for s in context)
        ):
            raise TypeError("context must be a list of Segment")
        key = (*voices, None, *(context or ()))
        if key not in known.conditionings:
            found = self._voices(voices)
            encoded = tuple(self.encoded(segment, known) for segment in context or ())
            known.conditionings[key] = replace(found, context=encoded)
        return known.conditionings[key]

    def encoded(self, segment: Segment, known: Known | None = None) -> EncodedSegment:
        """A segment with its codes.

        Raises:
            ValueError: If the codes are not of this model, or the audio cannot be encoded.
        """
        known = Known() if known is None else known
        if segment not in known.segments:
            turn = segment.turn()
            known.segments[segment] = segment.encoded(
                self.prompts, lambda *sound: self._codes(turn, *sound)
            )
        return known.segments[segment]

    def with_context(
        self,
        request: Request,
        fixed: tuple[EncodedSegment, ...],
        more: tuple[EncodedSegment, ...] = (),
    ) -> Request:
        """The request after another context.

        Args:
            request: Of one turn.
            fixed: What goes before, in place of its conditioning; evaluated once for all requests
                that share it.
            more: What follows that.

        Raises:
            ContextLengthError: If it does not fit.
        """
        prefix = self._prefix(fixed) if fixed else None
        return self.checked(replace(request, conditioning=Conditioning(fixed, more, prefix)))

    def new_voice(self, segment: Segment) -> Voice:
        """The voice that a recording is of; see `CSM.create_voice`.

        Raises:
            ContextLengthError: If it leaves no room for speech.
            ValueError: If its audio cannot be encoded.
        """
        spoken = self.encoded(segment)
        geometry = self._model.geometry
        self._check_length(spoken.turn, len(spoken.codes))
        return Voice(
            speaker=spoken.turn.speaker,
            transcript=spoken.turn.text,
            codes=spoken.codes,
            sample_rate=geometry.sample_rate,
            frame_size=geometry.frame_size,
            codec=self._model.codec.probed,
        )

    def _codes(self, turn: Turn, sound: Any, sample_rate: int | None = None) -> Any:
        """The codes of somebody's speech; what is wrong with the recording is said before."""
        geometry, codec = self._model.geometry, self._model.codec
        most = geometry.context_length * geometry.frame_size / geometry.sample_rate
        samples = codec.samples(sound, sample_rate, speech=True, most_seconds=most)
        self._check_length(turn, -(-len(samples) // geometry.frame_size))
        for note in check_words(turn.text, len(samples) / geometry.sample_rate):
            name = os.fsdecode(sound) if isinstance(sound, str | os.PathLike) else "the recording"
            warnings.warn(f"{name}: {note}", stacklevel=4)
        return codec.encode_samples(samples)

    def _check_length(self, turn: Turn, frames: int) -> None:
        """Make sure that a recording of so many frames leaves room for speech."""
        geometry = self._model.geometry
        nothing = np.zeros((0, geometry.codebooks), np.int32)
        # The shortest thing to say: a token between its marks, and a frame.
        rest = self.prompts.segment_rows(EncodedSegment(turn, nothing)) + 4
        if (needed := rest + frames) > geometry.context_length:
            longest = max(0, geometry.context_length - rest) / geometry.frame_rate
            raise ContextLengthError(
                f"the recording, its transcript and a word to say need {needed} rows or more, but "
                f"the model's context has {geometry.context_length}; use a shorter recording, of "
                f"at most {longest:.1f} s with this transcript",
                needed=needed,
                available=geometry.context_length,
            )

    def _voices(self, voices: Sequence[Voice]) -> Conditioning:
        if not voices:
            return Conditioning()
        speakers = [voice.speaker for voice in voices]
        if len(set(speakers)) < len(speakers):
            raise ValueError(
                f"each voice needs a speaker of its own, got voices of speakers {speakers}; "
                "give one of them another number with voice.with_speaker(); for a voice for each "
                "text of a batch, give a list for each: voice=[[a], [b]]"
            )
        segments = tuple(voice.encoded(self.prompts) for voice in voices)
        saved = None
        for voice in voices:
            if voice.prefix is not None:
                voice.prefix.check(self._model.label, self._model.fingerprint, voice=voice)
            self._check_codec(voice)
        if len(voices) == 1 and voices[0].prefix is not None:
            saved = voices[0].prefix
        return Conditioning(segments, (), self._prefix(segments, saved))

    def _prefix(
        self, segments: Sequence[EncodedSegment], saved: VoicePrefix | None = None
    ) -> KVPrefix | None:
        """What prompts with these segments begin with; None where that depends on the turn."""
        if self.prompts.voice_match:
            return None
        return self._prefixes.get(segments, self.prompts, saved)

    def _check_codec(self, voice: Voice) -> None:
        geometry = self._model.geometry
        frame = geometry.frame_size, geometry.sample_rate
        if (voice.frame_size, voice.sample_rate) == frame and (
            voice.codec is None or same_codec(voice.codec, self._model.codec.probed)
        ):
            return
        raise ValueError(
            f"the voice of speaker {voice.speaker} was made with another codec "
            f"({voice.frame_size} samples a frame, {voice.sample_rate} Hz) than that of "
            f"{self._model.label} ({frame[0]}, {frame[1]} Hz), which has other sounds for its "
            "codes; create the voice from its recording with this model (or use "
            "voice.without_codec() if you know that the codes mean the same)"
        )
