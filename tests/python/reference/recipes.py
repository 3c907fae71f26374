"""Random checkpoints as recipes: a configuration and a seed say every weight.

A recipe is small enough to commit where a checkpoint is not. The configurations differ from each
other in everything that the engine must read from the file instead of assuming: widths, heads
(plain, grouped, one key/value head), head widths that are not width / heads, codebooks, layers,
vocabularies, epsilons, RoPE bases and scaling, and for the codec filters, ratios, kernels, residual
blocks, dilation, compression, windows and semantic codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Text vocabulary of every recipe: 256 bytes, a few merges, four special tokens at the end in this
# order.
TEXT_MERGES = 60
BOS, EOS, AUDIO, AUDIO_EOS = (256 + TEXT_MERGES + i for i in range(4))
TEXT_VOCAB = 256 + TEXT_MERGES + 4

# Codes beyond the codec's own codebook: rows exist in heads and tables, sounds do not.
EXTRA_CODES = 3

# csm-1b's scaling as transformers writes it. Only the quotients original / factor matter: 8192 and
# 2048 in both.
LLAMA3_BACKBONE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 0.125,
    "high_freq_factor": 0.5,
    "original_max_position_embeddings": 1024,
}
LLAMA3_DEPTH = LLAMA3_BACKBONE | {
    "low_freq_factor": 0.001953125,
    "high_freq_factor": 0.0078125,
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True)
class Recipe:
    """A random checkpoint.

    Attributes:
        name: Name of the recipe, used in test ids and fixture files.
        seed: Seed of the weights.
        config: The checkpoint's config.json in transformers' naming.
        gain: Standard deviation of the logits, roughly: how peaked the model speaks.
        residual: Size of what each transformer block adds, relative to a block's plain random
            output.
        prompt_rows: Rows of the prompt with audio context (the text-only prompt has about a
            quarter).
        forced_frames: Frames of the teacher-forced run.
        greedy_frames: Frames of the greedy run.
        decode_frames: Frames of the codec's decoding run; always more latents than its attention
            window.
    """

    name: str
    seed: int
    config: dict[str, Any]
    gain: float = 3.0
    residual: float = 1.0
    prompt_rows: int = 40
    forced_frames: int = 24
    greedy_frames: int = 72
    decode_frames: int = 24

    @property
    def codebooks(self) -> int:
        return int(self.config["num_codebooks"])

    @property
    def audio_vocab(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def codec(self) -> dict[str, Any]:
        return dict(self.config["codec_config"])

    @property
    def codebook_size(self) -> int:
        return int(self.codec["codebook_size"])

    @property
    def frame_size(self) -> int:
        """Samples of one frame."""
        size = 2
        for ratio in self.codec["upsampling_ratios"]:
            size *= ratio
        return size


def _config(
    *,
    codebooks: int,
    codebook_size: int,
    backbone: dict[str, Any],
    depth: dict[str, Any],
    codec: dict[str, Any],
    context: int = 512,
) -> dict[str, Any]:
    """A whole config.json; backbone, depth and codec hold what is particular to them."""
    audio_vocab = codebook_size + EXTRA_CODES
    shared = {"num_codebooks": codebooks, "vocab_size": audio_vocab, "hidden_act": "silu"}
    plain_rope = {"rope_type": "default", "rope_theta": 500000.0}
    return {
        "architectures": ["CsmForConditionalGeneration"],
        "model_type": "csm",
        "dtype": "float32",
        "text_vocab_size": TEXT_VOCAB,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_parameters": plain_rope,
        "bos_token_id": BOS,
        "pad_token_id": AUDIO,
        "audio_token_id": AUDIO,
        "audio_eos_token_id": AUDIO_EOS,
        "codebook_eos_token_id": 0,
        "codebook_pad_token_id": audio_vocab - 1,
        "tie_codebooks_embeddings": True,
        **shared,
        **backbone,
        "depth_decoder_config": {
            "model_type": "csm_depth_decoder_model",
            "backbone_hidden_size": backbone["hidden_size"],
            "max_position_embeddings": codebooks + 1,
            "rms_norm_eps": 1e-5,
            "rope_parameters": plain_rope,
            **shared,
            **depth,
        },
        "codec_config": {
            "model_type": "mimi",
            "sampling_rate": 24000,
            "audio_channels": 1,
            "kernel_size": 7,
            "last_kernel_size": 3,
            "residual_kernel_size": 3,
            "num_residual_layers": 1,
            "dilation_growth_rate": 2,
            "compress": 2,
            "norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "num_semantic_quantizers": 1,
            "num_quantizers": codebooks,
            "codebook_size": codebook_size,
            "vector_quantization_hidden_dimension": codec["codebook_dim"],
            "upsample_groups": codec["hidden_size"],
            "use_causal_conv": True,
            **codec,
        },
    }


def _transformer(
    width: int, layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": hidden,
        **more,
    }


# Four codebooks, every head its own key/value head, no RoPE scaling; a codec with a window of 6
# latents (3 frames).
PLAIN4 = Recipe(
    "plain4",
    seed=11,
    config=_config(
        codebooks=4,
        codebook_size=128,
        backbone=_transformer(64, 2, 4, 4, 16, 96),
        depth=_transformer(32, 2, 2, 2, 16, 64),
        codec=_transformer(32, 2, 4, 4, 8, 64, sliding_window=6)
        | {"num_filters": 4, "upsampling_ratios": [4, 3, 2], "codebook_dim": 16},
    ),
)

# Eight codebooks, grouped heads wider than width / heads, scaled RoPE; a codec with two residual
# blocks a stage, growing dilation, other kernels, grouped heads, two semantic codebooks and a
# window that is odd.
GROUPED8 = Recipe(
    "grouped8",
    seed=23,
    config=_config(
        codebooks=8,
        codebook_size=128,
        backbone=_transformer(
            96, 3, 6, 2, 32, 160, rope_parameters=LLAMA3_BACKBONE, rms_norm_eps=1e-6
        ),
        depth=_transformer(64, 3, 4, 2, 32, 96, rope_parameters=LLAMA3_DEPTH, rms_norm_eps=1e-6),
        codec=_transformer(48, 2, 4, 2, 16, 80, sliding_window=9)
        | {
            "num_filters": 8,
            "upsampling_ratios": [5, 2, 2],
            "codebook_dim": 24,
            "kernel_size": 5,
            "last_kernel_size": 5,
            "num_residual_layers": 2,
            "dilation_growth_rate": 3,
            "compress": 4,
            "num_semantic_quantizers": 2,
            "norm_eps": 1e-6,
        },
    ),
)

# 32 codebooks, one key/value head in both models, a depth decoder wider than the backbone; a codec
# with a single upsampling stage, residual kernels of 5 and a RoPE base of its own.
SINGLE32 = Recipe(
    "single32",
    seed=33,
    config=_config(
        codebooks=32,
        codebook_size=256,
        backbone=_transformer(
            64, 2, 4, 1, 32, 128, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
        ),
        depth=_transformer(128, 1, 8, 1, 16, 192),
        codec=_transformer(
            64,
            3,
            2,
            2,
            32,
            96,
            sliding_window=16,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        )
        | {
            "num_filters": 16,
            "upsampling_ratios": [6],
            "codebook_dim": 32,
            "residual_kernel_size": 5,
            "dilation_growth_rate": 1,
        },
    ),
    greedy_frames=64,
)

# csm-1b in everything but width and layers: head widths 64 and 128, four query heads a key/value
# head, its RoPE scaling over more than 600 positions, 32 codebooks of 2051 codes, and Mimi's own
# ratios, kernels and window of 250 latents.
WIDE = Recipe(
    "wide",
    seed=48,
    config=_config(
        codebooks=32,
        codebook_size=2048,
        context=2048,
        backbone=_transformer(512, 3, 8, 2, 64, 1024, rope_parameters=LLAMA3_BACKBONE),
        depth=_transformer(512, 2, 4, 1, 128, 1024, rope_parameters=LLAMA3_DEPTH),
        codec=_transformer(64, 2, 2, 2, 32, 128, sliding_window=250)
        | {"num_filters": 8, "upsampling_ratios": [8, 6, 5, 4], "codebook_dim": 32},
    ),
    gain=4.0,
    residual=0.5,
    prompt_rows=640,
    forced_frames=3,
    greedy_frames=64,
    decode_frames=132,
)

RECIPES = {recipe.name: recipe for recipe in (PLAIN4, GROUPED8, SINGLE32, WIDE)}

# As small as a checkpoint can be and still have every part; for files that are loaded thousands of
# times.
TINY = Recipe(
    "tiny",
    seed=55,
    config=_config(
        codebooks=3,
        codebook_size=8,
        context=64,
        backbone=_transformer(8, 1, 2, 1, 4, 8),
        depth=_transformer(8, 1, 2, 1, 4, 8),
        codec=_transformer(8, 1, 2, 2, 4, 8, sliding_window=4)
        | {"num_filters": 2, "upsampling_ratios": [2], "codebook_dim": 4, "kernel_size": 3},
    ),
)
