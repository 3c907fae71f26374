"""Mends the decoder of a finished GGUF with its own voice: no click, no overdrive.

    python decoder_mend.py --work-dir DIR --model demo.gguf speak       # codes of many texts
    python decoder_mend.py --work-dir DIR --model demo.gguf targets     # what they should be
    python decoder_mend.py --work-dir DIR --model demo.gguf train --seconds 2400
    python decoder_mend.py --work-dir DIR --model demo.gguf write --output mended.gguf

No corpus is needed. Only the SEANet learns: language models, quantizer, encoder and the decoder's
transformer keep every byte, so the same seed says the same codes. `train` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from csm_ggml import CSM
from csm_ggml.convert.gguf_file import read_gguf
from torch import Tensor
from tqdm import tqdm

from common import Average, Run, one_thread
from decoder import disturb
from features import FRAME
from gguf_codec import load_codec, write_seanet
from mend_targets import LOUD, Asked, target
from models import CODEBOOKS, CODES
from phrases import greeting_texts, trained_texts
from vocoder_losses import MelLoss

QUIET = CODES - 1  # the code most used, in every book: silence
QUIET_FRAMES = 4
PIECES = 16  # texts spoken side by side
LIVELY = {"temperature": 0.8, "depth_temperature": 0.8}  # every third batch
SPAN = 5  # frames of a window; a window that is no beginning skips the loss of the first one
LEFT = 6  # latents that the first convolution looks back
COLD, OVERDRIVEN, ANY = 2, 3, 2  # windows of each kind in a step
WILD = 1.5  # half of the overdriven windows hold such a sample
STRESS = 1.4  # as much louder latents must stay below the ceiling, too
CEILING = 0.9  # of the loss
CLICK = 240  # samples at the start with a loss of their own


def speak(model: Path, output: Path, count: int) -> None:
    """Codes of texts at the file's defaults and livelier, and of noises through the encoder."""
    csm = CSM.from_pretrained(str(model), threads=1)
    texts = trained_texts(count, 11) + greeting_texts(12)
    codes = []
    for first in tqdm(range(0, len(texts), PIECES)):
        part = [f"[{i % 2}]{text}" for i, text in enumerate(texts[first : first + PIECES])]
        seeds = list(range(1000 + first, 1000 + first + len(part)))
        how = LIVELY if first // PIECES % 3 == 2 else {}
        codes += [audio.codes for audio in csm.generate_batch(part, seed=seeds, **how)]
    rng = np.random.default_rng(5)
    for level in (0.0, 1e-4, 1e-3, 1e-2, 0.05, 0.2):
        noise = (level * rng.standard_normal(3 * 24_000)).astype(np.float32)
        codes.insert(0, csm.encode(noise, 24_000))
    np.savez(output, codes=np.concatenate(codes), lengths=[len(c) for c in codes])


def load_codes(path: Path) -> list[np.ndarray]:
    """One array [frames, 8] a text; of every fourth some codes are replaced, as sampling would."""
    torch.manual_seed(4)
    with np.load(path) as data:
        codes = np.split(data["codes"].astype(np.int32), np.cumsum(data["lengths"])[:-1])
    for i in range(0, len(codes), 4):
        codes[i] = disturb(torch.from_numpy(codes[i].T[None]), 0.06)[0].numpy().T.copy()
    return [c for c in codes if len(c) > SPAN]


