"""Stage 4, language model: text and past frames -> codes of the next frame.

    python lm.py --work-dir DIR --seconds 4800

Writes DIR/lm.pt; run the command again to resume. New token shards are picked up on the way.
Every --check steps the held-out shard is scored, with its own texts and with shuffled ones: the
gap between the two says whether the model reads. The gap between a guest after a stranger's context
and after its own says whether it imitates. `--start demo.gguf` goes on from a finished file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common import Average, Run, one_thread
from features import Quantizer
from file_codebooks import books_of
from language_start import continue_from, load_language
from lm_data import Conversations
from lm_model import Speech
from models import CODEBOOKS, CODES, csm_config
from speakers import MAN


def start_from_geometry(model: Speech, books: np.ndarray) -> None:
    """Code embeddings begin as rotated centroids, so codes that sound alike begin alike."""
    turn = nn.init.orthogonal_(torch.empty(books.shape[2], model.audio.embedding_dim))
    table = model.audio.weight.data.view(CODEBOOKS, CODES + 3, -1)
    for level in range(CODEBOOKS):
        table[level, :CODES] += 0.7 * torch.from_numpy(books[level]).float() @ turn


def nearest_codes(books: np.ndarray, count: int) -> torch.Tensor:
    """[books, codes, count]: the centroids nearest to each, the likeliest slips of sampling."""
    tables = torch.from_numpy(books.astype(np.float32))
    distance = torch.cdist(tables, tables)
    return distance.topk(count + 1, largest=False).indices[:, :, 1:]


def split_parameters(model: Speech) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside the transformers (for Muon) and everything else (for AdamW)."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inner = name.startswith(("backbone.", "depth.")) and parameter.ndim == 2
        (matrices if inner else others).append(parameter)
    return matrices, others


@torch.no_grad()
def check(model: Speech, data: Conversations) -> dict[str, float]:
    """Validation losses; how much reading (c0, phone) and imitating (depth) depend on the rows."""
    found: dict[str, dict[str, float]] = {}
    kinds = ("woman", "shuffled", *(("man", "guest", "stranger") if MAN in data.said_by else ()))
    for kind in kinds:
        sums: dict[str, float] = {}
        total = 0
        for rows in data.validation(kind):
            count = int(rows.valid.sum())
            total += count
            share = 0.0 if kind == "shuffled" else 0.5
            with torch.autocast("cpu", torch.bfloat16):
                for key, value in model.losses(rows, 0.0, share).items():
                    sums[key] = sums.get(key, 0.0) + float(value) * count
        found[kind] = {key: value / total for key, value in sums.items()}
    scores = {f"val_{key}": value for key, value in found["woman"].items()}
    for key in ("c0", "phone"):
        scores[f"gap_{key}"] = found["shuffled"][key] - found["woman"][key]
    if "man" in found:
        scores |= {f"{kind}_depth": found[kind]["depth"] for kind in ("man", "guest")}
        scores["gap_voice"] = found["stranger"]["depth"] - found["guest"]["depth"]
    return scores


def start(model: Speech, args: argparse.Namespace) -> np.ndarray:
    """Fills the model as the options say; returns the codebooks [8, codes, dim]."""
    if args.same_codes:
        load_language(model, args.start)
        return books_of(args.start)
    quantizer = Quantizer.load(args.work_dir)
    books = np.concatenate([quantizer.semantic.books, quantizer.acoustic.books])
    if args.start:
        continue_from(model, args.start, args.work_dir, quantizer)
    else:
        start_from_geometry(model, books)
    return books


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4800.0)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--length", type=int, default=448)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--drop", type=float, default=0.5, help="frames that lose finer codes")
    parser.add_argument("--noise", type=float, default=0.03, help="codes replaced by any other")
    parser.add_argument("--start", type=Path, help="a GGUF to start from")
    parser.add_argument("--same-codes", action="store_true", help="the codes are of that GGUF")
    parser.add_argument("--long", type=float, default=0.35, help="share of long segments")
    parser.add_argument("--check", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    one_thread(args.seed)
    data = Conversations(args.work_dir, args.seed, args.long)
    model = Speech(csm_config(data.tokenizer.get_vocab_size(), data.special))
    books = start(model, args)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    average = Average(model, 0.99)
    model.neighbours = nearest_codes(books, 6)
    matrices, others = split_parameters(model)
    muon = torch.optim.Muon(
        matrices,
        lr=args.rate,
        weight_decay=0.05,
        momentum=0.95,
        ns_steps=4,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.02)
    parts = {"model": model, "average": average.module, "muon": muon, "adam": adam}
    run = Run(args.work_dir, "lm", parts)
    if run.step:
        torch.manual_seed(args.seed + run.step)
        data.rng = type(data.rng)(type(data.rng.bit_generator)(args.seed + run.step))
    if args.start and not run.step:
        run.write(**check(model, data))
    bar = tqdm(total=int(args.seconds), initial=int(run.seconds), unit="s", mininterval=5)
    sums: dict[str, float] = {}
    while run.seconds < args.seconds and not run.stopped:
        done = run.seconds / args.seconds
        rate = args.rate * min(1.0, (run.step + 1) / 100) * max(0.02, min(1.0, 1.25 * (1 - done)))
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
        rows = data.batch(args.rows, args.length)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.losses(rows, args.drop, depth_share=0.2, noise=args.noise)
        # The aids matter until the model has found out how to read; then they step back.
        aid = min(1.0, max(0.15, 1.5 - 2 * done))
        total = losses["c0"] + losses["depth"] + aid * 0.4 * (losses["phone"] + losses["guide"])
        for optimizer in (muon, adam):
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        average.update(model, run.step)
        before = run.seconds
        run.tick()
        bar.update(int(run.seconds) - int(before))
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value.item() / 25
        if run.step % 25 == 0:
            run.write(**sums)
            bar.set_postfix({"step": run.step} | {k: f"{v:.3f}" for k, v in sums.items()})
            sums = {}
        if run.step % args.check == 0:
            scores = check(average.module, data)
            run.write(**scores)
            tqdm.write(f"{run.step}: " + " ".join(f"{k}={v:.3f}" for k, v in scores.items()))
            data.refresh()
    run.save()


if __name__ == "__main__":
    main()
