r"""Speech with speaker tags, taken apart: `"[0]Hello. [1]Hi!"` is two turns of two speakers.

Line breaks are not innocent: `".\n"` is one token of the Llama-3 vocabulary that the model has
hardly seen at the end of a sentence, and a space after the tag changes the first word's token. So
a turn's text is normalised before it is tokenized, and nowhere else.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MAX_SPEAKER = 9999

_TAG = re.compile(r"\[([0-9]+)\]")
_WHITESPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Turn:
    """One speaker's utterance.

    Attributes:
        speaker: The number in the tag, 0 to 9999. CSM was trained mostly on 0 and 1.
        text: Normalised text without the tag; never empty.
    """

    speaker: int
    text: str


def normalize(text: str) -> str:
    """Bring text into the form that the model was trained on.

    Every run of whitespace, line breaks included, becomes one space; the ends are stripped;
    control and formatting marks that carry no sound (such as a byte order mark) are dropped.
    Letters, accents and punctuation stay as they are.

    Raises:
        TypeError: If text is not a string.
        ValueError: If text holds lone surrogates, as undecodable command line arguments do.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text is not valid Unicode at character {error.start}: {text[error.start]!r}; "
            "decode it with the encoding it was written in"
        ) from None
    text = _WHITESPACE.sub(" ", text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cc" and c != "\ufeff")
    return text.strip(" ")


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


def has_tags(text: str) -> bool:
    """Whether there is a speaker tag in the text."""
    return _TAG.search(text) is not None


def parse_turns(text: str, *, speaker: int = 0) -> list[Turn]:
    """Split tagged text into turns.

    A tag is an ASCII number in brackets, `[0]`, anywhere in the text; it opens a turn that lasts
    until the next tag. Brackets around anything else are text.

    Args:
        text: What is to be said.
        speaker: Who says what stands before the first tag.

    Raises:
        ValueError: If there is nothing to say, a tag has no text after it, or a tag's number
            exceeds 9999.
    """
    speaker = check_speaker(speaker)
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    pieces = _TAG.split(text)
    turns = []
    if before := normalize(pieces[0]):
        turns.append(Turn(speaker, before))
    for number, said in zip(pieces[1::2], pieces[2::2], strict=True):
        if len(number.lstrip("0")) > len(str(MAX_SPEAKER)):
            raise ValueError(
                f"[{_shorten(number)}] is read as a speaker tag, and speakers are numbered "
                f"0..{MAX_SPEAKER}; "
                "write the number without brackets if it is part of the text"
            )
        if not (said := normalize(said)):
            raise ValueError(f"nothing to say for speaker [{int(number)}]: no text after its tag")
        turns.append(Turn(int(number), said))
    if not turns:
        raise ValueError("nothing to say: the text is empty")
    return turns


def parse_lines(lines: Iterable[str], *, speaker: int = 0) -> list[Turn]:
    """Read a script that holds one turn a line.

    Blank lines are skipped. A line without a tag is said by the speaker of the line before.

    Args:
        lines: The lines, with or without their line ends.
        speaker: Who says what stands before the first tag.

    Raises:
        ValueError: As `parse_turns`, with the line's number.
    """
    turns: list[Turn] = []
    for number, line in enumerate(lines, start=1):
        if not normalize(line):
            continue
        try:
            turns += parse_turns(line, speaker=turns[-1].speaker if turns else speaker)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not turns:
        raise ValueError("nothing to say: the text is empty")
    return turns


def _shorten(number: str) -> str:
    return number if len(number) <= 20 else number[:17] + "..."
