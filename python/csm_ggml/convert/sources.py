"""Finding a checkpoint's files in what the user named, and telling its kind by tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError

from .gguf_file import read_gguf
from .names import plain_names
from .safetensors_file import read_safetensors
from .tensors import Stored

PathLike = str | Path


class Kind(Enum):
    """What a file holds."""

    TRANSFORMERS = "CSM in transformers' format"
    ORIGINAL = "CSM as first released"
    CODEC = "Mimi"
    LLAMA_BACKBONE = "CSM backbone of llama.cpp pull request 12648"
    LLAMA_DEPTH = "CSM decoder of llama.cpp pull request 12648"
    OWN = "a csm-ggml file"
    ADAPTER = "adapter weights"
    UNKNOWN = "none of them"


_SAFETENSORS_PREFIXES = (
    (Kind.ADAPTER, ("base_model.model.",)),
    (
        Kind.TRANSFORMERS,
        ("backbone_model.", "depth_decoder.", "codec_model.", "embed_text_tokens.", "lm_head."),
    ),
    (
        Kind.ORIGINAL,
        ("backbone.", "text_embeddings.", "audio_embeddings.", "audio_head", "codebook0_head."),
    ),
    (
        Kind.CODEC,
        (
            "quantizer.",
            *(f"{side}.{name}." for side in ("encoder", "decoder") for name in ("model", "layers")),
            *(f"{side}.{side}" for side in ("encoder", "decoder")),
            *(f"{side}_transformer." for side in ("encoder", "decoder")),
        ),
    ),
)


@dataclass
class SourceFile:
    """A file that was opened, its kind told."""

    path: Path
    kind: Kind
    tensors: dict[str, Stored]
    metadata: dict[str, Any] = field(default_factory=dict)


def open_file(path: Path) -> SourceFile:
    """Read a file's table of tensors and tell its kind.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFormatError: it is neither a safetensors nor a GGUF file, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt"):
        raise ModelFormatError(
            f"{path}: a PyTorch pickle, which can run code when it is read; "
            "use the model.safetensors of the same release"
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        metadata, tensors = read_gguf(path)
        return SourceFile(path, _gguf_kind(metadata, tensors), tensors, metadata)
    tensors = plain_names(read_safetensors(path), path)
    for kind, prefixes in _SAFETENSORS_PREFIXES:
        if any(name.startswith(prefixes) for name in tensors):
            return SourceFile(path, kind, tensors)
    return SourceFile(path, Kind.UNKNOWN, tensors)


def _gguf_kind(metadata: dict[str, Any], tensors: dict[str, Stored]) -> Kind:
    architecture = metadata.get("general.architecture")
    if architecture == "csm" and "csm.format_version" in metadata:
        return Kind.OWN
    if "audio_head.weight" in tensors and "audio_embd.weight" in tensors:
        return Kind.LLAMA_DEPTH
    if architecture == "llama-csm" and "token_embd.weight" in tensors:
        return Kind.LLAMA_BACKBONE
    if any(name.startswith("quantizer.semantic_rvq.") for name in tensors):
        return Kind.CODEC
    return Kind.UNKNOWN


def candidates(source: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files a user may mean by a file, a folder, or several of them.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    paths = [source] if isinstance(source, str | Path) else list(source)
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [*path.glob("*.safetensors"), *path.glob("*.gguf")]
            files += sorted(p for p in found if not p.name.startswith("."))
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return files


def trio_siblings(backbone: Path) -> list[Path]:
    """Files next to a backbone of the pull request that belong to it, by their names."""
    decoder = backbone.with_name(backbone.name.replace("-backbone", "-decoder"))
    siblings = [decoder] if decoder != backbone and decoder.is_file() else []
    return siblings + sorted(backbone.parent.glob("*mimi*.gguf"))


def merge(files: Sequence[SourceFile]) -> dict[str, Stored]:
    """The tensors of all shards.

    Raises:
        ModelFormatError: two files hold a tensor of the same name.
    """
    merged: dict[str, Stored] = {}
    for file in files:
        for name, stored in file.tensors.items():
            if name in merged:
                raise ModelFormatError(
                    f"{file.path}: tensor {name!r} is also in {merged[name].file}; "
                    "name the file that is meant instead of the folder"
                )
            merged[name] = stored
    return merged
