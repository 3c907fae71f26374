"""The speakers of the corpus: one teacher, its pitch, vocal tract and colour changed.

The HTS engine speaks the same labels with another pitch (`half_tones`), another vocal tract (the
all-pass constant `warp`: 0.45 is the teacher's own, more is a longer tract), a livelier or flatter
melody and a sharper or softer spectrum; a smooth filter gives a colour of its own. Every speaker
says a text with the same timing, so a frame of one is the same sound as that frame of another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WOMAN, MAN = 0, 1
TRAINED = 50  # speakers 0..49 are trained on
HELD_OUT = 8  # speakers 50..57 are never trained on
FULL_CAST = 1_200  # texts that several speakers say; the later ones are for reading alone
OWN_WARP = 0.45
COLOUR_POINTS = 6


@dataclass(frozen=True)
class Speaker:
    """What the teacher's labels are spoken with; `colour` is in dB at points even in mel."""

    half_tones: float = 0.0
    warp: float = OWN_WARP
    melody: float = 1.0
    sharpness: float = 0.0
    colour: tuple[float, ...] = (0.0,) * COLOUR_POINTS

    def options(self) -> list[str]:
        """Of the command `hts_engine`."""
        values = {
            "-fm": self.half_tones,
            "-a": self.warp,
            "-jf": self.melody,
            "-b": self.sharpness,
        }
        return [word for name, value in values.items() for word in (name, f"{value:.4f}")]

    def paint(self, wave: np.ndarray, rate: int) -> np.ndarray:
        """The colour, by a filter without delay."""
        if not any(self.colour):
            return wave
        mels = 2595.0 * np.log10(1.0 + np.fft.rfftfreq(len(wave), 1.0 / rate) / 700.0)
        points = np.linspace(0.0, 2595.0 * np.log10(1.0 + 11_000 / 700.0), COLOUR_POINTS)
        gain = 10.0 ** (np.interp(mels, points, self.colour) / 20.0)
        return np.fft.irfft(np.fft.rfft(wave) * gain, len(wave)).astype(np.float32)


def speaker(number: int) -> Speaker:
    """Speaker `number`; always the same one.

    A low voice mostly has a long tract, so pitch draws the tract along, loosely.
    """
    if number == WOMAN:
        return Speaker()
    if number == MAN:
        return Speaker(half_tones=-10.0, warp=0.51, melody=1.15)
    rng = np.random.default_rng([7, number])
    pitch = rng.uniform(-13.0, 4.0)
    warp = float(np.clip(0.455 - 0.0055 * pitch + rng.normal(0.0, 0.03), 0.38, 0.55))
    colour = rng.normal(0.0, 3.0, COLOUR_POINTS)
    colour[0] = 0.0
    return Speaker(
        half_tones=float(pitch),
        warp=warp,
        melody=float(rng.uniform(0.7, 1.5)),
        sharpness=float(rng.uniform(0.0, 0.25)),
        colour=tuple(float(c) for c in colour),
    )


def cast(text_number: int) -> list[int]:
    """Who says a text of the corpus: the woman, a guest, and the man or a second guest.

    Codebook 0 is the woman's whoever speaks, so the texts after `FULL_CAST` need her alone: that
    is a sixth of the time.
    """
    if text_number >= FULL_CAST:
        return [WOMAN]
    rng = np.random.default_rng([11, text_number])
    guests = [int(g) for g in rng.choice(np.arange(2, TRAINED), 2, replace=False)]
    return [WOMAN, guests[0], MAN if rng.random() < 0.6 else guests[1]]
