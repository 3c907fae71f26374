"""The woman's takes of a corpus in the codes of a finished GGUF, all eight of its codebooks.

    python file_tokens.py --work-dir DIR --model demo.gguf

Writes DIR/own/tokens/NNN.npz, which `lm.py --work-dir DIR/own --start demo.gguf --same-codes` goes
on from: the language model learns more of the language, and the codec stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from features import COLUMNS, Codebooks
from file_codebooks import recovered_space
from speakers import WOMAN
from tokens import load_shard, padded_mel, shards, shifted


def file_codebooks(work_dir: Path, model: Path) -> Codebooks:
    """The file's eight codebooks in their space, which DIR/own/space.npz keeps."""
    kept = work_dir / "own" / "space.npz"
    if not kept.exists():
        own = [
            shifted(padded_mel(takes[WOMAN]), index % COLUMNS)
            for path in shards(work_dir)[1:9]
            for index, takes in enumerate(load_shard(path).waves)
        ]
        recovered_space(model, np.concatenate(own)).save(kept)
    return Codebooks.load(kept)


def encode_own(path: Path, target: Path, books: Codebooks) -> None:
    """As `tokens.encode_shard`, of the first take of every text."""
    shard = load_shard(path)
    mels = [padded_mel(takes[0]) for takes in shard.waves]
    parts = [shifted(mel, shift) for shift in range(COLUMNS) for mel in mels]
    lengths = np.array([len(p) for p in parts], np.int32).reshape(COLUMNS, len(mels))
    codes = books.encode(books.project(np.concatenate(parts)))
    meta = [entry | {"speakers": [WOMAN]} for entry in shard.meta]
    part = target.with_suffix(".part.npz")
    np.savez(part, codes=codes, lengths=lengths, meta=json.dumps(meta))
    part.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    folder = args.work_dir / "own" / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    books = file_codebooks(args.work_dir, args.model)
    for path in tqdm(shards(args.work_dir), unit="shard"):
        if not (folder / path.name).exists():
            encode_own(path, folder / path.name, books)


if __name__ == "__main__":
    main()
