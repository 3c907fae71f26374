"""Checkpoints on the Hugging Face hub: which of a repository's files a conversion needs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from csm_ggml.fetching import Hub

from .pickle_file import SUFFIXES
from .sources import PathLike

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SETTINGS = ("*.json", "*.jinja")
_CODEC_OF_MOSHI = re.compile(r"tokenizer-\w+-checkpoint\d+\.safetensors")
_INDEX = ".safetensors.index.json"


def is_repository(name: PathLike) -> bool:
    """Whether a name is no path that exists, and may be that of a repository."""
    return bool(REPOSITORY.fullmatch(os.fspath(name))) and not os.path.exists(name)


def find(name: PathLike, hub: Hub) -> Path:
    """A path as it is, or the folder with the weights and settings of a repository.

    Raises:
        ModelNotFoundError: There is no such repository, or it cannot be fetched.
    """
    if not is_repository(name):
        return Path(name)
    repository = os.fspath(name)
    names = hub.names(repository)
    if names is None:
        every = [*SETTINGS, "*.safetensors", "*.gguf", *(f"*{suffix}" for suffix in SUFFIXES)]
        return hub.snapshot(repository, every, local=True)
    top = [n for n in names if "/" not in n]
    return hub.snapshot(repository, [*SETTINGS, *_weights(top, repository, hub)])


def find_tokenizer(name: PathLike, hub: Hub) -> Path:
    """A path as it is, or the folder with a repository's tokenizer."""
    if not is_repository(name):
        return Path(name)
    return hub.snapshot(os.fspath(name), ["tokenizer*.json", *SETTINGS[1:]])


def _weights(names: list[str], repository: str, hub: Hub) -> list[str]:
    safetensors = [n for n in names if n.endswith(".safetensors")]
    codec = [n for n in safetensors if _CODEC_OF_MOSHI.fullmatch(n)]
    index = next((n for n in names if n.endswith(_INDEX)), None)
    if index is not None:
        # A release may hold its weights twice, in two formats; the index is that of one.
        folder = hub.snapshot(repository, [index])
        listed = json.loads((folder / index).read_text("utf-8")).get("weight_map", {})
        shards = sorted(set(map(str, listed.values())))
        return [*shards, *(n for n in safetensors if "mimi" in n.lower()), *codec]
    if codec and "config.json" not in names:
        # kyutai/moshiko: the codec beside a language model of another kind.
        return codec
    if safetensors:
        return safetensors
    gguf = [n for n in names if n.endswith(".gguf")]
    return gguf or [n for n in names if n.endswith(SUFFIXES)]
