"""Codebook 0 of a finished GGUF and the map from log-mel patches into its space.

The file has the codebooks but not the PCA they live in. The model's own voice tells it: spoken
codes, summed, are what the patches of their sound should become. The teacher's speech then
sharpens the map: what it becomes is drawn to what the file's eight codebooks make of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from csm_ggml import CSM
from csm_ggml.convert.gguf_file import read_gguf

from features import Codebooks, log_mel, patches
from phrases import trained_texts

TEXTS = 240
ROUNDS = 3
RIDGE = 1e-3


def books_of(path: Path) -> np.ndarray:
    """[8, 512, 96], codebook 0 first."""
    tensors = read_gguf(path)[1]
    names = ["semantic.layers.0"] + [f"acoustic.layers.{i}" for i in range(7)]
    return np.stack([tensors[f"mimi.quantizer.{n}.codebook"].values() for n in names])


def affine(given: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and basis of the ridge regression wanted = (given - mean) @ basis."""
    mean, goal = given.mean(0), wanted.mean(0)
    centred = (given - mean).astype(np.float64)
    square = centred.T @ centred
    square[np.diag_indices_from(square)] += RIDGE * np.trace(square) / len(square)
    basis = np.linalg.solve(square, centred.T @ (wanted - goal))
    # The constant part moves into the mean: (given - mean) @ basis + goal.
    mean = mean - np.linalg.lstsq(basis.T, goal, rcond=None)[0]
    return mean.astype(np.float32), basis.astype(np.float32)


def explained(given: Codebooks, patch: np.ndarray, wanted: np.ndarray) -> float:
    return float(1 - (given.project(patch) - wanted).var() / wanted.var())


def recovered(path: Path, teacher: np.ndarray) -> Codebooks:
    """The semantic codebook of the file.

    Args:
        path: the GGUF.
        teacher: patches [n, 8 * MELS] of the voice that the file was trained on.
    """
    books = books_of(path)
    csm = CSM.from_pretrained(str(path), threads=1)
    spoken = [csm.generate(f"[0]{t}", seed=i) for i, t in enumerate(trained_texts(TEXTS, 3))]
    own = np.concatenate([patches(log_mel(audio.samples)) for audio in spoken])
    codes = np.concatenate([audio.codes for audio in spoken])
    space = Codebooks(*affine(own, Codebooks(np.zeros(1), np.eye(1), books).decode(codes)), books)
    print(f"own voice: R2 {explained(space, own, space.decode(codes)):.3f}")
    part = teacher[np.random.default_rng(0).permutation(len(teacher))[:40_000]]
    for _ in range(ROUNDS):
        wanted = space.decode(space.encode(space.project(part)))
        print(f"teacher: R2 {explained(space, part, wanted):.3f}")
        space = Codebooks(*affine(part, wanted), books)
    return Codebooks(space.mean, space.basis, books[:1])
