"""Stage 6, evaluate: the three gates.

    python evaluate.py --work-dir DIR tokens                 # (a) held-out tokens -> wave
    python evaluate.py --work-dir DIR reading                # (b) loss gap to shuffled texts
    python evaluate.py --work-dir DIR speech --set TUNING   # (c) sentences -> speech
    python evaluate.py --work-dir DIR griffin --set TUNING  # as (c), by Griffin-Lim
    python evaluate.py --work-dir DIR engine --model demo.gguf --set FINAL  # by csm-ggml itself
    python evaluate.py --work-dir DIR recode --model demo.gguf  # encoded and decoded by csm-ggml

`engine` needs csm-ggml installed and uses the defaults in the file: the figure that counts.
Waves go to DIR/wav for the ear.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

import sentences
from common import one_thread
from export import DEPTH_SAMPLING, MAX_FRAMES, SAMPLING, load_codec, load_model
from features import _FILTERS, FFT, HOP, WINDOW, Quantizer
from judge import Judge, Score
from lm_data import Conversations
from texts import unread_examples
from tokenizer import build_tokenizer
from tokens import HELD_OUT_SHARD, load_coded, load_shard, shards

RATE = 24_000


def griffin_lim(mel: np.ndarray, rounds: int = 40) -> np.ndarray:
    """Wave of a log-mel, by pseudo-inverse filters and iterated phases."""
    inverse = torch.from_numpy(np.linalg.pinv(_FILTERS))
    magnitude = (inverse @ torch.from_numpy(np.exp(mel)).T.float()).clamp(min=0)
    window = torch.zeros(FFT)
    start = (FFT - WINDOW) // 2
    window[start : start + WINDOW] = torch.hann_window(WINDOW)
    phase = torch.exp(1j * 6.2832 * torch.rand(magnitude.shape))
    for _ in range(rounds):
        wave = torch.istft(magnitude * phase, FFT, HOP, window=window)
        spec = torch.stft(wave, FFT, HOP, window=window, return_complex=True)
        phase = spec[:, : magnitude.shape[1]] / spec[:, : magnitude.shape[1]].abs().clamp(min=1e-8)
    return wave.numpy()


def report(folder: Path, name: str, waves: list[np.ndarray], texts: list[str]) -> None:
    judge, score = Judge(), Score()
    folder.mkdir(parents=True, exist_ok=True)
    for i, (wave, text) in enumerate(zip(waves, texts, strict=True)):
        soundfile.write(folder / f"{name}-{i:02d}.wav", np.clip(wave, -1, 1), RATE)
        heard = judge.hear(wave)
        wer, cer = score.add(text, heard)
        print(f"{wer:5.0%} {cer:5.0%}  {text}  ->  {heard}")
    print(f"{name}: {score}")


@torch.no_grad()
def gate_tokens(work_dir: Path, count: int) -> None:
    """The held-out texts: the teacher itself and its codes decoded, the woman, man and a guest."""
    mimi = load_codec(work_dir)
    paths = shards(work_dir)
    shard = load_shard(paths[HELD_OUT_SHARD])
    coded = load_coded(work_dir / "tokens" / paths[HELD_OUT_SHARD].name)
    texts = [meta["text"] for meta in shard.meta[:count]]
    for take, name in enumerate(("woman", "man", "guest")):
        waves = []
        for takes in coded.codes[:count]:
            codes = torch.from_numpy(takes[take][3].astype(np.int64)).T[None]
            waves.append(mimi.decode(codes).audio_values[0, 0].numpy())
        report(work_dir / "wav", f"{name}-teacher", [w[take] for w in shard.waves[:count]], texts)
        report(work_dir / "wav", f"{name}-tokens", waves, texts)


def gate_recode(work_dir: Path, args: argparse.Namespace) -> None:
    """The held-out texts, encoded and decoded by csm-ggml: the woman, the man and a guest."""
    from csm_ggml import CSM

    engine = CSM.from_pretrained(str(args.model), threads=1)
    shard = load_shard(shards(work_dir)[HELD_OUT_SHARD])
    texts = [meta["text"] for meta in shard.meta[: args.count]]
    for take, name in enumerate(("woman", "man", "guest")):
        heard = [waves[take] for waves in shard.waves[: args.count]]
        again = [engine.decode(engine.encode(wave, RATE)) for wave in heard]
        report(work_dir / "wav", f"{name}-recoded", again, texts)


def gate_reading(work_dir: Path) -> None:
    from lm import check
    from lm_model import Speech
    from models import csm_config

    data = Conversations(work_dir, 0)
    model = Speech(csm_config(data.tokenizer.get_vocab_size(), data.special))
    model.load_state_dict(torch.load(work_dir / "lm.pt", weights_only=False)["average"])
    print(" ".join(f"{k}={v:.3f}" for k, v in check(model.eval(), data).items()))


@torch.no_grad()
def speak(model, text: str, seed: int, sampling: dict, depth: dict) -> np.ndarray:
    """Codes [frames, 8] of the text, which begins with its tag, without the final zero frame."""
    torch.manual_seed(seed)
    ids = torch.tensor([build_tokenizer().encode(text).ids])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=MAX_FRAMES,
        do_sample=True,
        **sampling,
        depth_decoder_do_sample=True,
        **{f"depth_decoder_{k}": v for k, v in depth.items()},
    )
    codes = out[0].numpy()
    ends = np.flatnonzero((codes == 0).all(-1))
    return codes[: ends[0]] if len(ends) else codes


def spoken_texts(args: argparse.Namespace) -> list[str]:
    if args.set == "WORDNET":
        return unread_examples(args.count)
    return getattr(sentences, args.set)[: args.count]


def gate_engine(work_dir: Path, args: argparse.Namespace) -> None:
    from csm_ggml import CSM

    engine = CSM.from_pretrained(str(args.model), threads=1)
    texts = spoken_texts(args)
    spoken = [engine.generate(f"[{args.tag}]{t}", seed=args.seed + i) for i, t in enumerate(texts)]
    print(f"ended by themselves: {sum(a.finish_reason == 'eos' for a in spoken)} of {len(spoken)}")
    report(work_dir / "wav", f"engine-{args.set.lower()}", [a.samples for a in spoken], list(texts))


def gate_speech(work_dir: Path, args: argparse.Namespace) -> None:
    model = load_model(work_dir)
    sampling = {"temperature": args.temperature, "top_k": args.top_k}
    depth = {"temperature": args.depth_temperature, "top_k": args.top_k}
    texts = spoken_texts(args)
    waves, frames, start = [], 0, time.monotonic()
    for i, text in enumerate(texts):
        codes = speak(model, f"[{args.tag}]{text}", args.seed + i, sampling, depth)
        frames += len(codes)
        if len(codes) == MAX_FRAMES:
            print(f"no end: {text}")
        if args.gate == "griffin":
            own = Quantizer.load(work_dir).acoustic
            waves.append(griffin_lim(own.restore(own.decode(codes[:, 1:]))))
        elif len(codes):
            with torch.no_grad():
                audio = model.codec_model.decode(torch.from_numpy(codes.T[None])).audio_values
            waves.append(audio[0, 0].numpy())
        else:
            waves.append(np.zeros(RATE // 2, np.float32))
    print(f"{frames} frames in {time.monotonic() - start:.0f} s")
    report(work_dir / "wav", f"{args.gate}-{args.set.lower()}", waves, list(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument(
        "gate", choices=["tokens", "reading", "speech", "griffin", "engine", "recode"]
    )
    parser.add_argument("--set", choices=["TUNING", "FINAL", "WORDNET"], default="TUNING")
    parser.add_argument("--model", type=Path, help="the GGUF of `engine` and `recode`")
    parser.add_argument("--tag", type=int, default=0, help="0: the woman, 1: the man")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=SAMPLING["temperature"])
    parser.add_argument("--depth-temperature", type=float, default=DEPTH_SAMPLING["temperature"])
    parser.add_argument("--top-k", type=int, default=SAMPLING["top_k"])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    one_thread(args.seed)
    if args.gate == "tokens":
        gate_tokens(args.work_dir, args.count)
    elif args.gate == "reading":
        gate_reading(args.work_dir)
    elif args.gate == "recode":
        gate_recode(args.work_dir, args)
    elif args.gate == "engine":
        gate_engine(args.work_dir, args)
    else:
        gate_speech(args.work_dir, args)


if __name__ == "__main__":
    main()
