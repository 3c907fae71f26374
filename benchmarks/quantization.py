"""What number formats cost in size and speed, and what they change in the logits.

Prints the tables of docs/QUANTIZATION.md. Formats are written as `q4_0`, or as `q4_0/q8_0` for a
backbone in the first and a depth decoder in the second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
from csm_ggml import CSM, _core
from csm_ggml.bench.floor import frame_bytes
from csm_ggml.bench.report import format_table
from csm_ggml.bench.runner import BANDWIDTH_BYTES
from csm_ggml.bench.session import Session
from csm_ggml.bench.synthetic import make_synthetic, synthetic_path
from csm_ggml.convert import PRESETS, convert, quantize_file
from csm_ggml.convert.layout import expected
from csm_ggml.convert.policy import TypePolicy
from csm_ggml.convert.types import row_bytes
from csm_ggml.loading.hub import user_cache
from csm_ggml.loading.threads import default_threads
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))

from reference.checkpoint import write_checkpoint
from reference.recipes import WIDE, Recipe

FORMATS = "bf16,f16,q8_0,q6_k,q5_k,q4_k,q4_0,q4_0/q8_0,q8_0/q4_0,q4_k/q8_0"
SHAPE = "csm-1b"

SENTENCES = (
    "[0]The train leaves at half past nine, so be there early.",
    "[1]Are you sure? I thought that it was much later.",
    "[0]It rained for three days, and then the river came over its banks.",
    "[1]She opened the letter, read it twice, and said nothing.",
    "[0]One, two, three, four, five, six, seven.",
    "[1]No, thank you.",
)


@dataclass(frozen=True)
class Format:
    """Number formats of the two language models."""

    type: str
    depth_type: str

    @classmethod
    def parse(cls, text: str) -> Format:
        """From `type` or `type/depth_type`."""
        first, _, second = text.partition("/")
        return cls(first, second or first)

    def __str__(self) -> str:
        """As it is parsed."""
        same = self.type == self.depth_type
        return self.type if same else f"{self.type}/{self.depth_type}"

    def parts(self) -> dict[str, Format]:
        """The formats when only a part of the model has them, where that says anything new."""
        if self.type != self.depth_type:
            return {"both": self}
        return {
            "backbone": Format(self.type, "f32"),
            "depth decoder": Format("f32", self.depth_type),
            "both": self,
        }


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", type=_formats, default=FORMATS)
    parser.add_argument(
        "--model", type=Path, help="csm-ggml file, best in f32 or f16, in place of random weights"
    )
    parser.add_argument("--frames", type=int, default=16, help="for each of the sentences")
    parser.add_argument("--speed", action="store_true", help="measure size and speed instead")
    parser.add_argument("--speed-frames", type=int, default=8, help="in each round")
    parser.add_argument("--rounds", type=int, default=3, help="turns in which speed is measured")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--work-dir", type=Path, default=user_cache(), help="of full-size files")
    args = parser.parse_args()
    if args.speed:
        speed(args.formats, args.speed_frames, args.rounds, args.threads, args.work_dir)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = args.model or random_model(Path(folder))
        divergence(source, args.formats, Path(folder), args.frames, args.threads)


def random_model(folder: Path) -> Path:
    """A checkpoint of csm-1b's layers, heads and codebooks at a quarter of its backbone's width.

    Its logits are as peaked as those of the tests' widest checkpoint.
    """
    config = WIDE.config | {"num_hidden_layers": 16, "intermediate_size": 2048}
    config["depth_decoder_config"] = config["depth_decoder_config"] | {
        "num_hidden_layers": 4,
        "intermediate_size": 4096,
    }
    recipe: Recipe = replace(WIDE, name="deep", config=config)
    path = folder / "random.gguf"
    convert(write_checkpoint(recipe, folder / "checkpoint"), path, type="f32", progress=False)
    return path


def divergence(
    source: Path, formats: Sequence[Format], folder: Path, frames: int, threads: int
) -> None:
    """Print how far the logits of each format are from those of the source."""
    exact = CSM.from_pretrained(source, device="cpu", threads=threads)
    codes, wanted = _speak(exact, frames)
    drawn = int(exact.config["csm.codes"])
    rows = []
    for format in formats:
        for part, mixed in format.parts().items():
            path = quantize_file(
                source, folder / "other.gguf", mixed.type, mixed.depth_type, progress=False
            ).path
            model = CSM.from_pretrained(path, device="cpu", threads=threads)
            _, found = _speak(model, frames, codes)
            cells = [str(format), part]
            for codebooks in (slice(0, 1), slice(1, None)):
                cells += _compare(wanted[:, :, codebooks, :drawn], found[:, :, codebooks, :drawn])
            rows.append(cells)
            print(" | ".join(cells), file=sys.stderr, flush=True)
    headings = ["format", "of"]
    for name in ("c0", "depth"):
        headings += [f"{name} KL, nats", "lowest cosine", "same argmax"]
    print("\n".join(format_table(headings, rows)))


def _speak(
    csm: CSM, frames: int, codes: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Codes (frames, sentences, codebooks) and the logits (..., codes) at each of them.

    Args:
        csm: What speaks the sentences, side by side.
        frames: Of each.
        codes: What to say; the model draws it itself if they are None.
    """
    engine = _core.Engine(csm.model.core, slots=len(SENTENCES))
    slots = []
    for seed, sentence in enumerate(SENTENCES):
        slot = engine.open(seed=seed)
        ids = np.array(csm.tokenize(sentence), np.int32)
        engine.append(slot, ids, np.zeros((len(ids), csm.codebooks), np.int32))
        slots.append(slot)
    spoken, logits = [], []
    for frame in range(frames):
        forced = None if codes is None else codes[frame]
        said, at = engine.step(slots, forced=forced, return_logits=True)
        assert at is not None
        spoken.append(said)
        logits.append(at)
    return np.stack(spoken), np.stack(logits)


