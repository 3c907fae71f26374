"""What the decoder should say: its own voice, without the click and without the overdrive.

The codebooks live in a PCA of log-mel patches, so a linear map gives back the log-mel that codes
ask for (R2 0.97 on this decoder's own voice). Where the decoder overdrives, it is up to e^5 above
that in the upper bands, pulses of a few samples: there each band is turned down to what was asked.
What is still too loud then is turned down as a whole, smoothly.
"""

from __future__ import annotations

import numpy as np

from features import COLUMNS, FFT, FRAME, HOP, MELS, log_mel, mel_filters, patches

LOUD = 0.8  # a frame with such a sample is looked at
CEILING = 0.88  # of the targets; the decoder learned from them stays below 1
FADE = 48  # samples of a cold start that are the click


def filtered(wave: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The wave with the gains [columns, FFT / 2 + 1] of each window, by overlapping sines."""
    window = np.sin(np.pi * (np.arange(FFT) + 0.5) / FFT).astype(np.float32)
    padded = np.pad(wave, FFT)
    out, weight = np.zeros_like(padded), np.full_like(padded, 1e-9)
    for column in range(-1, len(gains) + 2):
        at = FFT + column * HOP + HOP // 2 - FFT // 2
        gain = gains[min(max(column, 0), len(gains) - 1)]
        part = np.fft.irfft(np.fft.rfft(padded[at : at + FFT] * window) * gain)
        out[at : at + FFT] += part.astype(np.float32) * window
        weight[at : at + FFT] += window**2
    return (out / weight)[FFT:-FFT]


def turned_down(wave: np.ndarray, ceiling: float) -> np.ndarray:
    """The wave with a smooth gain over some 10 ms that keeps it below the ceiling."""
    if np.abs(wave).max() <= ceiling:
        return wave
    reach = 120
    gain = np.minimum(1.0, ceiling / np.maximum(np.abs(wave), 1e-9))
    padded = np.pad(gain, 2 * reach, mode="edge")
    least = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).min(1)
    bell = np.hanning(2 * reach + 3)[1:-1]
    return (wave * np.convolve(least, bell / bell.sum(), mode="valid")).astype(np.float32)


class Asked:
    """The log-mel that codes ask for, fitted on the decoder's own voice where it is not loud."""

    def __init__(self, books: np.ndarray) -> None:
        self.books = books
        # How much of each band a bin has; outside of all bands, the nearest one.
        filters = mel_filters()
        inside = np.flatnonzero(filters.sum(0))
        nearest = np.clip(np.arange(filters.shape[1]), inside[0], inside[-1])
        self.shares = (filters / np.maximum(filters.sum(0), 1e-9))[:, nearest]
        self.map = np.zeros((books.shape[-1] + 1, COLUMNS * MELS))

    def vectors(self, codes: np.ndarray) -> np.ndarray:
        """[frames, width + 1], the last a constant."""
        total = sum(book[codes[:, i]] for i, book in enumerate(self.books))
        return np.pad(total, ((0, 0), (0, 1)), constant_values=1.0)

    def fit(self, codes: list[np.ndarray], waves: list[np.ndarray]) -> float:
        """Learns the map; returns R2 on the last fifth."""
        given = np.concatenate([self.vectors(c) for c in codes])
        mels = np.concatenate([patches(log_mel(w)) for w in waves])
        cut = len(given) * 4 // 5
        self.map = np.linalg.lstsq(given[:cut], mels[:cut], rcond=None)[0]
        rest = mels[cut:] - given[cut:] @ self.map
        return float(1 - rest.var() / mels[cut:].var())

    def wanted(self, codes: np.ndarray) -> np.ndarray:
        """Log-mel [columns, MELS] of the codes."""
        return (self.vectors(codes) @ self.map).reshape(-1, MELS)


def target(codes: np.ndarray, wave: np.ndarray, warm: np.ndarray, asked: Asked) -> np.ndarray:
    """What should be said for the codes.

    Args:
        codes: [frames, 8].
        wave: What the decoder says from a cold start.
        warm: The same after quiet frames, which are cut off; only its first samples are taken.
        asked: The log-mel of codes.
    """
    fade = np.clip(np.arange(2 * FADE) / FADE - 1.0, 0.0, 1.0)
    wave = wave.copy()
    wave[: 2 * FADE] = fade * wave[: 2 * FADE] + (1 - fade) * warm[: 2 * FADE]
    loud = np.abs(wave).reshape(-1, FRAME).max(1) > LOUD
    if loud.any():
        loud = np.convolve(loud, np.ones(3), mode="same") > 0
        excess = np.maximum(0.0, log_mel(wave) - asked.wanted(codes))
        gains = np.exp(-(excess @ asked.shares))
        gains[~np.repeat(loud, COLUMNS)] = 1.0
        wave = filtered(wave, gains)
    return turned_down(wave, CEILING)
