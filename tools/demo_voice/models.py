"""The two configurations of the demo voice and the way the k-means codebooks enter Mimi."""

from __future__ import annotations

import numpy as np
import torch
from transformers import CsmConfig, MimiConfig, MimiModel

from features import Quantizer

CODES = 512
CODEBOOKS = 8
HEAD_DIM = 64


def mimi_config() -> MimiConfig:
    hidden = 192
    return MimiConfig(
        hidden_size=hidden,
        num_filters=16,
        upsampling_ratios=[8, 6, 5, 4],
        codebook_size=CODES,
        codebook_dim=96,
        vector_quantization_hidden_dimension=96,
        num_quantizers=CODEBOOKS,
        num_semantic_quantizers=1,
        num_hidden_layers=2,
        num_attention_heads=hidden // HEAD_DIM,
        num_key_value_heads=hidden // HEAD_DIM,
        head_dim=HEAD_DIM,
        intermediate_size=512,
        upsample_groups=hidden,
        sliding_window=250,
        layer_scale_initial_scale=0.1,
    )


def csm_config(text_vocab: int, specials: dict[str, int]) -> CsmConfig:
    """`specials` maps bos, eos, audio and audio_eos to text ids."""
    vocab = CODES + 3
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0}
    return CsmConfig(
        num_codebooks=CODEBOOKS,
        vocab_size=vocab,
        text_vocab_size=text_vocab,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HEAD_DIM,
        max_position_embeddings=2048,
        rope_parameters={
            **rope,
            "low_freq_factor": 0.125,
            "high_freq_factor": 0.5,
            "original_max_position_embeddings": 1024,
        },
        bos_token_id=specials["bos"],
        pad_token_id=specials["audio"],
        audio_token_id=specials["audio"],
        audio_eos_token_id=specials["audio_eos"],
        codebook_pad_token_id=vocab - 1,
        codebook_eos_token_id=0,
        tie_codebooks_embeddings=True,
        depth_decoder_config={
            "num_codebooks": CODEBOOKS,
            "backbone_hidden_size": 256,
            "vocab_size": vocab,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": 33,
            "rope_parameters": {
                **rope,
                "low_freq_factor": 0.001953125,
                "high_freq_factor": 0.0078125,
                "original_max_position_embeddings": 16,
            },
        },
        codec_config=mimi_config().to_dict(),
    )


def set_codebooks(mimi: MimiModel, quantizer: Quantizer) -> None:
    """Writes the codebooks into Mimi's quantizer.

    `cluster_usage` is 1, so the sums are the centroids themselves.
    """
    layers = [
        *mimi.quantizer.semantic_residual_vector_quantizer.layers,
        *mimi.quantizer.acoustic_residual_vector_quantizer.layers,
    ]
    books = [*quantizer.semantic.books, *quantizer.acoustic.books]
    for layer, book in zip(layers, books, strict=True):
        layer.codebook.embed_sum.copy_(torch.from_numpy(book.astype(np.float32)))
        layer.codebook.cluster_usage.fill_(1.0)
        layer.codebook.initialized.fill_(1.0)
