"""transformers and csm-ggml on the same machine, in turns, with random weights of the same sizes.

Machines differ, and the same machine differs from minute to minute: only what is measured side by
side can be compared. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from csm_ggml.bench import machine
from csm_ggml.bench.report import format_table
from csm_ggml.bench.session import PROMPT_ROWS, Session
from csm_ggml.bench.synthetic import make_synthetic, synthetic_path
from csm_ggml.convert import PRESETS
from csm_ggml.convert.config import MimiConfig, ModelConfig, TransformerConfig
from csm_ggml.loading.codec import DECODE_FRAMES
from csm_ggml.loading.hub import user_cache
from csm_ggml.loading.threads import default_threads
from csm_ggml.speech.options import Sampling
from transformers import CsmConfig, CsmForConditionalGeneration

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
WARM_UP_FRAMES = 3
CODEC_CHUNKS = 3
# The first text ids have a meaning in transformers' configuration and are not for prompts.
MARKS = 4


@dataclass
class Timings:
    """Seconds, in the order of measuring.

    Attributes:
        frame: The language models for one frame, after the first.
        first_frame: Prompt and first frame.
        codec: Decoding one frame, 25 at a time.
    """

    frame: list[float] = field(default_factory=list)
    first_frame: list[float] = field(default_factory=list)
    codec: list[float] = field(default_factory=list)


class Transformers:
    """CsmForConditionalGeneration as it is used: its own generate, not compiled."""

    def __init__(self, config: ModelConfig, dtype: str) -> None:
        """Make a model of random weights."""
        self.timings = Timings()
        self._config = config
        self._model = CsmForConditionalGeneration._from_config(
            transformers_config(config), dtype=DTYPES[dtype]
        ).eval()

    @torch.no_grad()
    def run(self, frames: int) -> None:
        """Speak so many frames; decode some chunks of codes."""
        clock = _Clock()
        sampling = Sampling()
        options = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "depth_decoder_do_sample": True,
            "depth_decoder_temperature": sampling.depth_temperature,
            "depth_decoder_top_k": sampling.depth_top_k,
        }
        prompt = torch.randint(MARKS, self._config.text_vocab_size, (1, PROMPT_ROWS))
        self._model.generate(prompt, max_new_tokens=frames, streamer=clock, **options)
        # The prompt is the first thing that a streamer gets.
        marks = clock.marks
        self.timings.first_frame.append(marks[1] - marks[0])
        self.timings.frame += [after - before for before, after in pairwise(marks[1:])]
        for _ in range(CODEC_CHUNKS):
            codes = torch.randint(
                0, self._config.mimi.codebook_size, (1, self._config.codebooks, DECODE_FRAMES)
            )
            started = time.perf_counter()
            self._model.codec_model.decode(codes)
            self.timings.codec.append((time.perf_counter() - started) / DECODE_FRAMES)


class CsmGgml:
    """The engine as `csm-ggml bench` times it, in this process."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load a checkpoint."""
        self._session = Session([path], device="cpu", threads=threads)

    @property
    def timings(self) -> Timings:
        """What has been measured."""
        samples = self._session.samples
        return Timings(samples.lm, samples.first_audio, samples.mimi_chunk)

    def run(self, frames: int) -> None:
        """Speak so many frames; decode some chunks of codes."""
        self._session.speak(frames)
        self._session.decode_chunks(CODEC_CHUNKS)


class _Clock:
    """A streamer that notes when each frame is there."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self.marks.append(time.perf_counter())

    def end(self) -> None:
        pass


def transformers_config(config: ModelConfig) -> CsmConfig:
    """The same sizes in transformers' names."""
    shared = {"num_codebooks": config.codebooks, "vocab_size": config.audio_vocab_size}
    return CsmConfig(
        **shared,
        **_stack(config.backbone),
        text_vocab_size=config.text_vocab_size,
        max_position_embeddings=config.context_length,
        bos_token_id=0,
        pad_token_id=1,
        audio_token_id=2,
        audio_eos_token_id=3,
        codebook_pad_token_id=config.audio_vocab_size - 1,
        depth_decoder_config={
            **shared,
            **_stack(config.depth),
            "backbone_hidden_size": config.backbone.embedding_length,
            "max_position_embeddings": config.codebooks + 1,
        },
        codec_config=_codec(config.mimi, config.codebooks),
    )


