"""Speech with speaker tags, taken apart: `"[0]Hello. [1]Hi!"` is two turns of two speakers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from csm_ggml.text.characters import clean, one_line
from csm_ggml.text.tags import MAX_SPEAKER, find_tags

EMPTY = "nothing to say: the text is empty"


@dataclass(frozen=True)
class Turn:
    """One speaker's utterance.

    Attributes:
        speaker: The number in the tag, 0 to 9999. CSM was trained mostly on 0 and 1.
        text: What is said, without the tag. Of a turn that this package made: in one line, without
            characters that carry no sound, never empty. As input it may be any text; nothing in it
            is a tag.
        pause: Seconds of silence before it.
    """

    speaker: int
    text: str
    pause: float = 0.0


def check_speaker(speaker: int) -> int:
    """Return a speaker number as an int.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is outside 0..9999.
    """
    if isinstance(speaker, bool) or not hasattr(speaker, "__index__"):
        raise TypeError(f"speaker must be an int, got {speaker!r}")
    speaker = int(speaker)
    if not 0 <= speaker <= MAX_SPEAKER:
        raise ValueError(f"speaker must be in 0..{MAX_SPEAKER}, got {speaker}")
    return speaker


def open_turns(
    text: str, *, speaker: int, tags: bool | None = None, speakers: Collection[int] = ()
) -> list[tuple[int, str]]:
    """Cut tagged text where turns begin.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`).
        speaker: Who says what stands before the first tag.
        tags: As in `csm_ggml.text.tags.find_tags`.
        speakers: As there.

    Returns:
        Speaker and text of each turn, with its lines; nothing where there is none before the first
        tag.

    Raises:
        ValueError: If a tag's number exceeds 9999, or there is no text after it.
    """
    found = find_tags(text, tags, {speaker, *speakers})
    ends = [match.start() for match in found] + [len(text)]
    turns = [(speaker, text[: ends[0]])] if text[: ends[0]].strip() else []
    for match, end in zip(found, ends[1:], strict=True):
        said = text[match.end() : end]
        where = _line(text, match.start())
        if len(match[1].lstrip("0")) > len(str(MAX_SPEAKER)):
            raise ValueError(
                f"{where}[{_shorten(match[1])}] is read as a speaker tag, and speakers are "
                f"numbered 0..{MAX_SPEAKER}; write the number without brackets if it is part of "
                "the text, or give tags=False (--no-tags) if nothing in it is a tag"
            )
        if not said.strip():
            raise ValueError(
                f"{where}nothing to say for speaker [{int(match[1])}]: no text after its tag"
            )
        turns.append((int(match[1]), said))
    return turns


def parse_turns(text: str, *, speaker: int = 0, tags: bool | None = None) -> list[Turn]:
    """Split tagged text into turns.

    A tag is an ASCII number in brackets, `[0]`; it opens a turn that lasts until the next tag.
    Brackets around anything else are text, and so are numbers that are no speakers by all signs
    (`csm_ggml.text.tags.find_tags`).

    Args:
        text: What is to be said.
        speaker: Who says what stands before the first tag.
        tags: Whether bracketed numbers are tags; None: where they look like it.

    Raises:
        ValueError: If there is nothing to say, a tag has no text after it, or a tag's number
            exceeds 9999.
    """
    opened = open_turns(clean(text), speaker=check_speaker(speaker), tags=tags)
    if not opened:
        raise ValueError(EMPTY)
    return [Turn(number, one_line(said)) for number, said in opened]


def _line(text: str, at: int) -> str:
    """Where that is in a text of several lines."""
    line = text.count("\n", 0, at) + 1
    return f"line {line}: " if "\n" in text.strip() else ""


def _shorten(number: str) -> str:
    return number if len(number) <= 20 else number[:17] + "..."