def _compare(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> list[str]:
    """Mean KL divergence, lowest cosine and share of equal argmax, all over the last axis."""
    exact, other = wanted.astype(np.float64), found.astype(np.float64)
    log_p, log_q = _log_softmax(exact), _log_softmax(other)
    nats = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    norms = np.linalg.norm(exact, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = ((exact * other).sum(-1) / norms).min()
    same = (exact.argmax(-1) == other.argmax(-1)).mean()
    return [f"{max(nats, 0):.2g}", f"{cosine:.5f}", f"{100 * same:.1f} %"]


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    normalized: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalized


def speed(formats: Sequence[Format], frames: int, rounds: int, threads: int, folder: Path) -> None:
    """Print the size of csm-1b in each format, what a frame reads and how long it takes.

    All formats are in memory at once and speak in turns, so that all see the same of the machine.
    """
    sessions, reading = [], []
    for format in formats:
        path = _full_size(format, folder)
        sessions.append(Session([path], device="cpu", threads=threads))
        reading.append(frame_bytes([path], PRESETS[SHAPE].config.codebooks))
    bandwidths = []
    for _ in range(rounds):
        bandwidths.append(_core.read_bandwidth(threads, BANDWIDTH_BYTES))
        for session in sessions:
            session.speak(frames)
    bandwidth = median(bandwidths)
    cells = []
    for format, session, read in zip(formats, sessions, reading, strict=True):
        lm, mimi = session.samples.lm, session.samples.mimi
        cells.append(
            [
                str(format),
                f"{model_bytes(format) / 1e6:.0f}",
                f"{read / 1e6:.0f}",
                f"{1e3 * median(map(sum, zip(lm, mimi, strict=True))):.0f}",
                f"{1e3 * median(lm):.0f}",
                f"{1e3 * read / bandwidth:.0f}",
            ]
        )
    headings = ["format", "model MB", "MB read/frame", "ms/frame", "models ms", "floor ms"]
    print("\n".join(format_table(headings, cells)))
    print(f"\n{bandwidth / 1e9:.1f} GB/s read by {threads} threads")


def _full_size(format: Format, folder: Path) -> Path:
    depth = None if format.depth_type == format.type else format.depth_type
    path = synthetic_path(folder, SHAPE, format.type, depth)
    if not path.exists():
        make_synthetic(path, SHAPE, format.type, depth)
    return path


def model_bytes(format: Format) -> int:
    """Bytes of csm-1b's tensors in this format."""
    specs = expected(PRESETS[SHAPE].config)
    given, _ = TypePolicy(format.type, format.depth_type).assign(specs)
    return sum(
        prod(spec.shape[:-1]) * row_bytes(kind, spec.shape[-1])
        for spec, kind in zip(specs, given, strict=True)
    )


def _formats(text: str) -> list[Format]:
    return [Format.parse(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
