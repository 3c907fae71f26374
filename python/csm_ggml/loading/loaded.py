"""A loaded checkpoint: what it is, its tokenizer, its codec, and what it lends to speech."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml import _core
from csm_ggml.loading.codec import Codec
from csm_ggml.loading.fingerprint import fingerprint
from csm_ggml.speech.engine import Engine
from csm_ggml.speech.pool import Pool
from csm_ggml.speech.requests import RequestBuilder
from csm_ggml.text.tokenizer import TextTokenizer
from csm_ggml.text.turns import parse_turns
from csm_ggml.voices.prompt import PromptBuilder

# Idle engines that a model keeps for the next call.
IDLE_ENGINES = 2


class LoadedModel:
    """Everything about a checkpoint but speaking. The base of `CSM`."""

    def __init__(
        self, model: _core.Model, *, name: str = "csm", files: Sequence[Path] = ()
    ) -> None:
        """Wrap a loaded core model; `CSM.from_pretrained` is the usual way.

        Args:
            model: The weights.
            name: What to call it in messages.
            files: What it was loaded from; its fingerprint is made of them.

        Raises:
            ModelFormatError: If its tokenizer cannot be run.
        """
        self._model = model
        self._name = name
        self._files = tuple(files)
        self._config = dict(model.config)
        self._tokenizer = TextTokenizer(model.tokenizer) if model.tokenizer else None
        self._engines: Pool[Engine] = Pool(
            lambda slots: _core.Engine(model, slots=slots), keep=IDLE_ENGINES
        )
        self._codec = Codec(model)
        self._fingerprint: str | None = None

    # What it is

    @property
    def name(self) -> str:
        """What it was loaded as."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under the names of docs/GGUF.md."""
        return dict(self._config)

    @property
    def device(self) -> str:
        """The device that computes."""
        return self._model.device

    @property
    def threads(self) -> int:
        """CPU threads that compute."""
        return self._model.threads

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return int(self._config["mimi.sample_rate"])

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return int(self._config["mimi.frame_size"])

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.frame_size

    @property
    def codebooks(self) -> int:
        """Codes in a frame."""
        return int(self._config["csm.codebooks"])

    @property
    def context_length(self) -> int:
        """Rows that the backbone can attend to, text and speech together."""
        return int(self._config["csm.context_length"])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that tell this model, in this number format, from all others.

        Computed when first asked for, from the hyper-parameters and parts of the model's files.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._config, self._files)
        return self._fingerprint

    def __repr__(self) -> str:
        """One line for people."""
        return (
            f"CSM({self._name!r}, device={self.device!r}, threads={self.threads}, "
            f"{self._model.weight_bytes / 1e6:.0f} MB of weights)"
        )

    # Text

    def tokenize(self, text: str, *, speaker: int = 0) -> list[int]:
        """Text ids as the model gets them: BOS, `[speaker]text`, EOS for each turn."""
        turns = parse_turns(text, speaker=speaker)
        tokenizer = self._text_tokenizer()
        return [i for t in turns for i in tokenizer.encode_turn(t.speaker, t.text)]

    # Mimi alone

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Codes to sound.

        Args:
            codes: (frames, q) whole numbers, with 1 <= q <= codebooks: fewer codebooks give
                rougher sound.

        Returns:
            (frames * frame_size,) float32 samples.

        Raises:
            ValueError: If shape, type or a value is not right.
        """
        return self._codec.decode(codes)

    def encode(
        self, samples: npt.ArrayLike | str | os.PathLike[str], sample_rate: int | None = None
    ) -> npt.NDArray[np.int32]:
        """Sound to codes.

        Args:
            samples: (n,) or (n, channels), float with full scale 1 or signed integers; or a path
                to an audio file. Channels are averaged; the gain stays as it is.
            sample_rate: Rate of the samples; default is the model's. Other rates are resampled.

        Returns:
            (ceil(n / frame_size), codebooks) int32, n counted at the model's rate.

        Raises:
            ValueError: If the samples are empty, not finite, or not shaped like sound.
            AudioFileError: The same for a file.
            ModelFormatError: If the model file has no encoder.
        """
        return self._codec.encode(samples, sample_rate)

    def _text_tokenizer(self) -> TextTokenizer:
        return self._tokenizer or TextTokenizer({})

    @cached_property
    def _prompts(self) -> PromptBuilder:
        return PromptBuilder(
            self._text_tokenizer(),
            codebooks=self.codebooks,
            audio_vocab_size=int(self._config["csm.audio_vocab_size"]),
        )

    @cached_property
    def _requests(self) -> RequestBuilder:
        return RequestBuilder(
            self._config,
            self._prompts,
            self.encode,
            lambda: (self._short_name(), self.fingerprint),
            lambda: self._codec.probed,
        )

    def _short_name(self) -> str:
        """The name without the folders of this machine."""
        return Path(self._name).name if self._name.endswith(".gguf") else self._name
