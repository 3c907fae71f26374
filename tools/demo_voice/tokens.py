"""Stage 2, tokens: audio -> codes by PCA and k-means.

    python tokens.py --work-dir DIR fit                    # DIR/semantic.npz and DIR/acoustic.npz
    python tokens.py --work-dir DIR fit --keep demo.gguf   # codebook 0 stays as in a finished file
    python tokens.py --work-dir DIR encode                 # DIR/tokens/NNN.npz for new shards

Each text is encoded in 8 grid shifts (the 80 ms grid offset by 0..7 mel columns): without these
variants a small language model learns the corpus by heart.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from features import COLUMNS, FRAME, Quantizer, fit, log_mel, patches
from file_codebooks import recovered

LEAD = COLUMNS  # columns of the teacher's leading silence that are always dropped
GAIN = 2.0
DIM, SIZE, LEVELS = 96, 512, 8
HELD_OUT_SHARD = 0  # validation of every stage; never trained on


@dataclass
class Shard:
    """One corpus shard: waves in [-1, 1] of every text's speakers, the woman first."""

    waves: list[list[np.ndarray]]
    meta: list[dict]


def load_shard(path: Path) -> Shard:
    with np.load(path) as data:
        audio, meta = data["audio"], json.loads(str(data["meta"]))
    waves, at = [], 0
    for entry in meta:
        takes = len(entry["speakers"])
        block = audio[at : at + takes * entry["samples"]].reshape(takes, -1)
        waves.append(list(block.astype(np.float32) * (GAIN / 32768)))
        at += block.size
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


def run_fit(work_dir: Path, count: int, keep: Path | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    said, heard = [], []
    for path in tqdm(shards(work_dir)[1 : count + 1], unit="shard"):
        for waves in load_shard(path).waves:
            parts = [shifted(padded_mel(w), int(rng.integers(COLUMNS))) for w in waves]
            said.append(parts[0])
            heard.extend(parts)
    vectors = np.concatenate(heard)
    print(f"{len(vectors)} frames = {len(vectors) * FRAME / 24000 / 3600:.2f} h")
    own = np.concatenate(said)
    semantic = recovered(keep, own) if keep else fit(own, DIM, SIZE, 1, seed, rounds=25)
    acoustic = fit(vectors, DIM, SIZE, LEVELS - 1, seed, rounds=20)
    Quantizer(semantic, acoustic).save(work_dir)


def encode_shard(path: Path, target: Path, quantizer: Quantizer) -> None:
    """Codes of all variants back to back; lengths[shift, text] tells them apart."""
    shard = load_shard(path)
    parts, lengths = [], np.zeros((COLUMNS, len(shard.waves)), np.int32)
    mels = [[padded_mel(w) for w in waves] for waves in shard.waves]
    for shift in range(COLUMNS):
        for text, own in enumerate(mels):
            takes = [shifted(m, shift) for m in own]
            lengths[shift, text] = len(takes[0])
            parts.extend((takes[0], take) for take in takes)
    codes = quantizer.encode(
        np.concatenate([said for said, _ in parts]), np.concatenate([heard for _, heard in parts])
    )
    part = target.with_suffix(".part.npz")
    np.savez(part, codes=codes, lengths=lengths, meta=json.dumps(shard.meta))
    part.rename(target)


@dataclass
class Coded:
    """The codes of a shard: codes[text][speaker of the text][shift] is [frames, 8]."""

    codes: list[list[list[np.ndarray]]]
    meta: list[dict]


def load_coded(path: Path) -> Coded:
    with np.load(path) as data:
        codes, lengths, meta = data["codes"], data["lengths"], json.loads(str(data["meta"]))
    out: list[list[list[np.ndarray]]] = [[[] for _ in m["speakers"]] for m in meta]
    at = 0
    for shift in range(COLUMNS):
        for text, entry in enumerate(meta):
            for take in range(len(entry["speakers"])):
                out[text][take].append(codes[at : at + lengths[shift, text]])
                at += lengths[shift, text]
    return Coded(out, meta)


def run_encode(work_dir: Path, wait: bool) -> None:
    quantizer = Quantizer.load(work_dir)
    folder = work_dir / "tokens"
    folder.mkdir(exist_ok=True)
    while True:
        todo = [p for p in shards(work_dir) if not (folder / p.name).exists()]
        for path in tqdm(todo, unit="shard", disable=not todo):
            encode_shard(path, folder / path.name, quantizer)
        if not wait or (work_dir / "corpus" / "complete").exists():
            return
        time.sleep(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("step", choices=["fit", "encode"])
    parser.add_argument("--keep", type=Path, help="a GGUF whose codebook 0 stays")
    parser.add_argument("--shards", type=int, default=10, help="shards that the codebooks see")
    parser.add_argument("--wait", action="store_true", help="go on until the corpus is complete")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.step == "fit":
        run_fit(args.work_dir, args.shards, args.keep, args.seed)
    else:
        run_encode(args.work_dir, args.wait)


if __name__ == "__main__":
    main()
