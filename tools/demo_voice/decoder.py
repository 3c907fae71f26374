"""Stage 3, decoder: the decoding half of Mimi, trained as a vocoder of the tokens.

    python decoder.py --work-dir DIR --seconds 4800 [--start demo.gguf]

Mel loss alone first; the discriminators join after --gan-from of the time. Writes DIR/decoder.pt;
run the command again to resume (the learning rate follows the share of --seconds that is spent).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import MimiModel

from codec_start import continued
from common import Average, Run, one_thread
from features import COLUMNS, FRAME, HOP, Quantizer
from models import CODEBOOKS, CODES, mimi_config, set_codebooks
from tokens import HELD_OUT_SHARD, LEAD, load_coded, load_shard
from vocoder_losses import Discriminators, MelLoss

FRAMES = 10
BATCH = 8
WARM_FRAMES = (
    1  # frames at the start of a segment that the loss skips: their left context is missing
)
COLD = 2  # rows of a batch that begin a text, from silence, as every utterance does
CROP = 6 * FRAME  # what the discriminators hear of a segment
CEILING = 0.9  # of the largest sample
PEAK_LOSS = 0.05


class Segments:
    """Random cuts of (codes, wave) from every encoded shard but the held-out one."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder = work_dir
        self.seen: set[str] = set()
        self.waves: list[np.ndarray] = []  # int16
        self.codes: list[list[np.ndarray]] = []  # of every grid shift
        self.refresh()

    def refresh(self) -> None:
        """Reads the shards that came since the last call."""
        paths = sorted(p for p in (self.folder / "tokens").glob("*.npz") if ".part" not in p.name)
        for index, path in enumerate(paths):
            if index == HELD_OUT_SHARD or path.name in self.seen:
                continue
            self.seen.add(path.name)
            coded = load_coded(path).codes
            waves = load_shard(self.folder / "corpus" / path.name).waves
            for codes, takes in zip(coded, waves, strict=True):
                self.codes.extend(codes)
                padded = [np.pad(wave, (0, 2 * FRAME)) for wave in takes]
                self.waves.extend((w * 32767).clip(-32767, 32767).astype(np.int16) for w in padded)
        sizes = np.array([len(c[0]) for c in self.codes], np.float64)
        self.weights = np.cumsum(sizes / sizes.sum())
        print(f"{len(self.waves)} takes, {sizes.sum() * 0.08 / 3600:.2f} h")

    def batch(self, size: int, frames: int, cold: int) -> tuple[Tensor, Tensor]:
        """Codes [size, 8, frames] and waves [size, frames * 1920]; `cold` rows begin a text."""
        codes = np.zeros((size, frames, CODEBOOKS), np.int64)
        waves = np.zeros((size, frames * FRAME), np.float32)
        for row in range(size):
            while True:
                i = int(np.searchsorted(self.weights, self.rng.random()))
                shift = int(self.rng.integers(COLUMNS))
                text = self.codes[i][shift]
                if len(text) >= frames:
                    break
            first = 0 if row < cold else int(self.rng.integers(len(text) - frames + 1))
            start = (LEAD + shift) * HOP + first * FRAME
            codes[row] = text[first : first + frames]
            wave = self.waves[i][start : start + frames * FRAME]
            waves[row, : len(wave)] = wave / np.float32(32767)
        return torch.from_numpy(codes).transpose(1, 2), torch.from_numpy(waves)


def disturb(codes: Tensor, share: float) -> Tensor:
    """Replaces a share of the finer codes: the decoder learns to forgive what sampling does."""
    noise = torch.rand(codes.shape) < share * torch.linspace(0.0, 1.5, CODEBOOKS)[None, :, None]
    return torch.where(noise, torch.randint(0, CODES, codes.shape), codes)


class Vocoder(nn.Module):
    """The decoding half of a MimiModel, which stays the owner of every weight."""

    def __init__(self, mimi: MimiModel) -> None:
        super().__init__()
        self.quantizer, self.decoder = mimi.quantizer, mimi.decoder
        for conv in (
            self.quantizer.semantic_residual_vector_quantizer.input_proj,
            self.quantizer.acoustic_residual_vector_quantizer.input_proj,
        ):
            conv.requires_grad_(False)

    def forward(self, codes: Tensor) -> Tensor:
        latents = self.quantizer.decode(codes)
        x = self.decoder.upsample(latents)
        x = self.decoder.decoder_transformer(x.transpose(1, 2)).last_hidden_state
        return self.decoder.decoder_seanet(x.transpose(1, 2))[:, 0].float()


