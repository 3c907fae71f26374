"""How a checkpoint was trained to be asked: keys of its file, or CSM's way where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csm_ggml.errors import ModelFormatError

TEXT_KEY, VOICE_KEY = "csm.prompt.text", "csm.prompt.voice"

SPEAKER, WORDS = "{speaker}", "{text}"

# How a voice stands in a prompt: as a segment that went before, or as the beginning of the turn.
SEGMENT, MATCH = "segment", "match"

_LONGEST = 200


@dataclass(frozen=True)
class PromptFormat:
    """How text and voices are written into a prompt.

    Attributes:
        text: What stands between the marks of a segment, with `{speaker}` and `{text}`, each once.
        voice: `segment`: a voice is a segment before the turn. `match`: a turn of the voice's
            speaker is one segment with it, the words of the recording before the new ones, and goes
            on from the recording's last frame.

    Raises:
        ModelFormatError: A value is none of those that can be written.
    """

    text: str = SPEAKER.join("[]") + WORDS
    voice: str = SEGMENT

    def __post_init__(self) -> None:
        rest = self.text.replace(SPEAKER, "", 1).replace(WORDS, "", 1)
        known = self.text.count(SPEAKER) == 1 and self.text.count(WORDS) == 1
        if not known or "{" in rest or "}" in rest or len(self.text) > _LONGEST:
            raise ModelFormatError(
                f"{TEXT_KEY} is {self.text[:_LONGEST]!r}, expected a text with {SPEAKER} and "
                f"{WORDS} once each, such as '[{SPEAKER}]{WORDS}'"
            )
        if self.voice not in (SEGMENT, MATCH):
            raise ModelFormatError(
                f"{VOICE_KEY} is {self.voice[:_LONGEST]!r}, expected {SEGMENT!r} or {MATCH!r}"
            )

    @property
    def voice_match(self) -> bool:
        """Whether a turn is one segment with the voice of its speaker."""
        return self.voice == MATCH

    def write(self, speaker: int, text: str) -> str:
        """The text of a segment."""
        # The speaker first: the words may hold braces.
        return self.text.replace(SPEAKER, str(speaker)).replace(WORDS, text)

    def to_metadata(self) -> dict[str, Any]:
        """Keys of what is not CSM's own way."""
        own = PromptFormat()
        keys = {TEXT_KEY: self.text} if self.text != own.text else {}
        return keys | ({VOICE_KEY: self.voice} if self.voice != own.voice else {})

    @classmethod
    def from_metadata(cls, keys: Mapping[str, Any], where: str) -> PromptFormat:
        """The inverse.

        Raises:
            ModelFormatError: A value is no text, or none that can be written.
        """
        own = cls()
        text, voice = keys.get(TEXT_KEY, own.text), keys.get(VOICE_KEY, own.voice)
        for key, value in ((TEXT_KEY, text), (VOICE_KEY, voice)):
            if not isinstance(value, str):
                raise ModelFormatError(f"{where}: {key} is {value!r}, expected a text")
        try:
            return cls(text, voice)
        except ModelFormatError as error:
            raise ModelFormatError(f"{where}: {error}") from None