def make_targets(model: Path, codes: list[np.ndarray], output: Path) -> None:
    names = ["semantic.layers.0"] + [f"acoustic.layers.{i}" for i in range(CODEBOOKS - 1)]
    tensors = read_gguf(model)[1]
    asked = Asked(np.stack([tensors[f"mimi.quantizer.{n}.codebook"].values() for n in names]))
    csm = CSM.from_pretrained(str(model), threads=1)
    waves = [csm.decode(c) for c in tqdm(codes)]
    peaks = [np.abs(w).max() for w in waves]
    calm = [i for i, peak in enumerate(peaks) if peak < LOUD][:500]
    r2 = asked.fit([codes[i] for i in calm], [waves[i] for i in calm])
    print(f"R2 of the log-mel {r2:.3f}; {np.mean(np.array(peaks) > 1):.1%} of the texts overdrive")
    quiet = np.full((QUIET_FRAMES, CODEBOOKS), QUIET, np.int32)
    wanted = []
    for own, wave in zip(tqdm(codes), waves, strict=True):
        warm = csm.decode(np.concatenate([quiet, own[:2]]))[QUIET_FRAMES * FRAME :]
        wanted.append(target(own, wave, warm, asked).astype(np.float16))
    mimi = load_codec(model)
    latents = []
    with torch.no_grad():
        for own in tqdm(codes):
            x = mimi.decoder.upsample(mimi.quantizer.decode(torch.from_numpy(own.T[None]).long()))
            x = mimi.decoder.decoder_transformer(x.transpose(1, 2)).last_hidden_state
            latents.append(x[0].half().numpy())
    np.savez(
        output,
        waves=np.concatenate(wanted),
        latents=np.concatenate(latents),
        peaks=np.concatenate([np.abs(w).reshape(-1, FRAME).max(1) for w in waves]),
        lengths=[len(c) for c in codes],
    )


@dataclass
class Batch:
    """Windows: latents [n, 192, 2 * SPAN (+ LEFT)], waves [n, SPAN * FRAME]."""

    cold: Tensor
    cold_waves: Tensor
    warm: Tensor
    warm_waves: Tensor


