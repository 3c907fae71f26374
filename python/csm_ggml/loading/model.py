"""A loaded checkpoint: what it is, its tokenizer and its codec."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csm_ggml import _core
from csm_ggml.errors import ModelFormatError
from csm_ggml.loading import prepared
from csm_ggml.loading.backends import check_device, core_path, load_backends
from csm_ggml.loading.calls import core_call
from csm_ggml.loading.codec import Codec
from csm_ggml.loading.fingerprint import fingerprint
from csm_ggml.loading.foreign import check_layout
from csm_ggml.loading.geometry import Geometry
from csm_ggml.log import logger
from csm_ggml.text.prompt_format import PromptFormat
from csm_ggml.text.tokenizer import TextTokenizer


class Model:
    """Weights, hyper-parameters, tokenizer and codec of one checkpoint.

    Attributes:
        core: The weights.
        name: What it was loaded as.
        files: What it was loaded from.
        config: Hyper-parameters under the names of docs/GGUF.md.
        geometry: Sizes that speech is measured in.
        prompt: How it was trained to be asked.
        codec: Mimi alone.
        fingerprint: 32 hexadecimal digits that tell this model, in this number format, from all
            others; of the hyper-parameters and parts of the files.
    """

    def __init__(self, core: _core.Model, *, name: str = "csm", files: Sequence[Path] = ()) -> None:
        """Wrap a loaded core model.

        Raises:
            ModelFormatError: If its tokenizer cannot be run, or prompts as it wants them cannot be
                written.
        """
        self.core = core
        self.name = name
        self.files = tuple(files)
        self.config: dict[str, Any] = dict(core.config)
        self.geometry = Geometry(
            sample_rate=int(self.config["mimi.sample_rate"]),
            frame_size=int(self.config["mimi.frame_size"]),
            codebooks=int(self.config["csm.codebooks"]),
            context_length=int(self.config["csm.context_length"]),
        )
        self.fingerprint = fingerprint(self.config, self.files)
        self.prompt = PromptFormat.from_metadata(self.config, name)
        described = core.tokenizer
        self._tokenizer = TextTokenizer(described, self.prompt) if described else None
        self.codec = Codec(core)

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        device: str,
        threads: int,
        preset: str | None = None,
        **where: Any,
    ) -> Model:
        """Find, fetch, convert and load a checkpoint; see `CSM.from_pretrained`."""
        files = prepared.find(name_or_path, preset, **where)
        load_backends()
        paths = [core_path(path) for path in files.paths]
        started = time.perf_counter()
        try:
            with core_call():
                core = _core.Model(paths, device=check_device(device), threads=threads)
        except ModelFormatError:
            check_layout(files.paths)
            raise
        logger.info(
            "loaded %s: %.0f MB of weights on %s, %d threads, %.2f s",
            files.name,
            core.weight_bytes / 1e6,
            core.device,
            core.threads,
            time.perf_counter() - started,
        )
        return cls(core, name=files.name, files=files.paths)

    @property
    def tokenizer(self) -> TextTokenizer:
        """Text to ids.

        Raises:
            ModelFormatError: If the file holds no tokenizer.
        """
        return self._tokenizer or TextTokenizer({})

    @property
    def label(self) -> str:
        """The name without the folders of this machine."""
        return Path(self.name).name if self.name.endswith(".gguf") else self.name
