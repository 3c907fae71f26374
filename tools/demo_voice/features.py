"""Log-mel patches and the tokens made from them, all in numpy.

A frame of 80 ms is a patch of 8 mel columns; PCA makes it a vector of 96 numbers. Codebook 0 says
what is spoken: it is the nearest mean of the vector that the *woman* would have here, whoever
speaks. A chain of 7 residual k-means on the speaker's own vector (codebooks 1..7) says how it
sounds. Nothing here is learned by gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 24_000
HOP = 240
COLUMNS = 8
FRAME = HOP * COLUMNS
FFT = 1024
WINDOW = 768
MELS = 80
LOW_HZ, HIGH_HZ = 40.0, 11_000.0
FLOOR = 2e-3


def mel_filters() -> np.ndarray:
    """[MELS, FFT / 2 + 1] triangular filters on the HTK mel scale, each of unit sum."""

    def to_mel(hz: np.ndarray | float) -> np.ndarray:
        return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)

    edges = 700.0 * (
        10.0 ** (np.linspace(to_mel(LOW_HZ), to_mel(HIGH_HZ), MELS + 2) / 2595.0) - 1.0
    )
    bins = np.fft.rfftfreq(FFT, 1.0 / RATE)
    rise = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0.0, np.minimum(rise, fall))
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-8)).astype(np.float32)


_FILTERS = mel_filters()
_TAPER = np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def log_mel(wave: np.ndarray) -> np.ndarray:
    """[L] float wave -> [L // HOP, MELS]; column i is centred on sample i * HOP + HOP / 2."""
    columns = len(wave) // HOP
    padded = np.pad(wave, (WINDOW // 2 - HOP // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:columns]
    spectrum = np.abs(np.fft.rfft(frames * _TAPER, FFT, axis=1)).astype(np.float32)
    return np.log(np.maximum(spectrum @ _FILTERS.T, FLOOR))


def patches(mel: np.ndarray) -> np.ndarray:
    """[columns, MELS] -> [columns // 8, 8 * MELS]."""
    count = len(mel) // COLUMNS
    return mel[: count * COLUMNS].reshape(count, COLUMNS * MELS)


def stretch(mel: np.ndarray, speed: float) -> np.ndarray:
    """Reads the mel columns faster (speed > 1) or slower by interpolation; the pitch stays."""
    at = np.arange(0, len(mel) - 1, speed)
    low = at.astype(np.int64)
    part = (at - low)[:, None].astype(np.float32)
    return mel[low] * (1 - part) + mel[low + 1] * part


@dataclass
class Codebooks:
    """PCA and a chain of codebooks: books[0] has means of whole vectors, the rest of residuals."""

    mean: np.ndarray
    basis: np.ndarray
    books: np.ndarray

    def project(self, patch: np.ndarray) -> np.ndarray:
        """[n, 8 * MELS] -> [n, dim]."""
        return (patch - self.mean) @ self.basis

    def restore(self, vectors: np.ndarray) -> np.ndarray:
        """[n, dim] -> mel columns [8 n, MELS]."""
        return (vectors @ np.linalg.pinv(self.basis) + self.mean).reshape(-1, MELS)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """[n, dim] -> codes [n, books]."""
        rest = vectors.astype(np.float32).copy()
        codes = np.empty((len(rest), len(self.books)), np.int16)
        for level, book in enumerate(self.books):
            codes[:, level] = nearest(rest, book)
            rest -= book[codes[:, level]]
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes [n, books] -> [n, dim]."""
        return sum(book[codes[:, i]] for i, book in enumerate(self.books))  # type: ignore[return-value]

    def save(self, path: Path) -> None:
        np.savez(path, mean=self.mean, basis=self.basis, books=self.books)

    @staticmethod
    def load(path: Path) -> Codebooks:
        with np.load(path) as data:
            return Codebooks(data["mean"], data["basis"], data["books"])


def nearest(vectors: np.ndarray, book: np.ndarray) -> np.ndarray:
    """Index of the nearest row of `book` for every vector, in blocks that stay in cache."""
    half = 0.5 * (book**2).sum(1)
    out = np.empty(len(vectors), np.int64)
    for i in range(0, len(vectors), 4096):
        out[i : i + 4096] = np.argmax(vectors[i : i + 4096] @ book.T - half, axis=1)
    return out


def kmeans(vectors: np.ndarray, size: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Lloyd's algorithm; an empty cluster restarts at a random vector; least used code first.

    Index 0 in every book is the end of speech: the code there should hardly ever be spoken.
    """
    book = vectors[rng.choice(len(vectors), size, replace=False)].copy()
    counts = np.zeros(size)
    for _ in range(rounds):
        codes = nearest(vectors, book)
        counts = np.bincount(codes, minlength=size)
        order = np.argsort(codes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(vectors[order], np.minimum(starts, len(vectors) - 1), axis=0)
        book = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], book)
        empty = np.flatnonzero(counts == 0)
        book[empty] = vectors[rng.choice(len(vectors), len(empty))]
    return book[np.argsort(counts, kind="stable")].astype(np.float32)


@dataclass
class Quantizer:
    """Both halves of Mimi's quantizer: what is said, in one codebook, and how, in seven."""

    semantic: Codebooks
    acoustic: Codebooks

    def encode(self, said: np.ndarray, heard: np.ndarray) -> np.ndarray:
        """The woman's patches and the speaker's own, [n, 8 * MELS] each -> codes [n, 8]."""
        return np.concatenate(
            [
                self.semantic.encode(self.semantic.project(said)),
                self.acoustic.encode(self.acoustic.project(heard)),
            ],
            axis=1,
        )

    def save(self, work_dir: Path) -> None:
        self.semantic.save(work_dir / "semantic.npz")
        self.acoustic.save(work_dir / "acoustic.npz")

    @staticmethod
    def load(work_dir: Path) -> Quantizer:
        return Quantizer(
            Codebooks.load(work_dir / "semantic.npz"), Codebooks.load(work_dir / "acoustic.npz")
        )


def fit(patch: np.ndarray, dim: int, size: int, levels: int, seed: int, rounds: int) -> Codebooks:
    """PCA of the patches, scaled so that the first codebook has unit variance; the codebooks."""
    rng = np.random.default_rng(seed)
    mean = patch.mean(0)
    values, vectors = np.linalg.eigh(np.cov((patch - mean).T))
    basis = vectors[:, ::-1][:, :dim].astype(np.float32)
    print(f"PCA keeps {values[::-1][:dim].sum() / values.sum():.4f} of the variance")
    rest = ((patch - mean) @ basis).astype(np.float32)
    total = (rest**2).sum(1).mean()
    books = []
    for level in range(levels):
        book = kmeans(rest, size, rounds, rng)
        rest -= book[nearest(rest, book)]
        books.append(book)
        print(f"level {level}: {(rest**2).sum(1).mean() / total:.4f} of the energy is left")
    scale = books[0].std()
    return Codebooks(mean.astype(np.float32), basis / scale, np.stack(books) / scale)
