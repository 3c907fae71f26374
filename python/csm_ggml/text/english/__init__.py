"""English as it is written, in words as they are spoken: `normalize="en"`.

A model of speech has read aloud far more words than signs: it says "five dollars" right and guesses
at "$5". What is here is a list of rules in a fixed order, from the most specific to the plainest;
what no rule knows stays as it is. A text that is in words already is not changed, so doing it twice
is doing it once.
"""

from __future__ import annotations

from csm_ggml.text.characters import clean
from csm_ggml.text.english.addresses import say_addresses
from csm_ggml.text.english.calendar import say_dates, say_times
from csm_ggml.text.english.markup import plain
from csm_ggml.text.english.quantities import say_amounts, say_numbers, spell_long_rows
from csm_ggml.text.english.words import say_headings, say_signs, say_words
from csm_ggml.text.paragraphs import Paragraph, paragraphs
from csm_ggml.text.sentences import split_sentences


def spoken_paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs of a text in words.

    Args:
        text: Clean text (`csm_ggml.text.characters.clean`), with its lines.
    """
    return [
        Paragraph(_spoken(paragraph.text, paragraph.is_heading), paragraph.is_heading)
        for paragraph in paragraphs(plain(text))
    ]


def normalize(text: str) -> str:
    """A text in words, its paragraphs parted by blank lines."""
    return "\n\n".join(paragraph.text for paragraph in spoken_paragraphs(clean(text)))


def _spoken(line: str, is_heading: bool) -> str:
    line = say_headings(say_addresses(line), is_heading=is_heading)
    parts = []
    at = 0
    for sentence in split_sentences(line):
        start = line.index(sentence, at)
        parts += [line[at:start], _sentence(sentence)]
        at = start + len(sentence)
    return "".join(parts)


def _sentence(text: str) -> str:
    said = say_words(spell_long_rows(text))
    said = say_signs(say_numbers(say_amounts(say_times(say_dates(said)))))
    said = " ".join(said.split())
    first = next((c for c in text if c.isalnum()), "")
    if not first.isalpha():
        # A number that begins the sentence has become a word.
        at = next((i for i, c in enumerate(said) if c.isalnum()), None)
        if at is not None:
            said = said[:at] + said[at].upper() + said[at + 1 :]
    return said
