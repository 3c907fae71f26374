"""Files and tensors that cannot be converted as they are: what they are, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from csm_ggml._core import ModelFormatError

from .tensors import Stored

_QUANTIZED: tuple[tuple[str, str, str], ...] = (
    (
        r"\.(absmax|quant_map|nested_absmax|SCB|weight_format)$|\.quant_state\.",
        "quantized by bitsandbytes",
        "load it with transformers, call model.dequantize() and save it, or use the model that it "
        "was made from",
    ),
    (
        r"\.(qweight|qzeros|g_idx)$",
        "quantized by GPTQ or AWQ",
        "use the model that it was made from",
    ),
)


def check_weights(tensors: Mapping[str, Stored], path: Path) -> None:
    """Raise ModelFormatError where the weights were quantized in a way that is not read."""
    for pattern, what, then in _QUANTIZED:
        name = next((n for n in tensors if re.search(pattern, n)), None)
        if name is not None:
            raise ModelFormatError(f"{path}: the weights were {what} ({name!r}); {then}")
    for name, stored in tensors.items():
        if name.endswith(".scales") and stored.type not in ("I32", "I64"):
            packed = tensors.get(name.removesuffix(".scales") + ".weight")
            if packed is not None and packed.type == "U32":
                raise ModelFormatError(
                    f"{path}: the weights were quantized by MLX ({name!r}); use the bf16 "
                    "weights of the same model, or write them with `python -m mlx_audio.convert "
                    "--dequantize`"
                )


def check_magic(path: Path, magic: bytes) -> None:
    """Raise ModelFormatError where a file's first bytes are those of something else."""
    if magic.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        raise ModelFormatError(
            f"{path}: a PyTorch pickle under another name; rename it to "
            f"{path.with_suffix('.pt').name}, which is read without running what is in it"
        )
    if magic.startswith(b"version https://git-lfs"):
        raise ModelFormatError(
            f"{path}: only a pointer of Git LFS to the weights; run `git lfs pull` in its folder, "
            "or download the file itself"
        )


FAMILIES_OF_GGUF = {
    "csm-tts": "a file of CrispASR",
    "mimi": "the codec of a pair for codec.cpp",
    "llama": "a language model for llama.cpp, or the backbone of a pair for codec.cpp",
    "csm": "a file of csm.rs or candle",
}
"""Architectures of GGUF files with CSM weights, or parts of them, in other layouts."""

WORKING = (
    "expected a csm-ggml file, or the three of ggml-org/sesame-csm-1b-GGUF "
    "(sesame-csm-backbone.gguf, sesame-csm-decoder.gguf, kyutai-mimi.gguf; `-m csm-1b`); "
    "`csm-ggml convert sesame/csm-1b -o csm.gguf` makes one of the original weights"
)


def is_foreign(architecture: object, keys: Mapping[str, object], names: Iterable[str]) -> bool:
    """Whether a GGUF file is of no layout that is read here, alone or as one of three.

    Args:
        architecture: its general.architecture.
        keys: its metadata.
        names: of its tensors.
    """
    if architecture == "csm":
        return not any(key == "csm.format_version" or key.startswith("mimi.") for key in keys)
    return architecture != "llama-csm" and not any(
        name.startswith("quantizer.semantic_rvq.") for name in names
    )


def other_gguf(path: Path | str, architecture: object) -> ModelFormatError:
    """The error for a GGUF file that is none that is read."""
    what = FAMILIES_OF_GGUF.get(str(architecture), "a file of another kind")
    return ModelFormatError(
        f"{path}: general.architecture is {str(architecture)[:80]!r}: {what}, which has another "
        f"layout; {WORKING}"
    )
