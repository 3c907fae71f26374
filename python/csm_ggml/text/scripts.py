"""Files of text: a script, which holds one turn a line, or prose, whose lines are joined."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from csm_ggml.text.characters import clean
from csm_ggml.text.pauses import PARAGRAPH_PAUSE
from csm_ggml.text.tags import find_tags
from csm_ggml.text.turns import Turn, check_speaker, open_turns

# Marks of an encoding; that of UTF-32 begins with that of UTF-16, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(data: bytes, where: str) -> str:
    """The text in a file: UTF-8, or what the mark at its start says (UTF-16, UTF-32).

    Args:
        data: What is in the file.
        where: Its name, for the message.

    Raises:
        ValueError: If it is no such text.
    """
    found = (pair for pair in _MARKS if data.startswith(pair[0]))
    mark, encoding = next(found, (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise ValueError(
            f"{where} is not {encoding.upper()} text: byte {at} is {data[at]:#04x}; "
            "save it as UTF-8, or as UTF-16 with a byte order mark"
        ) from None


def read_script(
    text: str, *, speaker: int = 0, tags: bool | None = None, speakers: Collection[int] = ()
) -> list[Turn] | None:
    """Read a script that holds one turn a line.

    A line without a tag is said by the speaker of the line before. Blank lines are pauses.

    Args:
        text: What is in the file.
        speaker: Who says what stands before the first tag.
        tags: As in `csm_ggml.text.tags.find_tags`.
        speakers: As there.

    Returns:
        The turns, some of which may have no letter or digit; None if there is no tag in the text,
        which is prose then.

    Raises:
        ValueError: If there is a tag that is not right.
    """
    text = clean(text)
    speaker = check_speaker(speaker)
    if not find_tags(text, tags, {speaker, *speakers}):
        return None
    turns: list[Turn] = []
    pause = 0.0
    opened = open_turns(text, speaker=speaker, tags=tags, speakers=speakers)
    for number, said in opened:
        # The first line goes on after the tag, the last one before the next tag.
        lines = said.split("\n")
        for at, line in enumerate(lines):
            if words := line.strip():
                turns.append(Turn(number, words, pause))
                pause = 0.0
            elif turns and 0 < at < len(lines) - 1:
                pause = PARAGRAPH_PAUSE
    return turns
