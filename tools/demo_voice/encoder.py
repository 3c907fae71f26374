"""Stage 5, encoder: the encoding half of Mimi regresses the PCA vectors.

    python encoder.py --work-dir DIR --seconds 1200

The semantic projection learns the vector itself, the acoustic one what codebook 0 leaves of it.
Writes DIR/encoder.pt.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import MimiModel

from common import Average, Run, one_thread
from decoder import Segments
from features import Codebooks
from models import mimi_config, set_codebooks


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    one_thread(args.seed)
    books = Codebooks.load(args.work_dir / "codebooks.npz")
    mimi = MimiModel(mimi_config())
    scale = set_codebooks(mimi, books)
    tables = torch.from_numpy(books.books / scale)
    model = Listener(mimi)
    average = Average(model, 0.995)
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, (0.9, 0.98), weight_decay=0.01)
    parts = {"model": model, "average": average.module, "optimizer": optimizer}
    run = Run(args.work_dir, "encoder", parts)
    data = Segments(args.work_dir, args.shards, args.seed + run.step)
    bar = tqdm(total=int(args.seconds), initial=int(run.seconds), unit="s", mininterval=5)
    sums: dict[str, float] = {}
    while run.seconds < args.seconds and not run.stopped:
        done = run.seconds / args.seconds
        warm = min(1.0, (run.step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
        codes, wave = data.batch(8, 12)
        parts_of = torch.stack([tables[i][codes[:, i]] for i in range(len(tables))])
        whole, rest = parts_of.sum(0), parts_of[1:].sum(0)
        with torch.autocast("cpu", torch.bfloat16):
            semantic, acoustic = model(wave * float(torch.empty(()).uniform_(0.7, 1.1)))
        got = (semantic.transpose(1, 2), acoustic.transpose(1, 2))
        losses = {
            "whole": (got[0] - whole)[:, 1:].square().mean(),
            "rest": (got[1] - rest)[:, 1:].square().mean(),
        }
        optimizer.zero_grad(set_to_none=True)
        (losses["whole"] + losses["rest"]).backward()
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
    run.save()


if __name__ == "__main__":
    main()
