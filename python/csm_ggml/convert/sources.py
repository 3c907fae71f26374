"""Finding a checkpoint's files in what the user named, and telling its kind by tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.inputs import named

from . import lora
from .gguf_file import read_gguf
from .pickle_file import SUFFIXES, read_pickle
from .refusals import check_magic, check_weights
from .safetensors_file import read_safetensors
from .tensors import Stored
from .transformers_config import read_json, shown

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


_TRAINING_STATE = ("optimizer", "scheduler", "rng_state", "training_args", "scaler")
"""What training leaves beside the weights, by how the names of the files begin."""


@dataclass
class SourceFile:
    """A file that was opened, its kind told.

    Attributes:
        path: the file.
        kind: what it holds.
        tensors: by plain name.
        metadata: keys of a GGUF file.
        changes: LoRA changes of matrices of this file or another.
        indexed: whether an index file lists it.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Stored]
    metadata: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, lora.Change] = field(default_factory=dict)
    indexed: bool = False


def open_file(path: Path, only: frozenset[str] | None = None) -> SourceFile:
    """Read a file's table of tensors and tell its kind.

    Args:
        path: the file.
        only: names of the tensors that are meant, where an index file lists them.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFormatError: it is neither a safetensors nor a GGUF file nor a PyTorch checkpoint,
            damaged, lacks a tensor that is meant, or was quantized in a way that is not read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with named(path), path.open("rb") as file:
        magic = file.read(24)
    if magic.startswith(b"GGUF"):
        metadata, tensors = read_gguf(path)
        return SourceFile(path, _gguf_kind(metadata, tensors), tensors, metadata)
    if path.suffix.lower() in SUFFIXES:
        tensors = read_pickle(path)
    else:
        check_magic(path, magic)
        tensors = read_safetensors(path)
    check_weights(tensors, path)
    if only is not None:
        if missing := sorted(only - tensors.keys()):
            raise ModelFormatError(
                f"{path}: the index says that tensor {missing[0]!r} is in this file, which does "
                "not have it: files of different checkpoints in one folder?"
            )
        tensors = {name: stored for name, stored in tensors.items() if name in only}
    found = lora.split(tensors, path)
    kind = _kind(found, path)
    return SourceFile(path, kind, found.plain, {}, found.changes, only is not None)


def _kind(found: lora.Split, path: Path) -> Kind:
    # a whole checkpoint has norms, an adapter at most some of the matrices
    if path.name.startswith("adapter_model") or (
        found.changes and not any("norm" in name for name in found.plain)
    ):
        return Kind.ADAPTER
    for kind, prefixes in _SAFETENSORS_PREFIXES:
        if any(name.startswith(prefixes) for name in found.plain):
            return kind
    return Kind.UNKNOWN


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


def is_own(path: Path) -> bool:
    """Whether a file is one of ours."""
    if not path.is_file():
        return False
    with named(path), path.open("rb") as file:
        magic = file.read(4)
    return magic == b"GGUF" and open_file(path).kind is Kind.OWN


def open_sources(source: PathLike | Sequence[PathLike]) -> list[SourceFile]:
    """The files that a user may mean by a file, a folder, or several of them.

    In a folder, an index file says which files and tensors are meant; other files of the same kind
    are left out. PyTorch's pickles are only looked at where there is nothing else.

    Raises:
        FileNotFoundError: a path does not exist.
        ModelFormatError: a file cannot be read, or one that an index lists is missing.
    """
    paths = [source] if isinstance(source, str | Path) else list(source)
    files: list[SourceFile] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _in_folder(path)
            index = _read_indexes(path, found)
            files += [open_file(p, index.get(p.name)) for p in found]
        elif path.exists():
            files.append(open_file(path))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return files


def _in_folder(folder: Path) -> list[Path]:
    shown_names = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    found = [p for p in shown_names if p.suffix in (".safetensors", ".gguf")]
    if not found:
        found = [
            p
            for p in shown_names
            if p.suffix in SUFFIXES and not p.name.startswith(_TRAINING_STATE)
        ]
    return sorted(found)


def _read_indexes(folder: Path, found: Sequence[Path]) -> dict[str, frozenset[str]]:
    """File names to the tensors that the folder's index files say are in them."""
    tensors: dict[str, set[str]] = {}
    suffixes = {path.suffix for path in found}
    for path in sorted(folder.glob("*.index.json")):
        if Path(path.name.removesuffix(".index.json")).suffix not in suffixes:
            continue
        listed = read_json(path).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(f, str) for f in listed.values()):
            raise ModelFormatError(
                f"{path}: weight_map is {shown(listed)}, expected tensors and their files"
            )
        for name, file in listed.items():
            tensors.setdefault(file, set()).add(name)
        names = {p.name for p in found}
        if missing := sorted(set(listed.values()) - names):
            raise ModelFormatError(
                f"{path}: lists {missing[0]!r}, which is not there ({len(missing)} of "
                f"{len(set(listed.values()))} files are missing); download it again"
            )
    return {file: frozenset(names) for file, names in tensors.items()}


def without_strays(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Leave out files of a kind of which an index lists others."""
    listed = {file.kind for file in files if file.indexed}
    return [file for file in files if file.indexed or file.kind not in listed]


def names_of(files: Sequence[SourceFile]) -> str:
    """Files and what they are, for messages."""
    listed = ", ".join(f"{file.path.name} ({file.kind.value})" for file in files[:5])
    return listed + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def trio_siblings(backbone: Path) -> list[Path]:
    """Files next to a backbone of the pull request that belong to it, by their names."""
    decoder = backbone.with_name(backbone.name.replace("-backbone", "-decoder"))
    siblings = [decoder] if decoder != backbone and decoder.is_file() else []
    return siblings + sorted(backbone.parent.glob("*mimi*.gguf"))


def merge(files: Sequence[SourceFile]) -> dict[str, Stored]:
    """The tensors of all shards, by plain name.

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