def _stack(part: TransformerConfig) -> dict[str, Any]:
    return {
        "hidden_size": part.embedding_length,
        "intermediate_size": part.feed_forward_length,
        "num_hidden_layers": part.block_count,
        "num_attention_heads": part.head_count,
        "num_key_value_heads": part.head_count_kv,
        "head_dim": part.head_dim,
        "rope_parameters": {"rope_type": "default", "rope_theta": part.freq_base},
    }


def _codec(mimi: MimiConfig, codebooks: int) -> dict[str, Any]:
    return {
        "model_type": "mimi",
        "hidden_size": mimi.hidden_size,
        "num_filters": mimi.num_filters,
        "upsampling_ratios": list(mimi.upsampling_ratios),
        "num_hidden_layers": mimi.block_count,
        "num_attention_heads": mimi.head_count,
        "num_key_value_heads": mimi.head_count_kv,
        "head_dim": mimi.head_dim,
        "intermediate_size": mimi.feed_forward_length,
        "sliding_window": mimi.sliding_window,
        "codebook_size": mimi.codebook_size,
        "codebook_dim": mimi.codebook_dim,
        "vector_quantization_hidden_dimension": mimi.codebook_dim,
        "num_quantizers": codebooks,
        "num_semantic_quantizers": mimi.semantic_codebooks,
        "upsample_groups": mimi.hidden_size,
    }


def main() -> None:
    """Measure and print."""
    args = _arguments()
    threads = args.threads or default_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    types = args.type.split(",")
    paths = [synthetic_path(args.work_dir, args.preset, type) for type in types]
    for path, type in zip(paths, types, strict=True):
        if not path.exists():
            make_synthetic(path, args.preset, type)

    load = machine.load_average()
    engines: dict[str, Transformers | CsmGgml] = {
        f"transformers {args.dtype}": Transformers(PRESETS[args.preset].config, args.dtype)
    }
    for path, type in zip(paths, types, strict=True):
        engines[f"csm-ggml {type}"] = CsmGgml(path, threads)
    first = next(iter(engines.values()))
    assert isinstance(first, Transformers)
    # csm-ggml's sessions warm up by themselves.
    first.run(WARM_UP_FRAMES)
    first.timings = Timings()

    for turn in range(args.rounds):
        for name, engine in engines.items():
            print(f"round {turn + 1} of {args.rounds}: {name}", flush=True)
            engine.run(args.frames)
    rows = [_row(name, engine.timings) for name, engine in engines.items()]
    described = machine.describe()
    described |= {"torch": torch.__version__, "load_average_before": load, "threads": threads}
    _print(described, rows, args.preset)
    if args.json:
        args.json.write_text(json.dumps({"machine": described, "rows": rows}, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="csm-1b", choices=sorted(PRESETS), help="the sizes")
    parser.add_argument("--dtype", default="bf16", choices=sorted(DTYPES), help="of transformers")
    parser.add_argument("--type", default="q4_0,q8_0", help="of csm-ggml, with commas between")
    parser.add_argument("--threads", type=int, help="of both (default: physical cores)")
    parser.add_argument("--frames", type=int, default=10, help="in each round, at least 2")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument(
        "--work-dir", type=Path, default=user_cache(), help="where random weights are kept"
    )
    args = parser.parse_args()
    if args.frames < 2 or args.rounds < 1:
        parser.error("expected --frames of at least 2 and --rounds of at least 1")
    return args


def _row(name: str, timings: Timings) -> dict[str, Any]:
    return {
        "engine": name,
        "lm_ms_per_frame": median(timings.frame) * 1e3,
        "lm_ms_per_frame_min": min(timings.frame) * 1e3,
        "lm_ms_per_frame_max": max(timings.frame) * 1e3,
        "first_frame_ms": median(timings.first_frame) * 1e3,
        "mimi_chunk_ms_per_frame": median(timings.codec) * 1e3,
    }


def _print(described: dict[str, Any], rows: list[dict[str, Any]], preset: str) -> None:
    print(f"\n{described['cpu']}, {described['threads']} threads; sizes of {preset}; medians")
    print(f"torch {described['torch']}, csm-ggml {described['csm_ggml']}\n")
    headings = ["engine", "models ms/frame", "min", "max", "first frame ms", "Mimi 25 frames ms"]
    form: Callable[[float], str] = "{:.2f}".format
    cells = [[row["engine"], *map(form, list(row.values())[1:])] for row in rows]
    base = rows[0]["lm_ms_per_frame"]
    for row, cell in zip(rows, cells, strict=True):
        cell.append(f"{base / row['lm_ms_per_frame']:.1f} x")
    print("\n".join(format_table([*headings, "speed"], cells)))


if __name__ == "__main__":
    main()
