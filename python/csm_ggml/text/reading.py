"""From what a caller gives to what is said: turns, pauses, paragraphs, all in one place.

Everything that speaks reads its text here, so that a tag, a pause or a word of the lexicon means
the same in one sentence, in a script and in a book.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from csm_ggml.text.characters import clean, has_sound
from csm_ggml.text.lexicon import Lexicon, LexiconLike, as_lexicon
from csm_ggml.text.paragraphs import Paragraph, ends_paragraph, paragraphs
from csm_ggml.text.pauses import LONGEST_PAUSE, PARAGRAPH_PAUSE, split_pauses
from csm_ggml.text.turns import EMPTY, Turn, check_speaker, open_turns

# What may be spoken: a text with or without tags, or turns, in which nothing is a tag.
Text: TypeAlias = str | Turn | Sequence[Turn]

# What `normalize=` takes.
LANGUAGES = ("en",)
NO_WORDS = "nothing to say: the text has no letter or digit"


# Where the characters that stand for kept words begin: Unicode leaves them to everybody.
_PRIVATE = 0xF0000


@dataclass(frozen=True)
class Passage:
    """A paragraph, or what a turn or a pause leaves of it: words that are said in one go.

    Attributes:
        speaker: Who says it.
        text: In one line, with a letter or digit in it.
        is_paragraph: Whether it begins a paragraph.
        pause: Seconds of silence before it that the text asks for; None where it asks for none.
    """

    speaker: int
    text: str
    is_paragraph: bool
    pause: float | None


def read_text(
    text: Text,
    *,
    speaker: int = 0,
    tags: bool | None = None,
    speakers: Collection[int] = (),
    normalize: str | None = None,
    lexicon: LexiconLike | None = None,
    kept: Collection[str] = (),
) -> list[Turn]:
    """Read what is to be said.

    A blank line, a heading and a pause part what a speaker says into turns with silence between.
    What has no letter or digit is left out, with a warning and a pause in its place.

    Args:
        text: A text, with speaker tags or without; or turns.
        speaker: Who says what stands before the first tag.
        tags: Whether bracketed numbers are tags; None: where they look like it
            (`csm_ggml.text.tags.find_tags`).
        speakers: Numbers that are known to be speakers, of voices or a context.
        normalize: "en": what is written in figures and signs becomes English words
            (`csm_ggml.text.english`). None: it stays as it is.
        lexicon: Respellings of words (`csm_ggml.text.lexicon.Lexicon`), its file or a mapping; done
            before the text is normalized.
        kept: What stays as it is, such as tokens that a fine-tune added (`<laugh>`).

    Returns:
        At least one turn, each with words to say.

    Raises:
        TypeError: If text is neither.
        ValueError: If there is nothing to say, a tag or a pause is not right, or an option is not.
    """
    turns: list[Turn] = []
    for passage in read_passages(
        text,
        speaker=speaker,
        tags=tags,
        speakers=speakers,
        normalize=normalize,
        lexicon=lexicon,
        kept=kept,
    ):
        usual = PARAGRAPH_PAUSE if turns and passage.is_paragraph else 0.0
        pause = usual if passage.pause is None else passage.pause
        turns.append(Turn(passage.speaker, passage.text, pause))
    return turns


def read_passages(
    text: Text,
    *,
    speaker: int = 0,
    tags: bool | None = None,
    speakers: Collection[int] = (),
    normalize: str | None = None,
    lexicon: LexiconLike | None = None,
    kept: Collection[str] = (),
) -> list[Passage]:
    """Read what is to be said, in paragraphs; arguments and errors as of `read_text`."""
    silent: list[str] = []
    passages: list[Passage] = []
    # What was left out leaves its pause and the end of its paragraph.
    pause: float | None = None
    is_paragraph = True
    take_apart = _reader(normalize, as_lexicon(lexicon))
    if kept and (normalize is not None or lexicon is not None):
        take_apart = _keeping(kept, take_apart)
    for passage in _passages(_turns(text, check_speaker(speaker), tags, speakers), take_apart):
        is_paragraph = is_paragraph or passage.is_paragraph
        if passage.pause is not None:
            pause = min(LONGEST_PAUSE, (pause or 0.0) + passage.pause)
        if has_sound(passage.text):
            passages.append(replace(passage, is_paragraph=is_paragraph, pause=pause))
            pause, is_paragraph = None, False
        elif passage.text:
            silent.append(passage.text)
            is_paragraph = True
    if not passages:
        raise ValueError(f"{NO_WORDS}: {_shorten(silent[0])}" if silent else EMPTY)
    if silent:
        few = ", ".join(map(_shorten, silent[:3])) + (", ..." if len(silent) > 3 else "")
        warnings.warn(f"left out, with a pause, what has no letter or digit: {few}", stacklevel=3)
    return passages


def _reader(normalize: str | None, lexicon: Lexicon | None) -> Callable[[str], list[Paragraph]]:
    """What takes a part of a text apart, with what is done to its words."""
    if normalize not in (None, *LANGUAGES):
        expected = ", ".join(map(repr, LANGUAGES))
        raise ValueError(f"normalize must be {expected} or None, got {normalize!r}")
    if normalize is None:
        read = paragraphs
    else:
        from csm_ggml.text.english import spoken_paragraphs as read
    return read if lexicon is None else lambda text: read(lexicon.apply(text))


def _keeping(
    kept: Collection[str], read: Callable[[str], list[Paragraph]]
) -> Callable[[str], list[Paragraph]]:
    """The same reader, which some words pass as single characters of no meaning."""
    longest_first = sorted(kept, key=len, reverse=True)
    stands_for = {chr(_PRIVATE + n): word for n, word in enumerate(longest_first)}

    def restored(paragraph: Paragraph) -> Paragraph:
        text = "".join(stands_for.get(character, character) for character in paragraph.text)
        return replace(paragraph, text=text)

    def take_apart(text: str) -> list[Paragraph]:
        for character, word in stands_for.items():
            text = text.replace(word, character)
        return [restored(paragraph) for paragraph in read(text)]

    return take_apart


def _passages(
    turns: Iterable[tuple[int, str, float | None]], take_apart: Callable[[str], list[Paragraph]]
) -> Iterator[Passage]:
    """As `read_passages`, but also those without words; their text may be empty."""
    is_paragraph = False
    for number, said, pause in turns:
        for length, part in split_pauses(said):
            if length is not None:
                pause = (pause or 0.0) + length
            for paragraph in take_apart(part) or [Paragraph("")]:
                yield Passage(number, paragraph.text, is_paragraph, pause)
                is_paragraph, pause = True, None
            is_paragraph = ends_paragraph(part)


def _turns(
    text: Text, speaker: int, tags: bool | None, speakers: Collection[int]
) -> list[tuple[int, str, float | None]]:
    """Speaker, text with its lines, and seconds of silence before it."""
    if isinstance(text, str):
        opened = open_turns(clean(text), speaker=speaker, tags=tags, speakers=speakers)
        return [(number, said, None) for number, said in opened]
    turns = [text] if isinstance(text, Turn) else text
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Turn) for turn in turns):
        raise TypeError(f"text must be a str, a Turn or a list of Turn, got {_kind(turns)}")
    return [(check_speaker(t.speaker), clean(t.text), _pause(t.pause)) for t in turns]


def _pause(seconds: float) -> float | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a turn's pause must be a number of seconds, got {seconds!r}")
    if not 0 <= seconds <= LONGEST_PAUSE:
        raise ValueError(f"a turn's pause must be 0 to {LONGEST_PAUSE:g} seconds, got {seconds}")
    return float(seconds) or None


def _kind(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "a list with " + next(type(v).__name__ for v in value if not isinstance(v, Turn))
    return type(value).__name__


def _shorten(words: str) -> str:
    return repr(words if len(words) <= 20 else words[:17] + "...")
