"""Stage 2, tokens: audio -> codes by PCA and k-means.

    python tokens.py --work-dir DIR fit     # DIR/codebooks.npz from the shards that exist
    python tokens.py --work-dir DIR encode  # DIR/tokens/NNN.npz for every shard that has none yet

Each text is encoded in 8 grid shifts (the 80 ms grid offset by 0..7 mel columns) times 3 speeds:
without these variants a small language model learns the corpus by heart.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from features import COLUMNS, FRAME, Codebooks, fit, log_mel, patches, stretch

LEAD = COLUMNS  # columns of the teacher's leading silence that are always dropped
SPEEDS = (1.0, 0.94, 1.06)
GAIN = 2.0
DIM, SIZE, LEVELS = 96, 512, 8
HELD_OUT_SHARD = 0  # validation of every stage; never trained on


@dataclass
class Shard:
    """One corpus shard: waves in [-1, 1] and what the teacher said about them."""

    waves: list[np.ndarray]
    meta: list[dict]


def load_shard(path: Path) -> Shard:
    with np.load(path) as data:
        audio, meta = data["audio"], json.loads(str(data["meta"]))
    ends = np.cumsum([m["samples"] for m in meta])
    waves = [w.astype(np.float32) * (GAIN / 32768) for w in np.split(audio, ends[:-1])]
    return Shard(waves, meta)


def padded_mel(wave: np.ndarray) -> np.ndarray:
    """Log-mel without the leading silence, one to two frames of silence behind."""
    tail = 2 * FRAME - len(wave) % FRAME
    return log_mel(np.pad(wave, (0, tail)))[LEAD:]


def shifted(mel: np.ndarray, shift: int) -> np.ndarray:
    """Drops `shift` columns at the start; the last partial frame falls away (it is silence)."""
    return patches(mel[shift:])


def shards(work_dir: Path) -> list[Path]:
    return sorted(p for p in (work_dir / "corpus").glob("*.npz") if ".part" not in p.name)


def run_fit(work_dir: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for path in tqdm(shards(work_dir)[1 : count + 1], unit="shard"):
        for wave in load_shard(path).waves:
            mel = stretch(padded_mel(wave), rng.choice(SPEEDS))
            parts.append(shifted(mel, int(rng.integers(COLUMNS))))
    vectors = np.concatenate(parts)
    print(f"{len(vectors)} frames = {len(vectors) * FRAME / 24000 / 3600:.2f} h")
    books = fit(vectors, DIM, SIZE, LEVELS, seed, rounds=25)
    books.save(work_dir / "codebooks.npz")


def encode_shard(path: Path, target: Path, books: Codebooks) -> None:
    """Codes of all variants back to back; lengths[speed, shift, text] tells them apart."""
    shard = load_shard(path)
    vectors, lengths = [], np.zeros((len(SPEEDS), COLUMNS, len(shard.waves)), np.int32)
    mels = [padded_mel(w) for w in shard.waves]
    for i, speed in enumerate(SPEEDS):
        warped = [m if speed == 1.0 else stretch(m, speed) for m in mels]
        for shift in range(COLUMNS):
            parts = [shifted(m, shift) for m in warped]
            lengths[i, shift] = [len(p) for p in parts]
            vectors.append(books.project(np.concatenate(parts)))
    codes = books.encode(np.concatenate(vectors))
    part = target.with_suffix(".part.npz")
    np.savez(part, codes=codes, lengths=lengths, meta=json.dumps(shard.meta))
    part.rename(target)


def run_encode(work_dir: Path, wait: bool) -> None:
    books = Codebooks.load(work_dir / "codebooks.npz")
    folder = work_dir / "tokens"
    folder.mkdir(exist_ok=True)
    while True:
        todo = [p for p in shards(work_dir) if not (folder / p.name).exists()]
        for path in tqdm(todo, unit="shard", disable=not todo):
            encode_shard(path, folder / path.name, books)
        if not wait or (work_dir / "corpus" / "complete").exists():
            return
        time.sleep(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("step", choices=["fit", "encode"])
    parser.add_argument("--shards", type=int, default=30, help="shards that the codebooks see")
    parser.add_argument("--wait", action="store_true", help="go on until the corpus is complete")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.step == "fit":
        run_fit(args.work_dir, args.shards, args.seed)
    else:
        run_encode(args.work_dir, args.wait)


if __name__ == "__main__":
    main()
