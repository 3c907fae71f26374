"""The codec of a finished GGUF with other acoustic codebooks, so that training need not begin anew.

The file's acoustic codebooks held what codebook 0 left of a vector in its own space; the new ones
hold a vector in a space of their own. Both spaces are linear in the log-mel patch, so linear maps
between them, folded into the projections, let the old decoder and encoder do nearly the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import MimiModel

from features import Quantizer, patches
from gguf_codec import load_codec
from models import set_codebooks
from tokens import load_shard, padded_mel, shards


def both_vectors(work_dir: Path, quantizer: Quantizer) -> tuple[np.ndarray, np.ndarray]:
    """The same patches of one shard, all its speakers, in the semantic and the acoustic space."""
    takes = [wave for waves in load_shard(shards(work_dir)[1]).waves for wave in waves]
    patch = np.concatenate([patches(padded_mel(wave)) for wave in takes])
    return quantizer.semantic.project(patch), quantizer.acoustic.project(patch)


@torch.no_grad()
def continued(path: Path, quantizer: Quantizer, work_dir: Path) -> MimiModel:
    """The file's codec with the quantizer's codebooks and fitted projections."""
    mimi = load_codec(path)
    own, new = both_vectors(work_dir, quantizer)
    from_new = torch.from_numpy(np.linalg.lstsq(new, own, rcond=None)[0].T.astype(np.float32))
    to_new = torch.from_numpy(np.linalg.lstsq(own, new, rcond=None)[0].T.astype(np.float32))
    semantic = mimi.quantizer.semantic_residual_vector_quantizer
    acoustic = mimi.quantizer.acoustic_residual_vector_quantizer
    # before: A (vector - code 0) + S code 0; now: A vector + (S - A) code 0
    semantic.output_proj.weight -= acoustic.output_proj.weight
    acoustic.output_proj.weight[:, :, 0] = acoustic.output_proj.weight[:, :, 0] @ from_new
    acoustic.input_proj.weight[:, :, 0] = to_new @ semantic.input_proj.weight[:, :, 0]
    set_codebooks(mimi, quantizer)
    return mimi
