"""From what a caller asked for to a complete `Request`, checked before any work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.errors import ContextLengthError
from csm_ggml.loading.codec_probe import same_codec
from csm_ggml.speech.generation import Request, check_fits
from csm_ggml.speech.options import (
    GenerateOptions,
    check_count,
    resolve_length,
    resolve_sampling,
    resolve_seed,
)
from csm_ggml.speech.prefix import Prefix, PrefixCache
from csm_ggml.speech.stop import resolve_stop_rules
from csm_ggml.text.turns import Turn, check_speaker, parse_turns
from csm_ggml.voices.prompt import PromptBuilder, SpokenSegment
from csm_ggml.voices.segment import Segment
from csm_ggml.voices.voice import Voice

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


class RequestBuilder:
    """Makes requests for one loaded model.

    Attributes:
        prompts: Builds the model's prompt rows.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        prompts: PromptBuilder,
        encode: Callable[..., npt.NDArray[np.int32]],
        fingerprint: Callable[[], tuple[str, str]],
        codec: Callable[[], tuple[float, ...]],
    ) -> None:
        """Take what requests depend on.

        Args:
            config: Hyper-parameters of the model.
            prompts: Of the model.
            encode: `CSM.encode` of the model, for segments that have no codes yet.
            fingerprint: Name and fingerprint of the model; asked for when a voice holds keys and
                values.
            codec: The codec's answer to a probe; asked for when there is a voice.
        """
        self.prompts = prompts
        self._config = config
        self._encode = encode
        self._fingerprint = fingerprint
        self._codec = codec
        self._prefixes = PrefixCache()
        self._frame_rate = config["mimi.sample_rate"] / config["mimi.frame_size"]

    def request(
        self,
        text: str,
        seed: int | None,
        options: Mapping[str, Any],
        known: dict[int, SpokenSegment] | None = None,
    ) -> Request:
        """Check and complete what a caller asked for.

        Args:
            text: With speaker tags.
            seed: The caller's, or None.
            options: The caller's; see `GenerateOptions`.
            known: Segments, by id, that were read for an earlier request; more are added.

        Raises:
            As `CSM.generate`.
        """
        check_options(options)
        voices = as_voices(options.get("voice"))
        speaker = options.get("speaker")
        if speaker is None:
            speaker = voices[0].speaker if voices else 0
        turns = parse_turns(text, speaker=check_speaker(speaker))
        return self.request_turns(turns, seed, options, known)

    def request_turns(
        self,
        turns: Sequence[Turn],
        seed: int | None,
        options: Mapping[str, Any],
        known: dict[int, SpokenSegment] | None = None,
    ) -> Request:
        """As `request`, for text that was taken apart already."""
        asked = time.perf_counter()
        voices = as_voices(options.get("voice"))
        spoken, prefix = self.voices(voices)
        context = self.context(options.get("context"), {} if known is None else known)
        sampling = resolve_sampling(self._config, options)
        retries = options.get("retries")
        request = Request(
            turns=tuple(turns),
            context=(*spoken, *context),
            sampling=sampling,
            seed=resolve_seed(seed),
            length=resolve_length(
                options.get("max_seconds"), options.get("max_frames"), self._frame_rate
            ),
            stop=resolve_stop_rules(options, greedy=sampling.greedy, frame_rate=self._frame_rate),
            retries=0 if retries is None else check_count("retries", retries, least=0),
            voices=len(spoken),
            prefix=prefix,
            asked=asked,
        )
        check_fits(request, self.prompts, int(self._config["csm.context_length"]))
        return request

    def conditioned(
        self,
        request: Request,
        fixed: tuple[SpokenSegment, ...],
        more: tuple[SpokenSegment, ...] = (),
    ) -> Request:
        """The request after another context.

        Args:
            request: Of one turn.
            fixed: What goes before, in place of its context; evaluated once for all requests that
                share it.
            more: What follows that.

        Raises:
            ContextLengthError: If it does not fit.
        """
        prefix = self._prefixes.get(fixed, self.prompts) if fixed else None
        changed = replace(request, context=(*fixed, *more), voices=len(fixed), prefix=prefix)
        check_fits(changed, self.prompts, int(self._config["csm.context_length"]))
        return changed

    def voice(self, segment: Segment) -> Voice:
        """The voice that a recording is of; see `CSM.create_voice`.

        Raises:
            ContextLengthError: If it leaves no room for speech.
            ValueError: If its audio cannot be encoded.
        """
        spoken = segment.spoken(self.prompts, self._encode)
        available = int(self._config["csm.context_length"])
        # The shortest thing to say: a token between its marks, and a frame.
        if (needed := self.prompts.segment_rows(spoken) + 4) > available:
            raise ContextLengthError(
                f"the recording, its transcript and a word to say need {needed} rows, but the "
                f"model's context has {available}; use a shorter recording",
                needed=needed,
                available=available,
            )
        return Voice(
            speaker=spoken.turn.speaker,
            transcript=spoken.turn.text,
            codes=spoken.codes,
            sample_rate=int(self._config["mimi.sample_rate"]),
            frame_size=int(self._config["mimi.frame_size"]),
            codec=self._codec(),
        )

    def voices(self, voices: Sequence[Voice]) -> tuple[tuple[SpokenSegment, ...], Prefix | None]:
        """The voices as segments, and their prefix; None without voices.

        Raises:
            ValueError: If two voices have the same speaker, a voice is not of this kind of model,
                was made with another codec, or its cached prefix with another model.
        """
        if not voices:
            return (), None
        speakers = [voice.speaker for voice in voices]
        if len(set(speakers)) < len(speakers):
            raise ValueError(
                f"each voice needs a speaker of its own, got voices of speakers {speakers}; "
                "create one of them with another speaker number"
            )
        segments = tuple(voice.spoken(self.prompts) for voice in voices)
        data = None
        for voice in voices:
            if voice.prefix is not None:
                voice.prefix.check(*self._fingerprint(), voice=voice)
            self._check_codec(voice)
        if len(voices) == 1 and voices[0].prefix is not None:
            data = voices[0].prefix.data
        return segments, self._prefixes.get(segments, self.prompts, data)

    def _check_codec(self, voice: Voice) -> None:
        frame = int(self._config["mimi.frame_size"]), int(self._config["mimi.sample_rate"])
        if (voice.frame_size, voice.sample_rate) == frame and (
            voice.codec is None or same_codec(voice.codec, self._codec())
        ):
            return
        raise ValueError(
            f"the voice of speaker {voice.speaker} was made with another codec "
            f"({voice.frame_size} samples a frame, {voice.sample_rate} Hz) than that of "
            f"{self._fingerprint()[0]} ({frame[0]}, {frame[1]} Hz), which has other sounds for its "
            "codes; create the voice from its recording with this model (or use "
            "voice.without_codec() if you know that the codes mean the same)"
        )

    def context(
        self, segments: Sequence[Segment] | None, known: dict[int, SpokenSegment]
    ) -> tuple[SpokenSegment, ...]:
        """Segments with their codes; `known` as in `request`."""
        if segments is None:
            return ()
        if isinstance(segments, Segment) or not all(isinstance(s, Segment) for s in segments):
            raise TypeError("context must be a list of Segment")
        for segment in segments:
            if id(segment) not in known:
                known[id(segment)] = segment.spoken(self.prompts, self._encode)
        return tuple(known[id(segment)] for segment in segments)


def as_voices(voice: Any) -> tuple[Voice, ...]:
    """The voices of a `voice` option, read from their files where it names files.

    Raises:
        TypeError: If it is something else than a Voice, a path or a list of them.
        VoiceFileError: If a file is no voice.
    """
    if voice is None:
        return ()
    if isinstance(voice, Voice):
        return (voice,)
    if isinstance(voice, str | os.PathLike):
        return (Voice.load(voice),)
    if isinstance(voice, Sequence):
        return tuple(single for item in voice for single in as_voices(item))
    raise TypeError(f"voice must be a Voice, its file, or a list of them, got {voice!r}")
