"""A request: what is to be said, complete and checked, with nothing left to default."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from csm_ggml.errors import ContextLengthError
from csm_ggml.speech.options import Length, Sampling
from csm_ggml.speech.prefix import KVPrefix
from csm_ggml.speech.stop import StopRules
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a prompt begins with and never forgets: loaded, encoded and checked once.

    Requests of a batch, a book or a conversation share one.

    Attributes:
        voices: The segments of the voices.
        context: The segments that follow them.
        prefix: The rows of the voices; None without voices, and where each turn begins with them
            anew (voice match).
    """

    voices: tuple[EncodedSegment, ...] = ()
    context: tuple[EncodedSegment, ...] = ()
    prefix: KVPrefix | None = None

    @property
    def segments(self) -> tuple[EncodedSegment, ...]:
        """All segments, voices first."""
        return self.voices + self.context


@dataclass(frozen=True)
class Settings:
    """How turns are spoken.

    Attributes:
        sampling: How codes are drawn.
        length: How long a turn may become.
        stop: When a turn ends although the model does not say so.
        retries: How often a turn that does not end well is drawn again, with other noise.
    """

    sampling: Sampling = field(default_factory=Sampling)
    length: Length = field(default_factory=Length)
    stop: StopRules = field(default_factory=StopRules)
    retries: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """One thing to say.

    Attributes:
        turns: Spoken one after another, each conditioned on those before. Without turns, only the
            KV prefix is evaluated.
        seed: Key of the noise; the noise runs on from turn to turn.
        settings: How they are spoken.
        conditioning: What goes before everything and is never forgotten.
        history: Turns of a conversation that were spoken before; the oldest may be forgotten.
        sound: Whether the caller wants samples, not only codes.
        asked: When it was asked for, in seconds of time.perf_counter().
    """

    turns: tuple[Turn, ...]
    seed: int
    settings: Settings = field(default_factory=Settings)
    conditioning: Conditioning = field(default_factory=Conditioning)
    history: tuple[EncodedSegment, ...] = ()
    sound: bool = True
    asked: float = field(default_factory=time.perf_counter)

    @property
    def needs_sound(self) -> bool:
        """Whether frames are decoded: for the caller, or for the rule that hears silence."""
        return self.sound or self.settings.stop.silence_frames is not None


def check_fits(request: Request, prompts: PromptBuilder, context_length: int) -> None:
    """Make sure that every turn fits into the model's context, with one frame of speech.

    Earlier turns may be forgotten to make room, the request's conditioning may not.

    Raises:
        ContextLengthError: If one does not fit.
    """
    conditioning = request.conditioning
    for number, turn in enumerate(request.turns, start=1):
        voices, own = prompts.opening(conditioning.voices, turn)
        before = sum(map(prompts.segment_rows, (*voices, *conditioning.context)))
        text_rows = len(own)
        needed = before + text_rows + 1
        if needed > context_length:
            which = (
                f"turn {number} of {len(request.turns)}" if len(request.turns) > 1 else "the text"
            )
            raise ContextLengthError(
                f"{which} needs {needed} rows ({text_rows} of text, {before} of "
                "context segments, "
                f"at least 1 of speech), but the model's context has {context_length}; "
                "shorten the text, have it spoken in pieces (long_form='batch', --long-form batch) "
                "or use less context",
                needed=needed,
                available=context_length,
            )