class Windows:
    """Cuts of the targets: beginnings, what overdrove, and anything."""

    def __init__(self, path: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        with np.load(path) as data:
            lengths = data["lengths"]
            ends = np.cumsum(lengths)[:-1]
            self.waves = np.split(data["waves"], ends * FRAME)
            self.latents = np.split(data["latents"], ends * 2)
            peaks = np.split(data["peaks"], ends)
        self.count = len(lengths)
        self.loud, self.wild = (
            [(i, f) for i in range(self.count) for f in np.flatnonzero(peaks[i] > least)]
            for least in (LOUD, WILD)
        )

    def place(self, kind: str) -> tuple[int, int]:
        """A text and the first frame of a window in it."""
        if kind == "loud":
            some = self.wild if self.rng.random() < 0.5 else self.loud
            text, frame = some[self.rng.integers(len(some))]
            first = frame - int(self.rng.integers(1, SPAN))
        else:
            text = int(self.rng.integers(self.count))
            first = int(self.rng.integers(len(self.latents[text]) // 2 - SPAN))
        last = len(self.latents[text]) // 2 - SPAN
        return text, 0 if kind == "cold" or first < LEFT // 2 else min(first, last)

    def at(self, places: list[tuple[int, int]]) -> Batch:
        rows: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
        for text, first in places:
            before = LEFT if first else 0
            latents = self.latents[text][2 * first - before : 2 * (first + SPAN)]
            wave = self.waves[text][first * FRAME : (first + SPAN) * FRAME]
            rows[first == 0].append((latents.T.astype(np.float32), wave.astype(np.float32)))
        stacked = [
            torch.from_numpy(np.stack([row[i] for row in rows[cold]]))
            for cold in (True, False)
            for i in range(2)
        ]
        return Batch(*stacked)

    def batch(self) -> Batch:
        kinds = ["cold"] * COLD + ["loud"] * OVERDRIVEN + ["any"] * ANY
        places = [self.place(kind) for kind in kinds]
        while all(first == 0 for _, first in places):
            places[-1] = self.place("any")
        return self.at(places)


def run_seanet(layers: torch.nn.ModuleList, batch: Batch) -> tuple[Tensor, Tensor]:
    """Waves of the beginnings, from a cold start, and of the other windows."""
    x = torch.cat([layers[0](batch.cold), layers[0](batch.warm)[:, :, LEFT:]])
    for layer in list(layers)[1:]:
        x = layer(x)
    return x[: len(batch.cold), 0], x[len(batch.cold) :, 0]


def losses_of(layers: torch.nn.ModuleList, batch: Batch, mel: MelLoss) -> dict[str, Tensor]:
    cold, warm = run_seanet(layers, batch)
    warm, warm_waves = warm[:, FRAME:], batch.warm_waves[:, FRAME:]
    click = (cold - batch.cold_waves)[:, :CLICK].abs()
    louder = [x * (1 + (STRESS - 1) * torch.rand(len(x), 1, 1)) for x in (batch.cold, batch.warm)]
    stressed = run_seanet(layers, Batch(louder[0], cold, louder[1], warm))
    return {
        "mel": mel(cold, batch.cold_waves) + mel(warm, warm_waves),
        "wave": (cold - batch.cold_waves).abs().mean() + (warm - warm_waves).abs().mean(),
        "click": 10 * click.mean() + click.amax(1).mean(),
        "peak": sum(
            (w.abs() - CEILING).clamp(min=0).sum() / len(w) for w in (cold, warm, *stressed)
        ),
    }


def train(model: Path, work_dir: Path, seconds: float, rate: float) -> None:
    one_thread(1)
    seanet = load_codec(model).decoder.decoder_seanet.train()
    average = Average(seanet, 0.998)
    optimizer = torch.optim.AdamW(seanet.parameters(), rate, (0.8, 0.99), weight_decay=0.0)
    parts = {"seanet": seanet, "average": average.module, "optimizer": optimizer}
    run = Run(work_dir, "mend", parts)
    data = Windows(work_dir / "mend_targets.npz", 1 + run.step)
    mel = MelLoss()
    bar = tqdm(total=int(seconds), initial=int(run.seconds), unit="s", mininterval=10)
    sums: dict[str, float] = {}
    while run.seconds < seconds and not run.stopped:
        done = run.seconds / seconds
        for group in optimizer.param_groups:
            slow = max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
            group["lr"] = rate * min(1.0, (run.step + 1) / 50) * slow
        losses = losses_of(seanet.layers, data.batch(), mel)
        total = losses["mel"] + 3 * losses["wave"] + 2 * losses["click"] + 0.05 * losses["peak"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(seanet.parameters(), 1.0)
        optimizer.step()
        average.update(seanet, run.step)
        before = run.seconds
        run.tick()
        bar.update(int(run.seconds) - int(before))
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value.item() / 50
        if run.step % 50 == 0:
            run.write(**sums)
            bar.set_postfix({"step": run.step} | {k: f"{v:.3f}" for k, v in sums.items()})
            sums = {}
    run.save()


def write(model: Path, work_dir: Path, output: Path) -> None:
    mimi = load_codec(model)
    state = torch.load(work_dir / "mend.pt", weights_only=False)
    mimi.decoder.decoder_seanet.load_state_dict(state["average"])
    print(f"{write_seanet(model, output, mimi)} tensors of step {state['step']} in {output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF to mend")
    parser.add_argument("stage", choices=["speak", "targets", "train", "write"])
    parser.add_argument("--count", type=int, default=1600, help="texts that `speak` says")
    parser.add_argument("--seconds", type=float, default=2400.0)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--output", type=Path, help="the GGUF that `write` makes")
    args = parser.parse_args()
    codes = args.work_dir / "mend_codes.npz"
    if args.stage == "speak":
        speak(args.model, codes, args.count)
    elif args.stage == "targets":
        make_targets(args.model, load_codes(codes), args.work_dir / "mend_targets.npz")
    elif args.stage == "train":
        train(args.model, args.work_dir, args.seconds, args.rate)
    else:
        write(args.model, args.work_dir, args.output)


if __name__ == "__main__":
    main()
