"""What a caller may set for one utterance, checked and completed before any computing starts."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from csm_ggml.limits import check_count, number
from csm_ggml.text.lexicon import LexiconLike
from csm_ggml.text.turns import Turn
from csm_ggml.voices.segment import Segment
from csm_ggml.voices.voice import VoiceLike

# The longest turn unless asked for otherwise: the official program's limit.
MAX_SECONDS = 90.0
# CSM sometimes never ends an utterance by itself. Slow speech is about 10 characters a second; a
# turn gets two and a half times the time that takes, and some seconds for hesitation and breath.
SECONDS_PER_TURN = 4.0
SECONDS_PER_CHARACTER = 0.25


class GenerateOptions(TypedDict, total=False):
    """Keyword options of `CSM.generate` and its relatives. All may be left out.

    Attributes:
        temperature: Sampling temperature of the first codebook (the backbone). 0 always picks the
            most likely code. Default: the value in the model file, else 0.9.
        top_k: The first codebook is sampled among the k most likely codes; 0 means all codes.
            Default: the value in the model file, else 50.
        top_p: The first codebook is sampled among the most likely codes that together have this
            probability; 1 means all codes. Default: the value in the model file, else 1.
        depth_temperature: Sampling temperature of all further codebooks (the depth decoder).
            Default: 0 if temperature is given as 0, else the value in the model file, else 0.9.
        depth_top_k: As top_k, for the depth decoder. Default: the value in the model file, else 50.
        depth_top_p: As top_p, for the depth decoder. Default: the value in the model file, else 1.
        max_seconds: A turn is cut after this much speech. Default: 4 seconds plus a quarter of a
            second for each character, at most 90.
        max_frames: The same limit in frames; only one of the two may be given.
        context: Segments that were spoken before, oldest first; the speech goes on in their voices.
        voice: A `Voice`, its file, or a list of them (one for each speaker): what was spoken
            before the context. Its KV cache is computed once and kept.
        speaker: Who says text before a first tag. Default: the speaker of the first voice, else 0.
        silence_seconds: A turn ends after this many seconds of near-silence; 0 switches the rule
            off. Default 3; 0 when temperature is 0.
        silence_db: The level below which a frame is near-silence, in dB of full scale. Default -55.
        loop_seconds: A turn ends when it has repeated itself for this many seconds; 0 switches the
            rule off. Default 3; 0 when temperature is 0.
        max_characters_per_second: A turn that the model ends before it can have said so many
            letters and digits a second is too short for its text: its finish reason is "short". 0
            switches the rule off. Default 40; 0 when temperature is 0.
        tags: Whether numbers in brackets are speaker tags. Default: those are that stand where a
            turn can begin and that the text uses for speakers, so that a citation is none.
        normalize: "en": numbers, dates, money, units, abbreviations, addresses, markup and the like
            become English words. Default: the text stays as it is.
        lexicon: How words are to be spelled for the model: a `Lexicon`, its file or a mapping.
        retries: How many times a turn is generated again that the model does not end by itself, or
            that is empty or too short for its text, each time with other noise. Default 0.
    """

    temperature: float
    top_k: int
    top_p: float
    depth_temperature: float
    depth_top_k: int
    depth_top_p: float
    max_seconds: float
    max_frames: int
    context: Sequence[Segment]
    voice: VoiceLike | Sequence[VoiceLike]
    speaker: int
    silence_seconds: float
    silence_db: float
    loop_seconds: float
    max_characters_per_second: float
    tags: bool | None
    normalize: str | None
    lexicon: LexiconLike | None
    retries: int


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn, with nothing left to default: what `_core.Engine.open` takes."""

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    depth_temperature: float = 0.9
    depth_top_k: int = 50
    depth_top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If a number is outside of its range.
            TypeError: If a value is not a number.
        """
        for name in ("temperature", "depth_temperature", "top_p", "depth_top_p"):
            number(name, getattr(self, name))
        for name in ("top_k", "depth_top_k"):
            check_count(name, getattr(self, name), least=0)

    @property
    def greedy(self) -> bool:
        """Whether the first codebook, and with it what is said, does not depend on the seed."""
        return self.temperature == 0 or self.top_k == 1

    def as_dict(self) -> dict[str, Any]:
        """The fields, as keyword arguments of the engine."""
        return asdict(self)


def resolve_sampling(config: Mapping[str, Any], options: Mapping[str, Any]) -> Sampling:
    """Complete a caller's sampling options from the model file's defaults.

    Args:
        config: Hyper-parameters of the model, under the names of docs/GGUF.md.
        options: The caller's; None counts as left out. Keys that are not about sampling are
            ignored.
    """
    given = {
        key: value
        for key in Sampling.__dataclass_fields__
        if (value := options.get(key)) is not None
    }
    defaults = {
        key: value
        for key in Sampling.__dataclass_fields__
        if (value := config.get(f"csm.generation.{key}")) is not None
    }
    if given.get("temperature") == 0:
        given.setdefault("depth_temperature", 0.0)
    return Sampling(**{**defaults, **given})


@dataclass(frozen=True)
class Length:
    """How long a turn may become: a number of frames, or as long as its text warrants."""

    max_frames: int | None = None

    def frames(self, turn: Turn, frame_rate: float) -> int:
        """The limit for this turn, at least one frame."""
        if self.max_frames is not None:
            return self.max_frames
        seconds = min(MAX_SECONDS, SECONDS_PER_TURN + SECONDS_PER_CHARACTER * len(turn.text))
        return max(1, math.ceil(seconds * frame_rate))


def resolve_length(max_seconds: float | None, max_frames: int | None, frame_rate: float) -> Length:
    """Turn the caller's limit into frames.

    Raises:
        ValueError: If both limits are given, or one is not positive.
    """
    if max_seconds is not None and max_frames is not None:
        raise ValueError(
            f"give max_seconds or max_frames, not both (got {max_seconds} and {max_frames})"
        )
    if max_frames is not None:
        return Length(check_count("max_frames", max_frames))
    if max_seconds is not None:
        return Length(max(1, int(number("max_seconds", max_seconds) * frame_rate + 1e-6)))
    return Length()


def resolve_seed(seed: int | None) -> int:
    """The caller's seed, or a drawn one that is short enough to be typed again.

    Raises:
        ValueError: If seed is outside 0..2**64-1.
        TypeError: If it is no int.
    """
    if seed is None:
        return secrets.randbits(32)
    return check_count("seed", seed, least=0)