def build(work_dir: Path, start: Path | None) -> Vocoder:
    quantizer = Quantizer.load(work_dir)
    if start:
        mimi = continued(start, quantizer, work_dir).train().requires_grad_(True)
        return Vocoder(mimi)
    mimi = MimiModel(mimi_config())
    set_codebooks(mimi, quantizer)
    semantic = mimi.quantizer.semantic_residual_vector_quantizer.output_proj
    acoustic = mimi.quantizer.acoustic_residual_vector_quantizer.output_proj
    nn.init.orthogonal_(semantic.weight[:, :, 0])
    nn.init.orthogonal_(acoustic.weight[:, :, 0])
    return Vocoder(mimi)


def mel_and_peak(mel_loss: MelLoss, fake: Tensor, real: Tensor, cold: int) -> tuple[Tensor, Tensor]:
    """Mel loss, of the first `cold` rows from their first sample on; what is over the ceiling."""
    late = WARM_FRAMES * FRAME
    share = cold / len(fake)
    mel = (1 - share) * mel_loss(fake[cold:, late:], real[cold:, late:])
    if cold:
        mel = mel + share * mel_loss(fake[:cold], real[:cold])
    return mel, (fake.abs() - CEILING).clamp(min=0).sum() / len(fake)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4800.0)
    parser.add_argument("--gan-from", type=float, default=0.35, help="share of the time")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--start", type=Path, help="a GGUF to start from")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    one_thread(args.seed)
    model = build(args.work_dir, args.start)
    average = Average(model, 0.998)
    judges = Discriminators()
    mel_loss = MelLoss()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, args.rate, (0.8, 0.99), weight_decay=0.01)
    judge_optimizer = torch.optim.AdamW(judges.parameters(), 4e-4, (0.8, 0.99), weight_decay=0.01)
    parts = {"model": model, "average": average.module, "judges": judges}
    run = Run(
        args.work_dir,
        "decoder",
        parts | {"optimizer": optimizer, "judge_optimizer": judge_optimizer},
    )
    data = Segments(args.work_dir, args.seed + run.step)
    bar = tqdm(total=int(args.seconds), initial=int(run.seconds), unit="s", mininterval=5)
    sums: dict[str, float] = {}
    while run.seconds < args.seconds and not run.stopped:
        done = run.seconds / args.seconds
        warm = min(1.0, (run.step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * max(0.03, 0.5 * (1 + math.cos(math.pi * done)))
        adversarial = done >= args.gan_from
        codes, real = data.batch(BATCH, FRAMES, COLD)
        with torch.autocast("cpu", torch.bfloat16):
            fake = model(disturb(codes, 0.06))
        losses = dict(zip(("mel", "peak"), mel_and_peak(mel_loss, fake, real, COLD), strict=True))
        total = losses["mel"]
        if adversarial:
            at = int(torch.randint(WARM_FRAMES * FRAME, fake.shape[1] - CROP + 1, ()))
            heard, true = fake[:, at : at + CROP], real[:, at : at + CROP]
            with torch.autocast("cpu", torch.bfloat16):
                losses["judge"] = judges.judge(heard.detach(), true)
            judge_optimizer.zero_grad(set_to_none=True)
            losses["judge"].backward()
            judge_optimizer.step()
            judges.requires_grad_(False)
            with torch.autocast("cpu", torch.bfloat16):
                losses["adv"], losses["features"] = judges.teach(heard, true)
            judges.requires_grad_(True)
            total = 15 * total + losses["adv"] + 2 * losses["features"]
        total = total + PEAK_LOSS * losses["peak"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 20.0 if adversarial else 1.0)
        optimizer.step()
        average.update(model, run.step)
        before = run.seconds
        run.tick()
        bar.update(int(run.seconds) - int(before))
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value.item() / 50
        if run.step % 50 == 0:
            run.write(**sums)
            bar.set_postfix({"step": run.step} | {k: f"{v:.3f}" for k, v in sums.items()})
            sums = {}
        if run.step % 500 == 0:
            data.refresh()
    run.save()


if __name__ == "__main__":
    main()
