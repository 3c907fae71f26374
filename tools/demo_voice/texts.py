"""What the teacher reads: the sources of text, filtered, mixed and split.

Four sources, all free to use: WordNet's example phrases, sentence templates filled with everyday
words (templates.py) or with WordNet's commonest words, short sentences of Jane Austen (public
domain) and a few drill lists. Every source is optional except the templates, so a machine without
the packages still works.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from phrases import HELD_OUT, SHORT, greeting_texts
from sentences import FINAL, TUNING
from templates import PATTERNS, fill

WORDNET = Path("/usr/share/wordnet")
AUSTEN = Path("/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
PLAIN = re.compile(r"[A-Za-z0-9 ,.'?!;:-]+")
VOWELS = "aeiou"


def wordnet_examples() -> Iterator[str]:
    """The quoted usage examples in WordNet's data files, as written sentences."""
    for part in ("noun", "verb", "adj", "adv"):
        path = WORDNET / f"data.{part}"
        if not path.exists():
            return
        for line in path.read_text(encoding="latin-1").splitlines():
            if " | " not in line:
                continue
            for phrase in re.findall(r'"([^"]+)"', line.split(" | ", 1)[1]):
                words = phrase.split()
                if 3 <= len(words) <= 14 and PLAIN.fullmatch(phrase) and phrase[-1] not in ",;:-":
                    yield phrase if phrase[-1] in ".?!" else phrase + "."


def unread_examples(count: int) -> list[str]:
    """WordNet's phrases at the far end of the order that `build_texts` takes them in."""
    wordnet = list(wordnet_examples())
    random.Random(1).shuffle(wordnet)
    return [text[0].upper() + text[1:] for text in wordnet[-count:]]


def austen_books() -> list[str]:
    """The running text of the six novels packed in R's janeaustenr; none without the package."""
    if not AUSTEN.exists():
        return []
    blob = AUSTEN.read_bytes()
    at, books = 0, []
    while (at := blob.find(b"\x78", at)) >= 0:
        try:
            raw = zlib.decompressobj().decompress(blob[at:])
        except zlib.error:
            at += 1
            continue
        at += 1
        if len(raw) < 100_000:
            continue
        lines = re.findall(rb"\x00\x04\x00\x09....([\x20-\x7e]*)", raw, flags=re.S)
        text = " ".join(line.decode() for line in lines)
        text = text.replace("--", ", ").replace("_", "").replace('"', "")
        books.append(re.sub(r"\s+", " ", text).replace(" ,", ","))
    return books


def austen_sentences() -> Iterator[str]:
    """Sentences of 4 to 25 words."""
    for text in austen_books():
        for sentence in re.split(r"(?<=[.?!]) (?=[A-Z])", text):
            sized = 4 <= len(sentence.split()) <= 25 and PLAIN.fullmatch(sentence)
            whole = sentence[:1].isupper() and sentence[-1] in ".?!"
            if sized and whole and not re.search(r"Mrs?\.", sentence):
                yield sentence


def common_words() -> dict[str, list[tuple[str, int]]]:
    """Lemmas and counts of WordNet's sense-tagged texts, by part of speech, commonest first."""
    path = WORDNET / "cntlist.rev"
    counts: dict[str, dict[str, int]] = {"n": {}, "v": {}, "a": {}, "r": {}}
    if path.exists():
        for line in path.read_text(encoding="latin-1").splitlines():
            key, _, count = line.split()
            lemma, _, rest = key.partition("%")
            table = counts[{"1": "n", "2": "v", "3": "a", "5": "a", "4": "r"}[rest[0]]]
            if lemma.isalpha() and len(lemma) > 2:
                table[lemma] = table.get(lemma, 0) + int(count)
    return {pos: sorted(t.items(), key=lambda kv: -kv[1]) for pos, t in counts.items()}


def exceptions(part: str) -> dict[str, list[str]]:
    """Irregular forms: base -> inflected forms."""
    table: dict[str, list[str]] = {}
    path = WORDNET / f"{part}.exc"
    if path.exists():
        for line in path.read_text().splitlines():
            form, base = line.split()[:2]
            table.setdefault(base, []).append(form)
    return table


