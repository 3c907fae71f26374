"""A long text in pieces: what is spoken in one go, and where paragraphs begin."""

from __future__ import annotations

import re
from dataclasses import dataclass

from csm_ggml.text.sentences import group, split_sentences
from csm_ggml.text.turns import Turn, normalize, parse_turns

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Piece:
    """What is spoken in one go.

    Attributes:
        turn: Who says what.
        paragraph: Whether it begins a paragraph.
    """

    turn: Turn
    paragraph: bool


def split_pieces(text: str, *, speaker: int, characters: int) -> list[Piece]:
    """Take a long text apart.

    Blank lines separate paragraphs, other line breaks count as spaces. Speaker tags open a turn,
    which lasts until the next one. Pieces without a letter or digit are left out: "* * *".

    Raises:
        ValueError: As `parse_turns`.
    """
    pieces = []
    for paragraph in _PARAGRAPH.split(text):
        if not normalize(paragraph):
            continue
        first = True
        for turn in parse_turns(paragraph, speaker=speaker):
            speaker = turn.speaker
            for words in group(split_sentences(turn.text), characters):
                if any(c.isalnum() for c in words):
                    pieces.append(Piece(Turn(speaker, words), first))
                    first = False
    if not pieces:
        raise ValueError("nothing to say: the text is empty")
    return pieces
