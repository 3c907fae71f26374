"""Stage 1, corpus: the teacher (festival, HTS voice us_slt) reads the texts.

    python corpus.py --work-dir DIR --texts 16000 --jobs 2

Writes DIR/corpus/NNN.npz, one per shard of 200 texts: 24 kHz int16 audio back to back, the texts,
and where each text token lies in time (the teacher knows it; it teaches the language model where
to look). Finished shards are skipped, so the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from texts import build_texts

RATE = 24_000
SHARD = 200
SCHEME = Path(__file__).with_name("speak.scm")


def read_labels(path: Path) -> tuple[list[tuple[str, float]], list[tuple[str, float, float]]]:
    """Phones with their ends and text tokens with their spans, in seconds."""
    phones: list[tuple[str, float]] = []
    tokens: list[tuple[str, float, float]] = []
    for line in path.read_text().splitlines():
        kind, *words = line.split(" ")
        if kind == "S":
            phones.append((words[0], float(words[1])))
        else:
            tokens.append((" ".join(words[:-2]), float(words[-2]), float(words[-1])))
    return phones, tokens


def speak_shard(texts: list[str], target: Path) -> float:
    """Synthesises one shard and returns its seconds of audio."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        escaped = [t.replace('"', '\\"') for t in texts]
        quoted = [f'(speak_to "{t}" "{folder}/{i}")' for i, t in enumerate(escaped)]
        script = Path(folder) / "run.scm"
        script.write_text("\n".join([f'(load "{SCHEME}")', *quoted]))
        subprocess.run(
            ["nice", "-n", "19", "festival", "-b", str(script)], check=True, capture_output=True
        )
        audio, meta = [], []
        for i, text in enumerate(texts):
            wave, rate = soundfile.read(f"{folder}/{i}.wav", dtype="float32")
            wave = soxr.resample(wave, rate, RATE)
            phones, tokens = read_labels(Path(folder) / f"{i}.lab")
            meta.append({"text": text, "phones": phones, "tokens": tokens, "samples": len(wave)})
            audio.append((np.clip(wave, -1, 1) * 32767).astype(np.int16))
    part = target.with_suffix(".part.npz")
    np.savez(part, audio=np.concatenate(audio), meta=json.dumps(meta))
    part.rename(target)
    return sum(len(a) for a in audio) / RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=16_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.work_dir / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    texts = build_texts(args.texts, args.seed)
    shards = {
        folder / f"{i // SHARD:03d}.npz": texts[i : i + SHARD] for i in range(0, len(texts), SHARD)
    }
    seconds = 0.0
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(shards), unit="shard") as bar:
        jobs = [pool.submit(speak_shard, t, p) for p, t in shards.items() if not p.exists()]
        bar.update(len(shards) - len(jobs))
        for job in as_completed(jobs):
            seconds += job.result()
            bar.update()
            bar.set_postfix_str(f"{seconds / 3600:.2f} h")
    (folder / "complete").touch()


if __name__ == "__main__":
    main()
