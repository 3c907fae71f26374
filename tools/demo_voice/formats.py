"""What number formats cost: error rates and logit divergence of the demo voice in each.

    python formats.py --export DIR/export --work-dir DIR/formats

Converts the exported folder to each format, lets csm-ggml speak both lists of sentences.py, each
with --seeds seeds, has whisper tiny.en transcribe them, and compares the logits of the first
sentences with those of F32, given the codes that F32 draws. Prints a Markdown table. Needs
csm-ggml.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from csm_ggml import CSM, _core
from csm_ggml.convert import convert
from tqdm import tqdm

import sentences
from judge import Judge, Score

TEXTS = (*sentences.TUNING, *sentences.FINAL)
FORMATS = ("f32", "f16", "q8_0", "q4_0")


def spoken_logits(
    path: Path, texts: tuple[str, ...], codes: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Of each text, logits (frames, codebooks, codes) while these codes are spoken."""
    csm = CSM.from_pretrained(path, device="cpu")
    engine = _core.Engine(_core.Model([str(path)], device="cpu"))
    for text, spoken in zip(texts, codes, strict=True):
        ids = np.array(csm.tokenize(f"[0]{text}"), np.int32)
        slot = engine.open()
        engine.append(slot, ids, np.zeros((len(ids), csm.codebooks), np.int32))
        steps = [engine.step([slot], forced=frame[None], return_logits=True)[1] for frame in spoken]
        engine.close(slot)
        yield np.concatenate(steps).astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(wanted: list[np.ndarray], got: list[np.ndarray]) -> dict[str, float]:
    """Mean KL divergence in nats of codebook 0 and of the others, equal choices, lowest cosine."""
    p, q = np.concatenate(wanted), np.concatenate(got)
    a, b = softmax(p), softmax(q)
    kl = (a * (np.log(a + 1e-30) - np.log(b + 1e-30))).sum(-1)
    cosine = (p * q).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(q, axis=-1)
    return {
        "kl_c0": float(kl[:, 0].mean()),
        "kl_depth": float(kl[:, 1:].mean()),
        "equal": float((p.argmax(-1) == q.argmax(-1)).mean()),
        "cosine": float(cosine.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    probes = TEXTS[:10]
    judge = Judge()
    codes: list[np.ndarray] = []
    wanted: list[np.ndarray] = []
    rows = []
    for kind in FORMATS:
        path = args.work_dir / f"demo-{kind}.gguf"
        convert(args.export, path, type=kind, codec_type="f32" if kind == "f32" else "f16")
        csm = CSM.from_pretrained(path, device="cpu")
        if not codes:
            codes = [csm.generate_codes(f"[0]{text}", seed=1) for text in probes]
        logits = list(spoken_logits(path, probes, codes))
        wanted = wanted or logits
        far = divergence(wanted, logits)
        score, ended, total = Score(), 0, 0
        for seed in range(args.seeds):
            for text in tqdm(TEXTS, desc=f"{kind}, seed {seed}"):
                audio = csm.generate(f"[0]{text}", seed=seed)
                ended += audio.finish_reason == "eos"
                total += 1
                score.add(text, judge.hear(audio.samples, audio.sample_rate))
        rows.append(
            f"| {kind.upper()} | {path.stat().st_size / 1e6:.1f} "
            f"| {score.word_errors / score.words:.1%} | {score.letter_errors / score.letters:.1%} "
            f"| {ended} of {total} | {far['kl_c0']:.1e} | {far['kl_depth']:.1e} "
            f"| {far['equal']:.2%} | {far['cosine']:.5f} |"
        )
    print("| Format | MB | WER | CER | ended by EOS | KL c0 | KL depth | same choice | cosine |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
