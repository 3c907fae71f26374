"""How names and terms are pronounced: words, and other spellings that the model reads right.

An entry in small letters is meant in any case; one with a capital in it as it is written, or in
capitals throughout: `polish` and `Polish` are two words. Plurals follow the singular.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from csm_ggml.inputs import read_whole
from csm_ggml.text.inflection import plural
from csm_ggml.text.scripts import decode_text

_TOKEN = re.compile(r"\w+|[^\w\s]")
_ARROW = re.compile(r"\s*(?:->|\u2192|\t)\s*")
_APOSTROPHES = "'\u2019"


@dataclass(frozen=True)
class _Entry:
    pattern: re.Pattern[str]
    respelling: str
    in_any_case: bool


class Lexicon:
    """Words and how they are to be spelled for the model."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """Take the entries.

        Args:
            entries: Word or words -> respelling.

        Raises:
            TypeError: If one is no text.
            ValueError: If a word or a respelling is empty.
        """
        forms: dict[str, str] = {}
        for word, respelling in entries.items():
            if not isinstance(word, str) or not isinstance(respelling, str):
                raise TypeError(f"a lexicon maps str to str, got {word!r}: {respelling!r}")
            if not (word := " ".join(word.split())) or not respelling.strip():
                raise ValueError(
                    f"a lexicon has a word and a respelling, got {word!r}: {respelling!r}"
                )
            forms[word] = " ".join(respelling.split())
        nouns = [(word, plural(said)) for word, said in forms.items() if word[-1].isalpha()]
        # Of acronyms people write the plural with a bare "s", whatever they end with.
        plurals = {many: said for word, said in nouns for many in (f"{word}s", plural(word))}
        forms = plurals | forms
        # The longest first; of equals what is written with capitals, then what was given as such.
        order = sorted(forms, key=lambda w: (-len(w), w == w.lower(), w not in entries))
        self._entries: dict[str, list[_Entry]] = {}
        for word in order:
            first = _TOKEN.findall(word)[0].lower()
            self._entries.setdefault(first, []).append(_entry(word, forms[word]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lexicon:
        """Read a text file: `word -> respelling` in each line, `#` before remarks.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no text, a line is something else, or a word has two respellings;
                the message names the line.
        """
        entries: dict[str, str] = {}
        text = decode_text(read_whole(path), os.fspath(path))
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            word, *rest = _ARROW.split(line.strip())
            if len(rest) != 1 or not word or not rest[0]:
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: expected 'word -> respelling', "
                    f"got {line.strip()[:60]!r}"
                )
            if entries.setdefault(word, rest[0]) != rest[0]:
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: {word!r} has the respelling "
                    f"{entries[word]!r} already"
                )
        return cls(entries)

    def apply(self, text: str) -> str:
        """The text with its words respelled, each once, the longest entry first."""
        parts = []
        at = 0
        for token in _TOKEN.finditer(text):
            if token.start() < at:
                continue
            for entry in self._entries.get(token[0].lower(), ()):
                if match := entry.pattern.match(text, token.start()):
                    parts += [text[at : match.start()], _cased(entry, match[0])]
                    at = match.end()
                    break
        return "".join([*parts, text[at:]])

    def __repr__(self) -> str:
        """One line for people."""
        return f"Lexicon({sum(map(len, self._entries.values()))} forms)"


# What `lexicon=` takes.
LexiconLike: TypeAlias = Lexicon | Mapping[str, str] | str | os.PathLike[str]


def as_lexicon(value: LexiconLike | None) -> Lexicon | None:
    """The lexicon of a `lexicon` option, read from its file where it names one.

    Raises:
        TypeError: If it is something else.
        ValueError: As `Lexicon`.
    """
    if value is None or isinstance(value, Lexicon):
        return value
    if isinstance(value, Mapping):
        return Lexicon(value)
    if isinstance(value, str | os.PathLike):
        return Lexicon.load(value)
    raise TypeError(f"lexicon must be a Lexicon, its file or a mapping, got {type(value).__name__}")


def _entry(word: str, respelling: str) -> _Entry:
    in_any_case = word == word.lower()
    pattern = _pattern(word)
    if not in_any_case and word != word.upper():
        pattern = f"(?:{pattern}|{_pattern(word.upper())})"
    if re.match(r"\w", word[-1]):
        pattern += r"(?!\w)"
    return _Entry(re.compile(pattern, re.IGNORECASE if in_any_case else 0), respelling, in_any_case)


def _pattern(word: str) -> str:
    letters = (f"[{_APOSTROPHES}]" if c in _APOSTROPHES else re.escape(c) for c in word)
    return "".join(letters).replace(r"\ ", r"\s+")


def _cased(entry: _Entry, found: str) -> str:
    """The respelling, with a capital where the word has one that the entry does not ask for."""
    if entry.in_any_case and found[0].isupper() and found[1:] == found[1:].lower():
        return entry.respelling[0].upper() + entry.respelling[1:]
    return entry.respelling
