"""The models that have a short name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A model by its short name.

    Attributes:
        name: The short name.
        note: One line on what it is.
        repository: Where it lies on the Hugging Face hub; None for the one in the package.
        files: Its files there that load as they are; empty where it is converted first.
        mimi: Repository of its codec, if it has none of its own.
        tokenizer: Repository of its tokenizer, if it has none of its own.
        size: Of what is fetched, for people; empty if its makers do not tell.
    """

    name: str
    note: str
    repository: str | None = None
    files: tuple[str, ...] = ()
    mimi: str | None = None
    tokenizer: str | None = None
    size: str = ""


ALIASES = {
    alias.name: alias
    for alias in (
        Alias("demo", "a tiny voice to try things out with", size="in the package"),
        Alias(
            "csm-1b",
            "Sesame's CSM-1B, ggml-org/sesame-csm-1b-GGUF",
            "ggml-org/sesame-csm-1b-GGUF",
            ("sesame-csm-backbone.gguf", "sesame-csm-decoder.gguf", "kyutai-mimi.gguf"),
        ),
        Alias(
            "miso-tts",
            "MisoTTS, an 8B model of the same shape, MisoLabs/MisoTTS",
            "MisoLabs/MisoTTS",
            mimi="kyutai/mimi",
            tokenizer="unsloth/Llama-3.2-1B",
            size="33 GB",
        ),
        Alias(
            "marvis-250m",
            "Marvis, a small model of the same shape, Marvis-AI/marvis-tts-250m-v0.1-transformers",
            "Marvis-AI/marvis-tts-250m-v0.1-transformers",
        ),
    )
}
