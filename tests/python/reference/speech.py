"""What people encode: a voice made by rule, and recordings, where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .draws import centred

FOLDER_VARIABLE = "CSM_GGML_TEST_SPEECH"
# Read sentences and spoken names of cards, in the public domain.
DEBIAN_PACKAGE = "pocketsphinx-testdata"
DEBIAN_FOLDER = Path("/usr/share/pocketsphinx/test/data")

# Centre frequencies of the first three formants in Hz; how loud each is.
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
_LOUDNESS = (1.0, 0.6, 0.3)
_WIDTHS = (80.0, 100.0, 140.0)
_SYLLABLE_SECONDS = 0.25
_BURST_SECONDS = 0.06
# Of five syllables the last is silence.
_PHRASE = 5


def synthetic_voice(rate: int, seconds: float) -> NDArray[np.float32]:
    """Vowels on a gliding pitch with vibrato, each after a burst of noise; pauses between phrases.

    Args:
        rate: Samples per second.
        seconds: Duration.

    Returns:
        float32 (rate * seconds,), the same for the same arguments but for the rounding of the
        machine's sine.
    """
    time = np.arange(round(rate * seconds)) / rate
    syllable = (time / _SYLLABLE_SECONDS).astype(int)
    within = time - syllable * _SYLLABLE_SECONDS
    pitch = 115 * (1 + 0.15 * np.sin(2 * np.pi * 0.4 * time))
    pitch *= 1 + 0.02 * np.sin(2 * np.pi * 5.5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = np.array(_VOWELS, np.float64)[syllable % len(_VOWELS)]

    voiced = np.zeros_like(time)
    for harmonic in range(1, 41):
        frequency = harmonic * pitch
        gain = sum(
            loud / (1 + ((frequency - formants[:, n]) / width) ** 2)
            for n, (loud, width) in enumerate(zip(_LOUDNESS, _WIDTHS, strict=True))
        )
        voiced += gain * np.sin(harmonic * phase) * (frequency < rate / 2)
    noise = np.diff(centred(0, "bursts", (len(time) + 1,)))

    speaking = syllable % _PHRASE < _PHRASE - 1
    burst = within < _BURST_SECONDS
    swell = np.sin(np.pi * within / _SYLLABLE_SECONDS)
    sound = np.where(burst, 0.05 * noise, 0.25 * swell * voiced) * speaking
    return np.asarray(sound, np.float32)


def recordings() -> list[Path]:
    """Recordings of speech on this machine, in any format that `load_audio` reads.

    They are looked for in the folder that CSM_GGML_TEST_SPEECH names, else where the Debian package
    pocketsphinx-testdata has them.

    Raises:
        AssertionError: The variable names a folder without recordings.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else DEBIAN_FOLDER
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".wav", ".flac", ".ogg"))
    if named and not found:
        raise AssertionError(f"{FOLDER_VARIABLE}={named}: expected .wav, .flac or .ogg files there")
    return found
