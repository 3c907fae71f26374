"""The voice in the package: what it says is speech, ends by itself, and can be understood."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from csm_ggml import CSM, Audio
from csm_ggml.loading import hub
from csm_ggml.text.english import normalize

ROOT = Path(__file__).parents[2]
SEED = 7
SENTENCES = (
    "Hello, it is nice to meet you.",
    "The sun comes up early in the summer.",
    "He put the book back on the shelf.",
    "We can take the bus to the station.",
    "My brother has a dog and three cats.",
)
# What overdrove most, and what people type first.
SHORT = (
    "Hello.",
    "How are you?",
    "How old are you?",
    "Hello, how are you?",
    "Oh, how are you?",
    "How is your mother?",
    "Are you hungry?",
    "Who are you?",
    "Good evening, how can I help you?",
)
# Two words of 39 are misheard with these seeds. Another processor's rounding says other codes, and
# of other seeds one word in fifty is wrong: ten points of room.
MAX_WER = 0.15


@pytest.fixture(scope="module")
def spoken() -> list[Audio]:
    csm = CSM.from_pretrained("demo", device="cpu")
    return [csm.generate(f"[0]{text}", seed=SEED) for text in SENTENCES]


def test_it_is_in_the_package() -> None:
    files = hub.resolve("demo")
    assert [path.name for path in files.paths] == ["demo.gguf"]
    assert files.paths[0].stat().st_size <= 30e6


def test_duration_level_and_end(spoken: list[Audio]) -> None:
    for text, audio in zip(SENTENCES, spoken, strict=True):
        assert audio.finish_reason == "eos", text
        # The teacher says 13 to 18 characters a second, with short silences around.
        assert len(text) / 25 < audio.duration < len(text) / 8 + 1, (text, audio.duration)
        level = 20 * np.log10(np.sqrt(np.mean(np.square(audio.samples))))
        assert -35 < level < -12, (text, level)
        assert np.abs(audio.samples).max() < 1, text


@pytest.fixture(scope="module")
def waves(spoken: list[Audio]) -> dict[str, np.ndarray]:
    """Texts and what is said for them, three seeds of the short ones."""
    csm = CSM.from_pretrained("demo", device="cpu")
    said = {
        f"{text} {seed}": csm.generate(f"[{seed % 2}]{text}", seed=seed).samples
        for text in SHORT
        for seed in (1, 2, 3)
    }
    return said | {text: audio.samples for text, audio in zip(SENTENCES, spoken, strict=True)}


def test_it_begins_without_a_click(waves: dict[str, np.ndarray]) -> None:
    """The decoder starts from nothing, which it must have learned: 0.004 of full scale, not 0.3."""
    clicks = {text: float(np.abs(wave[:120]).max()) for text, wave in waves.items()}
    assert max(clicks.values()) < 0.02, clicks


def test_it_does_not_overdrive(waves: dict[str, np.ndarray]) -> None:
    peaks = {text: float(np.abs(wave).max()) for text, wave in waves.items()}
    assert max(peaks.values()) <= 1, peaks


def test_long_texts_come_in_pieces_that_suit_it() -> None:
    """Sentences of a dozen words were learned: of pieces of 200 characters it loses most words."""
    csm = CSM.from_pretrained("demo", device="cpu")
    assert csm.config["csm.generation.piece_characters"] == 100
    sentence = "We can take the bus to the station, and then we walk home."
    audio = csm.generate(" ".join([sentence] * 4), seed=SEED, long_form="batch")
    assert [turn.text for turn in audio.turns] == [sentence] * 4


def test_the_same_seed_says_the_same(spoken: list[Audio]) -> None:
    csm = CSM.from_pretrained("demo", device="cpu", threads=1)
    batch = csm.generate_batch([f"[0]{text}" for text in SENTENCES], seed=[SEED] * len(SENTENCES))
    for alone, beside in zip(spoken, batch, strict=True):
        assert np.array_equal(alone.codes, beside.codes)


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools" / "demo_voice"))
    try:
        return importlib.import_module("judge")
    finally:
        sys.path.pop(0)


@pytest.mark.whisper
def test_it_is_understood(spoken: list[Audio], judge: ModuleType) -> None:
    ears, score = judge.Judge(), judge.Score()
    heard = [ears.hear(audio.samples, audio.sample_rate) for audio in spoken]
    for text, got in zip(SENTENCES, heard, strict=True):
        score.add(text, got)
    assert score.word_errors <= MAX_WER * score.words, f"{score}: {heard}"


@pytest.mark.whisper
def test_figures_are_understood_in_words(judge: ModuleType) -> None:
    """With `normalize="en"`; what was written and what was heard are brought to words alike."""
    kinds = ("number", "ordinal", "date", "time", "money", "unit", "fraction", "math", "roman")
    lines = (ROOT / "tests/python/spoken_english.tsv").read_text("utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    texts = [written for kind, written, _ in rows if kind in kinds][::6]
    csm = CSM.from_pretrained("demo", device="cpu")
    ears = judge.Judge()
    rates = []
    for how in (None, "en"):
        score = judge.Score()
        for text in texts:
            audio = csm.generate(text, seed=SEED, normalize=how, tags=False)
            heard = ears.hear(audio.samples, audio.sample_rate)
            score.add(normalize(text).replace("-", " "), normalize(heard).replace("-", " "))
        rates.append(score.word_errors / score.words)
    # Of all such sentences 57 % of the words are misheard without, 17 % with.
    assert rates[1] < rates[0] / 2, rates
    assert rates[1] < 0.3, rates
