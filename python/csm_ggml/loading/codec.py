"""Mimi alone: whole arrays through the core's streaming encoder and decoder."""

from __future__ import annotations

import os
import threading
from functools import cached_property

import numpy as np
import numpy.typing as npt

from csm_ggml import _core
from csm_ggml.audio.load import load_audio, to_mono
from csm_ggml.errors import ModelFormatError
from csm_ggml.loading.calls import core_call
from csm_ggml.loading.codec_probe import probe

# Frames per call: memory stays flat in the length of the audio, Ctrl-C is noticed between calls,
# and speech that is being made at the same time is kept waiting for no longer.
DECODE_FRAMES = 25
ENCODE_FRAMES = 8


class Codec:
    """The codec of a loaded model, for whole arrays. May be used from several threads."""

    def __init__(self, model: _core.Model) -> None:
        self._model = model
        self._config = model.config
        self._decoder: _core.MimiDecoder | None = None
        self._encoder: _core.MimiEncoder | None = None
        self._decoding = threading.Lock()
        self._encoding = threading.Lock()

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """See `CSM.decode`."""
        codebooks = int(self._config["csm.codebooks"])
        array = np.asarray(codes)
        if array.ndim != 2 or array.dtype.kind not in "iu" or not 1 <= array.shape[1] <= codebooks:
            raise ValueError(
                f"codes must be whole numbers of shape (frames, 1 to {codebooks}), "
                f"got {array.dtype} of shape {array.shape}"
            )
        limit = int(self._config["mimi.codebook_size"])
        if array.size and not (array.min() >= 0 and array.max() < limit):
            raise ValueError(f"codes must be in 0..{limit - 1}, got {array.min()}..{array.max()}")
        array = array.astype(np.int32, copy=False)
        with self._decoding, core_call():
            if self._decoder is None:
                self._decoder = _core.MimiDecoder(self._model)
            self._decoder.reset(0)
            parts = [
                self._decoder.decode(array[start : start + DECODE_FRAMES])
                for start in range(0, len(array), DECODE_FRAMES)
            ]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    @cached_property
    def probed(self) -> tuple[float, ...]:
        """What tells this codec from others; see `codec_probe`."""
        config = self._config
        return probe(self.decode, int(config["csm.codebooks"]), int(config["mimi.codebook_size"]))

    def encode(
        self, samples: npt.ArrayLike | str | os.PathLike[str], sample_rate: int | None = None
    ) -> npt.NDArray[np.int32]:
        """See `CSM.encode`."""
        return self.encode_samples(self.samples(samples, sample_rate))

    def samples(
        self,
        samples: npt.ArrayLike | str | os.PathLike[str],
        sample_rate: int | None = None,
        *,
        speech: bool = False,
        most_seconds: float | None = None,
    ) -> npt.NDArray[np.float32]:
        """Sound as `encode_samples` takes it: (n,) mono at the model's rate.

        Args:
            samples: As in `CSM.encode`.
            sample_rate: As in `CSM.encode`.
            speech: As in `csm_ggml.audio.load.to_mono`.
            most_seconds: As in `csm_ggml.audio.load.load_audio`.

        Raises:
            As `CSM.encode`.
        """
        if not self._config["mimi.has_encoder"]:
            raise ModelFormatError(
                "the model file holds no Mimi encoder (tensors mimi.encoder.*), so it cannot "
                "encode audio; convert it again from a checkpoint that has one"
            )
        rate = int(self._config["mimi.sample_rate"])
        if isinstance(samples, str | os.PathLike):
            if sample_rate is not None:
                raise ValueError("sample_rate goes with samples; a file knows its own")
            return load_audio(samples, rate, speech=speech, most_seconds=most_seconds)
        own_rate = rate if sample_rate is None else sample_rate
        return to_mono(samples, own_rate, rate, speech=speech)

    def encode_samples(self, mono: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The (frames, codebooks) codes of what `samples` returns."""
        step = ENCODE_FRAMES * int(self._config["mimi.frame_size"])
        with self._encoding, core_call():
            if self._encoder is None:
                self._encoder = _core.MimiEncoder(self._model)
            self._encoder.reset()
            parts = [
                self._encoder.encode(mono[start : start + step], final=start + step >= len(mono))
                for start in range(0, len(mono), step)
            ]
        return np.concatenate([np.asarray(part, np.int32) for part in parts])
