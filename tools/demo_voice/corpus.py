"""Stage 1, corpus: the teacher (festival, HTS voice us_slt) and its other speakers read the texts.

    python corpus.py --work-dir DIR --texts 3000 --jobs 2

Writes DIR/corpus/NNN.npz, one per shard of 200 texts: 24 kHz int16 audio back to back (of each
text all its speakers, equally long), the texts, and where each text token lies in time (the
teacher knows it; it teaches the language model where to look). Shard 0 is held out and read by
the held-out speakers too. Finished shards are skipped, so the command can be stopped and started.
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

from speakers import HELD_OUT, MAN, TRAINED, WOMAN, cast, speaker
from texts import build_texts

RATE = 24_000
SHARD = 200
SCHEME = Path(__file__).with_name("speak.scm")
VOICE = Path(
    "/usr/share/festival/voices/us/cmu_us_slt_arctic_hts/hts/cmu_us_slt_arctic_hts.htsvoice"
)


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


def read_wave(path: Path) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(wave, rate, RATE)


def say_as(number: int, base: np.ndarray, stem: Path) -> np.ndarray:
    """The labels STEM.hts said by a speaker, as long and as loud as `base`."""
    if number == WOMAN:
        return base
    who, out = speaker(number), stem.with_suffix(f".{number}.wav")
    command = ["hts_engine", "-m", str(VOICE), *who.options(), "-ow", str(out)]
    command += [str(stem.with_suffix(".hts"))]
    subprocess.run(command, check=True, capture_output=True)
    wave = who.paint(read_wave(out), RATE)[: len(base)]
    out.unlink()
    wave = np.pad(wave, (0, len(base) - len(wave)))
    loudness = np.sqrt((base**2).mean() / max(1e-9, (wave**2).mean()))
    return wave * min(loudness, 0.49 / max(1e-6, np.abs(wave).max()))


def speak_shard(texts: list[str], first: int, target: Path) -> float:
    """Synthesises one shard and returns its seconds of audio."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        escaped = [t.replace('"', '\\"') for t in texts]
        quoted = [f'(speak_to "{t}" "{folder}/{i}")' for i, t in enumerate(escaped)]
        script = Path(folder) / "run.scm"
        script.write_text("\n".join([f'(load "{SCHEME}")', *quoted]))
        subprocess.run(["festival", "-b", str(script)], check=True, capture_output=True)
        audio, meta = [], []
        for i, text in enumerate(texts):
            base = read_wave(Path(folder) / f"{i}.wav")
            phones, tokens = read_labels(Path(folder) / f"{i}.lab")
            who = [WOMAN, MAN, TRAINED + i % HELD_OUT] if first == 0 else cast(first + i)
            entry = {"text": text, "phones": phones, "tokens": tokens}
            meta.append(entry | {"samples": len(base), "speakers": who})
            for number in who:
                wave = say_as(number, base, Path(folder) / f"{i}")
                audio.append((np.clip(wave, -1, 1) * 32767).astype(np.int16))
    part = target.with_suffix(".part.npz")
    np.savez(part, audio=np.concatenate(audio), meta=json.dumps(meta))
    part.rename(target)
    return sum(len(a) for a in audio) / RATE


def same_texts(path: Path, count: int, seed: int) -> list[str]:
    """The texts that the corpus was begun with: the held-out ones stay held out."""
    if not path.exists():
        path.write_text(json.dumps(build_texts(count, seed)))
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=3_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.work_dir / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    texts = same_texts(folder / "texts.json", args.texts, args.seed)
    starts = range(0, len(texts), SHARD)
    todo = [(i, folder / f"{i // SHARD:03d}.npz") for i in starts]
    seconds = 0.0
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(todo), unit="shard") as bar:
        jobs = [
            pool.submit(speak_shard, texts[i : i + SHARD], i, path)
            for i, path in todo
            if not path.exists()
        ]
        bar.update(len(todo) - len(jobs))
        for job in as_completed(jobs):
            seconds += job.result()
            bar.update()
            bar.set_postfix_str(f"{seconds / 3600:.2f} h")
    (folder / "complete").touch()


if __name__ == "__main__":
    main()
