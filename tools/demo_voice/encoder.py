"""Stage 5, encoder: the encoding half of Mimi regresses the PCA vectors.

    python encoder.py --work-dir DIR --seconds 2400 [--start demo.gguf]

From whoever speaks, the semantic projection learns the vector that the woman would have here, and
which code that is; the acoustic one learns the speaker's own vector. Both are independent of each
other, as the quantizer is. Noise, another colour and another loudness in the wave change nothing
in what is to be learned. Writes DIR/encoder.pt.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import MimiModel

from codec_start import continued
from common import Average, Run, one_thread
from features import FRAME, HOP, Quantizer, log_mel, patches
from models import mimi_config, set_codebooks
from tokens import HELD_OUT_SHARD, load_shard, shards

ROWS, FRAMES = 8, 14
WARM = 1  # frames at the start of a cut whose left context is missing
CODE_LOSS = 0.1
SHARPNESS = 8.0  # of the softmax over the codes' squared distances


class Listener(nn.Module):
    """The encoding half of a MimiModel, which stays the owner of every weight."""

    def __init__(self, mimi: MimiModel) -> None:
        super().__init__()
        self.encoder = mimi.encoder
        self.semantic = mimi.quantizer.semantic_residual_vector_quantizer.input_proj
        self.acoustic = mimi.quantizer.acoustic_residual_vector_quantizer.input_proj

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L] -> two [B, 96, L / 1920]."""
        x = self.encoder.encoder_seanet(wave[:, None])
        x = self.encoder.encoder_transformer(x.transpose(1, 2)).last_hidden_state
        x = self.encoder.downsample(x.transpose(1, 2))
        return self.semantic(x).float(), self.acoustic(x).float()


class Cuts:
    """Random cuts of the corpus, each with its vectors, at any place of the grid."""

    def __init__(self, work_dir: Path, quantizer: Quantizer, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder, self.quantizer = work_dir, quantizer
        self.seen: set[str] = set()
        self.waves: list[np.ndarray] = []  # [speakers, L], int16
        self.refresh()

    def refresh(self) -> None:
        """Reads the shards that came since the last call."""
        for index, path in enumerate(shards(self.folder)):
            if index == HELD_OUT_SHARD or path.name in self.seen:
                continue
            self.seen.add(path.name)
            for takes in load_shard(path).waves:
                wave = np.pad(np.stack(takes), ((0, 0), (FRAME, 2 * FRAME)))
                if wave.shape[1] > (FRAMES + 2) * FRAME:
                    self.waves.append((wave * 32767).clip(-32767, 32767).astype(np.int16))
        self.weights = np.cumsum([w.shape[1] for w in self.waves], dtype=np.float64)
        self.weights /= self.weights[-1]
        print(f"{len(self.waves)} texts of {len(self.seen)} shards")

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Waves [ROWS, L], semantic and acoustic vectors [ROWS, FRAMES, 96], codes of book 0."""
        waves, said, heard = [], [], []
        edge = 2 * HOP  # the patches look a little over the edges of a frame
        length = FRAMES * FRAME
        for _ in range(ROWS):
            takes = self.waves[int(np.searchsorted(self.weights, self.rng.random()))]
            take = int(self.rng.integers(len(takes)))
            start = int(self.rng.integers(edge, takes.shape[1] - length - edge))
            cut = slice(start - edge, start + length + edge)
            for goal, who in ((said, 0), (heard, take)):
                wave = takes[who, cut].astype(np.float32) / 32767
                goal.append(patches(log_mel(wave)[edge // HOP :][: FRAMES * 8]))
            waves.append(takes[take, start : start + length].astype(np.float32) / 32767)
        semantic = self.quantizer.semantic.project(np.concatenate(said))
        acoustic = self.quantizer.acoustic.project(np.concatenate(heard))
        codes = self.quantizer.semantic.encode(semantic)[:, 0].astype(np.int64)
        return (
            torch.from_numpy(self.spoilt(np.stack(waves))),
            torch.from_numpy(semantic.reshape(ROWS, FRAMES, -1).astype(np.float32)),
            torch.from_numpy(acoustic.reshape(ROWS, FRAMES, -1).astype(np.float32)),
            torch.from_numpy(codes.reshape(ROWS, FRAMES)),
        )

    def spoilt(self, waves: np.ndarray) -> np.ndarray:
        """Louder or softer; some with noise."""
        gain = self.rng.uniform(0.5, 1.2, (ROWS, 1))
        level = 10.0 ** self.rng.uniform(-4.0, -2.2, (ROWS, 1)) * (self.rng.random((ROWS, 1)) < 0.4)
        noise = self.rng.standard_normal(waves.shape, dtype=np.float32)
        return (waves * gain + level * noise).astype(np.float32)


def build(work_dir: Path, start: Path | None) -> Listener:
    quantizer = Quantizer.load(work_dir)
    mimi = continued(start, quantizer, work_dir) if start else MimiModel(mimi_config())
    set_codebooks(mimi, quantizer)
    return Listener(mimi.train().requires_grad_(True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a GGUF to start from")
    parser.add_argument("--seconds", type=float, default=2400.0)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    one_thread(args.seed)
    quantizer = Quantizer.load(args.work_dir)
    book = torch.from_numpy(quantizer.semantic.books[0].astype(np.float32))
    model = build(args.work_dir, args.start)
    average = Average(model, 0.995)
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, (0.9, 0.98), weight_decay=0.01)
    parts = {"model": model, "average": average.module, "optimizer": optimizer}
    run = Run(args.work_dir, "encoder", parts)
    data = Cuts(args.work_dir, quantizer, args.seed + run.step)
    bar = tqdm(total=int(args.seconds), initial=int(run.seconds), unit="s", mininterval=5)
    sums: dict[str, float] = {}
    while run.seconds < args.seconds and not run.stopped:
        done = run.seconds / args.seconds
        warm = min(1.0, (run.step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
        waves, said, heard, codes = data.batch()
        with torch.autocast("cpu", torch.bfloat16):
            semantic, acoustic = model(waves)
        got = semantic.transpose(1, 2)[:, WARM:]
        near = SHARPNESS * (got @ book.T - 0.5 * book.square().sum(1)) / book.shape[1]
        losses = {
            "said": (got - said[:, WARM:]).square().mean(),
            "heard": (acoustic.transpose(1, 2) - heard)[:, WARM:].square().mean(),
            "code": functional.cross_entropy(near.flatten(0, 1), codes[:, WARM:].flatten()),
        }
        optimizer.zero_grad(set_to_none=True)
        (losses["said"] + losses["heard"] + CODE_LOSS * losses["code"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, run.step)
        before = run.seconds
        run.tick()
        bar.update(int(run.seconds) - int(before))
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value.item() / 25
        if run.step % 25 == 0:
            run.write(**sums)
            bar.set_postfix({"step": run.step} | {k: f"{v:.4f}" for k, v in sums.items()})
            sums = {}
        if run.step % 500 == 0:
            data.refresh()
    run.save()


if __name__ == "__main__":
    main()
