"""A long text in pieces: what is spoken in one go, and the silence before it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from csm_ggml.text.lexicon import LexiconLike
from csm_ggml.text.reading import Text, read_passages
from csm_ggml.text.sentences import ends_with_mark, group, split_sentences
from csm_ggml.text.turns import Turn

# Of fewer characters than this alone the model makes noise as often as words.
SHORTEST_PIECE = 10


@dataclass(frozen=True)
class Piece:
    """What is spoken in one go.

    Attributes:
        turn: Who says what; its own `pause` is 0.
        paragraph: Whether it begins a paragraph.
        pause: Seconds of silence before it that the text asks for, in place of those of
            `LongForm`; None where it asks for none.
    """

    turn: Turn
    paragraph: bool
    pause: float | None = None


def split_pieces(
    text: Text,
    *,
    speaker: int,
    characters: int,
    tags: bool | None = None,
    speakers: Collection[int] = (),
    normalize: str | None = None,
    lexicon: LexiconLike | None = None,
    kept: Collection[str] = (),
) -> list[Piece]:
    """Take a long text apart.

    Blank lines and headings part paragraphs, other line breaks count as spaces. Speaker tags open a
    turn, which lasts until the next one. Pieces are whole sentences as far as they fit. What has no
    letter or digit, such as `* * *`, is left out with a warning. A piece of fewer than 10
    characters goes with a neighbour of the same speaker.

    Args:
        text: As in `csm_ggml.text.reading.read_text`.
        speaker: Who says what stands before the first tag.
        characters: A piece has at most so many.
        tags: As in `read_text`.
        speakers: As in `read_text`.
        normalize: As in `read_text`.
        lexicon: As in `read_text`.
        kept: As in `read_text`.

    Raises:
        As `read_text`.
    """
    pieces = []
    for passage in read_passages(
        text,
        speaker=speaker,
        tags=tags,
        speakers=speakers,
        normalize=normalize,
        lexicon=lexicon,
        kept=kept,
    ):
        paragraph, pause = passage.is_paragraph, passage.pause
        for words in group(split_sentences(passage.text), characters):
            pieces.append(Piece(Turn(passage.speaker, words), paragraph, pause))
            paragraph, pause = False, None
    return _glue(pieces, characters)


def _glue(pieces: list[Piece], characters: int) -> list[Piece]:
    """Put very short pieces before their followers; the last of a speaker after the one before."""
    glued: list[Piece] = []
    for piece in pieces:
        if glued and (both := _joined(glued[-1], piece, characters, _is_short(glued[-1]))):
            glued[-1] = both
        else:
            glued.append(piece)
    result: list[Piece] = []
    for piece in glued:
        if result and (both := _joined(result[-1], piece, characters, _is_short(piece))):
            result[-1] = both
        else:
            result.append(piece)
    return result


def _is_short(piece: Piece) -> bool:
    return len(piece.turn.text) < SHORTEST_PIECE


def _joined(first: Piece, second: Piece, characters: int, wanted: bool) -> Piece | None:
    if not wanted or first.turn.speaker != second.turn.speaker or second.pause is not None:
        return None
    # A heading that is not ended by a mark would run into what follows.
    mark = "" if not second.paragraph or ends_with_mark(first.turn.text) else "."
    words = f"{first.turn.text}{mark} {second.turn.text}"
    if len(words) > characters:
        return None
    return replace(first, turn=Turn(first.turn.speaker, words))