def suffixed(word: str, suffix: str) -> str:
    """Regular English spelling of word + s, ed or ing."""
    if suffix == "s":
        if word.endswith(("s", "x", "z", "ch", "sh")):
            return word + "es"
        return word[:-1] + "ies" if word[-1] == "y" and word[-2] not in VOWELS else word + "s"
    if word.endswith("e") and not word.endswith(("ee", "oe", "ye")):
        return word[:-1] + suffix
    if suffix == "ed" and word[-1] == "y" and word[-2] not in VOWELS:
        return word[:-1] + "ied"
    short = len(word) <= 4 and word[-1] in "bdgmnprt" and word[-2] in VOWELS
    return word + word[-1] + suffix if short and word[-3] not in VOWELS else word + suffix


FRAMES = """
The {n} {v}ed the {a} {n}.|The {a} {n} {v}s {r}.|A {n} of {n}s was {a}.
{n}s and {n}s {r} {v} the {n}.
He {v}ed the {n} with a {a} {n}.|She was {v}ing a {n} for the {n}.|They {v}ed {r} about the {n}s.
We {v} {n}s and {v} {a} {n}s.|Is the {n} {a} or {a}?|Why does the {n} {v} a {n}?
It was a {a} {n} in a {a} {n}.|I {r} {v} the {n} of your {n}.|You should {v} the {n} before the {n}.
To {v} a {n} is {a}.|No {n} can {v} without {n}.|The {n}'s {n} was {r} {a}.|{v}ing {n}s is {a} {n}.
When the {n} {v}ed, the {n}s were {a}.|Their {n} was {v}ed by the {a} {n}.
The {n}, the {n} and the {n}.
"""


class WordSentences:
    """Sentences of sound grammar and little sense that cover the common words and forms."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        keep = {"n": 5000, "v": 2500, "a": 2500, "r": 700}
        self.words = {p: [w for w, _ in t[: keep[p]]] for p, t in common_words().items()}
        self.weights = {p: [c**0.3 for _, c in t[: keep[p]]] for p, t in common_words().items()}
        self.past = exceptions("verb")
        self.plural = exceptions("noun")
        self.frames = [f.strip() for f in re.split(r"[|\n]", FRAMES) if f.strip()]

    def sentence(self) -> str:
        def form(match: re.Match[str]) -> str:
            pos, suffix = match.group(1), match.group(2)
            word = self.rng.choices(self.words[pos], self.weights[pos])[0]
            if suffix == "ed":
                known = [f for f in self.past.get(word, []) if not f.endswith("ing")]
                return known[0] if known else suffixed(word, "ed")
            if suffix == "s" and pos == "n" and word in self.plural:
                return self.plural[word][0]
            return suffixed(word, suffix) if suffix else word

        text = re.sub(r"\{(\w)\}(s|ed|ing)?", form, self.rng.choice(self.frames))
        text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
        return text[0].upper() + text[1:]


def drills(rng: random.Random) -> Iterator[str]:
    """Digits, clock times, years and spelled letters."""
    while True:
        kind = rng.randrange(5)
        if kind == 0:
            yield f"It is {rng.randrange(1, 13)}:{rng.randrange(10, 60)}."
        elif kind == 1:
            yield f"The number is {rng.randrange(1, 1000)}."
        elif kind == 2:
            yield f"It happened in {rng.randrange(1800, 2030)}."
        elif kind == 3:
            yield f"We need {rng.randrange(2, 100)} of them, not {rng.randrange(2, 100)}."
        else:
            letters = ", ".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5))
            yield f"The letters are {letters}."


def build_texts(total: int, seed: int) -> list[str]:
    """`total` distinct texts in random order; the templates fill what the other shares leave."""
    rng = random.Random(seed)
    wordnet, austen = list(wordnet_examples()), list(austen_sentences())
    rng.shuffle(wordnet)
    rng.shuffle(austen)
    words = WordSentences(rng)
    drill = drills(rng)
    shares = {"wordnet": 0.38, "austen": 0.14, "words": 0.15, "drill": 0.03}
    texts = wordnet[: int(total * shares["wordnet"])] + austen[: int(total * shares["austen"])]
    if words.words["n"]:
        texts += [words.sentence() for _ in range(int(total * shares["words"]))]
    texts += [next(drill) for _ in range(int(total * shares["drill"]))]
    texts += SHORT + greeting_texts(seed)[: int(total * 0.03)]
    while len(texts) < total:
        texts.append(fill(rng.choice(PATTERNS), rng))
    never = {*FINAL, *TUNING, *HELD_OUT}
    texts = [t for t in dict.fromkeys(texts) if t not in never]
    rng.shuffle(texts)
    return [t[0].upper() + t[1:] if rng.random() < 0.8 else t for t in texts]
