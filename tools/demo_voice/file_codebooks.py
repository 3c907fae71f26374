"""The codebooks of a finished GGUF and the map from log-mel patches into their space.

The file has the codebooks but not the PCA they live in. That is the PCA of the voice it was trained
on, whose basis is orthonormal but for one scale; the teacher's speech has nearly the same one. What
is left, signs and turns among directions of like variance, is an orthonormal matrix: the model's
own voice tells it first (spoken codes, summed, are what the patches of their sound should become),
then it is drawn to where the eight codebooks leave least of the teacher's speech.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from csm_ggml import CSM
from csm_ggml.convert.gguf_file import read_gguf

from features import Codebooks, log_mel, patches
from phrases import trained_texts

TEXTS = 400
ROUNDS = 8
SPARE = 8  # principal components more than the codebooks have dimensions: the last ones mix
TEACHER, OWN = 24_000, 8_000  # patches that the turn is fitted to


def books_of(path: Path) -> np.ndarray:
    """[8, 512, 96], codebook 0 first."""
    tensors = read_gguf(path)[1]
    names = ["semantic.layers.0"] + [f"acoustic.layers.{i}" for i in range(7)]
    return np.stack([tensors[f"mimi.quantizer.{n}.codebook"].values() for n in names])


def turned(given: np.ndarray, wanted: np.ndarray, scale: float = 0.0) -> tuple[np.ndarray, float]:
    """The orthonormal matrix times a scale that fits best, of centred rows; and the scale.

    Args:
        given: [n, a].
        wanted: [n, b], b <= a.
        scale: 0: the best one. With what codebooks make of a vector as `wanted` it must be given,
            for they shrink it, and it would shrink with every round.
    """
    left, values, right = np.linalg.svd(given.T.astype(np.float64) @ wanted, full_matrices=False)
    turn = left @ right
    scale = scale or float(values.sum() / np.square(given @ turn).sum())
    return (turn * scale).astype(np.float32), scale


def recovered_space(path: Path, teacher: np.ndarray) -> Codebooks:
    """All codebooks of the file, with the map into their space.

    Args:
        path: the GGUF.
        teacher: patches [n, 8 * MELS] of the voice that the file was trained on.
    """
    books = books_of(path)
    csm = CSM.from_pretrained(str(path), threads=1)
    spoken = [csm.generate(f"[0]{t}", seed=i) for i, t in enumerate(trained_texts(TEXTS, 3))]
    mean = teacher.mean(0)
    count = books.shape[2] + SPARE
    axes = np.linalg.eigh(np.cov((teacher - mean).T))[1][:, ::-1][:, :count].astype(np.float32)
    own = (np.concatenate([patches(log_mel(audio.samples)) for audio in spoken]) - mean) @ axes
    empty = Codebooks(np.zeros(1), np.eye(1), books)
    meant = empty.decode(np.concatenate([audio.codes for audio in spoken]))
    chosen = np.random.default_rng(0).permutation(len(teacher))[:TEACHER]
    part = (teacher[chosen] - mean) @ axes
    turn, scale = turned(own - own.mean(0), meant - meant.mean(0))
    shift = meant.mean(0) - own.mean(0) @ turn
    for _ in range(ROUNDS):
        vectors = (part @ turn + shift).astype(np.float32)
        nearest = empty.decode(empty.encode(vectors))
        left = np.square(vectors - nearest).sum() / np.square(vectors).sum()
        print(f"{left:.4f} of the teacher's energy is left")
        given = np.concatenate([part, own[:OWN]])
        wanted = np.concatenate([nearest, meant[:OWN]])
        turn, _ = turned(given - given.mean(0), wanted - wanted.mean(0), scale)
        shift = wanted.mean(0) - given.mean(0) @ turn
    basis = axes @ turn
    # The constant part moves into the mean: (given - mean) @ basis + shift.
    mean = mean - np.linalg.lstsq(basis.T, shift, rcond=None)[0]
    return Codebooks(mean.astype(np.float32), basis, books)


def recovered(path: Path, teacher: np.ndarray) -> Codebooks:
    """The semantic codebook of the file alone."""
    space = recovered_space(path, teacher)
    return Codebooks(space.mean, space.basis, space.books[:1])
