"""The compiled core: ggml graphs behind plain arrays. `csm_ggml.CSM` is the public face."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str
ggml_version: str
ggml_commit: str

class ModelFormatError(Exception):
    """A model file is damaged, incomplete or of another kind."""

class BackendError(RuntimeError):
    """A compute device could not be used, or ran out of memory."""

def set_backend_dir(path: str) -> None:
    """Load ggml's backend libraries from this folder.

    Only for builds with GGML_BACKEND_DL; nothing happens in others.
    """

def set_log(function: Callable[[int, str], object] | None) -> None:
    """Where ggml's messages go.

    Args:
        function: Called with a level (20, 30 or 40, as in Python's logging) and a message, from any
            thread. None: warnings and errors go to standard error, as they do at the interpreter's
            exit.
    """

def devices() -> list[dict[str, Any]]:
    """Compute devices.

    Returns:
        Dicts with name, description, type ('cpu', 'gpu', 'igpu' or 'accel'), memory_free and
        memory_total (bytes).
    """

def cpu_features() -> list[str]:
    """The CPU features that the loaded CPU backend uses, e.g. ['AVX2', 'FMA']."""

def instruction_sets() -> list[str]:
    """The instruction sets that the package's own kernels can use here, the fastest first."""

def instruction_set() -> str | None:
    """The instruction set that the package's own kernels use; None for a build without them.

    The fastest of `instruction_sets()`, or the one that CSM_GGML_ISA names.

    Raises:
        ValueError: If CSM_GGML_ISA names another.
    """

def read_bandwidth(threads: int, bytes: int, rounds: int = 5) -> float:
    """Bytes per second that the threads together read from a buffer; the best of some rounds."""

def multiply_add_peak(type: str, threads: int, rounds: int, instruction_set: str) -> float:
    """Multiply-adds per second that the threads do with the instructions for products with a type.

    Nothing but these instructions is run; the best of some rounds.

    Args:
        type: A ggml type, such as `q4_0`.
        threads: That compute side by side.
        rounds: Of some milliseconds.
        instruction_set: One of `instruction_sets()`.
    """

def gguf_info(path: str) -> dict[str, Any]:
    """Read a GGUF header.

    Returns:
        {'version', 'metadata': {key: value}, 'tensors': [{'name', 'type', 'shape', 'offset',
        'bytes'}]}, shapes in numpy order, offsets from the start of the file. Arrays of strings are
        lists of bytes.

    Raises:
        ModelFormatError: If the file is no GGUF file or damaged.
    """

def quantize(values: NDArray[np.float32], type: str) -> NDArray[np.uint8]:
    """Quantize a (rows, columns) matrix to a ggml type; returns (rows, bytes per row)."""

def dequantize(data: NDArray[np.uint8], type: str, columns: int) -> NDArray[np.float32]:
    """The inverse of quantize: (rows, bytes per row) -> (rows, columns)."""

def type_size(type: str, columns: int) -> int:
    """Bytes of one row of that many columns.

    Raises:
        ValueError: If the type is unknown or does not divide the row.
    """

def sample(
    logits: NDArray[np.float32],
    uniforms: NDArray[np.float32],
    *,
    temperature: float,
    top_k: int,
    top_p: float,
) -> NDArray[np.int32]:
    """The sampler that runs inside the frame graph.

    Args:
        logits: (n, codes).
        uniforms: (n,) numbers in [0, 1).
        temperature: 0 takes the largest logit.
        top_k: Codes kept; 0 keeps all.
        top_p: Softmax mass kept; 1 keeps all.

    Returns:
        (n,) codes.
    """

def uniforms(
    seed: int, first_frame: int, frames: int, codebooks: int, attempt: int = 0
) -> NDArray[np.float32]:
    """The noise of a request.

    Returns:
        (frames, codebooks) uniform numbers in [0, 1): Philox4x32-10 keyed by seed,
        attempt, frame and codebook.
    """

class Model:
    """Weights of one checkpoint on one device. Immutable; may be shared by threads."""

    def __init__(self, files: Sequence[str], *, device: str = "auto", threads: int = 0) -> None: ...
    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters under the names of docs/GGUF.md, without the tokenizer arrays.

        Besides them 'layout' ('csm' or 'llama-csm'), 'csm.codes' (codes that are drawn),
        'mimi.frame_size' (samples) and 'mimi.has_encoder'.
        """

    @property
    def tokenizer(self) -> dict[str, Any]:
        """Vocabulary and merges; empty if the file has none.

        {'tokens': list[bytes], 'merges': list[bytes], 'token_type': list[int], 'bos': int,
        'eos': int, 'pre': str}
        """

    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

class Engine:
    """KV cache slots and the frame graph.

    One thread at a time may use an engine; several engines may share one model.
    """

    def __init__(
        self, model: Model, *, slots: int = 1, context: int = 0, kv_type: str = "auto"
    ) -> None: ...
    def open(
        self,
        *,
        seed: int = 0,
        attempt: int = 0,
        temperature: float = 0.9,
        top_k: int = 50,
        top_p: float = 1.0,
        depth_temperature: float = 0.9,
        depth_top_k: int = 50,
        depth_top_p: float = 1.0,
    ) -> int:
        """Take a free slot with an empty cache; returns its number.

        Raises:
            RuntimeError: If none is free.
        """

    def close(self, slot: int) -> None: ...
    def reseed(
        self,
        slot: int,
        *,
        seed: int,
        attempt: int = 0,
        temperature: float,
        top_k: int,
        top_p: float,
        depth_temperature: float,
        depth_top_k: int,
        depth_top_p: float,
    ) -> None:
        """New sampling settings; the frame counter of the noise restarts at 0."""

    def append(
        self,
        slot: int,
        text: NDArray[np.int32],
        audio: NDArray[np.int32],
        return_logits: bool = False,
    ) -> NDArray[np.float32] | None:
        """Append prompt rows. The last stays pending: the next step or append evaluates it.

        Args:
            slot: As open returned it.
            text: (n,) text ids, or -1 where the row is audio.
            audio: (n, codebooks) codes of audio rows; ignored in text rows.
            return_logits: Whether to return logits.

        Returns:
            With return_logits, the c0 logits (rows evaluated, codes) of every row evaluated by
            this call.
        """

    def step(
        self,
        slots: Sequence[int],
        *,
        prompt: tuple[int, NDArray[np.int32], NDArray[np.int32]] | None = None,
        forced: NDArray[np.int32] | None = None,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """One frame for each of the slots, in one graph; it becomes the slot's pending row.

        Args:
            slots: Open slots, each with a pending row.
            prompt: A slot that is not among them, and text and audio of rows: appended to it as
                by `append`, where the device can in the same pass through the backbone, so that
                its weights are read once for both.
            forced: (len(slots), codebooks); codes >= 0 replace drawn ones (teacher forcing).
            return_logits: Whether to return logits.

        Returns:
            Codes (len(slots), codebooks), and with return_logits the logits
            (len(slots), codebooks, codes).
        """

    def position(self, slot: int) -> int:
        """Rows of the slot so far, the pending one included."""

    def rewind(self, slot: int, rows: int) -> None:
        """Drop all but the first rows; none is pending afterwards."""

    def save_prefix(self, slot: int) -> bytes:
        """The keys and values of the evaluated rows (all but the pending one)."""

    def load_prefix(self, slot: int, data: bytes) -> None:
        """Continue from saved keys and values.

        Raises:
            ValueError: If they are damaged or belong to another model.
        """

    def save_slot(self, slot: int) -> bytes:
        """All that the slot's utterance needs to go on later, in any slot.

        Keys and values of the evaluated rows, the pending row, the sampling settings and the frame
        counter of the noise.
        """

    def load_slot(self, slot: int, data: bytes) -> None:
        """Go on with a saved slot in this open one, whatever it held.

        Raises:
            ValueError: If the data is damaged, of another model or longer than the context; the
                slot is then as before.
        """

    def trim(self) -> None:
        """Give back what an idle engine does not need, to be taken anew when it is.

        That is graphs kept for reuse and the memory of rows that no open slot holds.
        """

    def timings(self) -> dict[str, float]:
        """Sums since creation: prefill_s, prefill_rows, step_s, steps, frames."""

    @property
    def splits(self) -> dict[str, int]:
        """Parts that the device's scheduler cut the last prefill and the last step into.

        1 where the device ran all of it, more where it left something to the CPU, 0 where none
        ran yet.
        """

    @property
    def nodes(self) -> dict[str, int]:
        """Nodes that compute in the last prefill and the last step, before a device fuses some."""

    @property
    def slots(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def kv_bytes(self) -> int: ...

class MimiDecoder:
    """Streams of codes to samples; carries the codec's state from call to call.

    The samples of a stream are bit for bit those of decoding it alone, however it is cut and
    whichever streams are decoded with it. One thread at a time may use a decoder; it may run while
    another thread uses an engine of the same model.
    """

    def __init__(self, model: Model, streams: int = 1) -> None:
        """Take the model; the memory of a stream is taken when it is first used.

        Raises:
            ValueError: If streams is not in 1..1024.
        """

    def decode(
        self, codes: NDArray[np.int32], streams: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """The next frames of one stream, or of several at once, which reads the weights once.

        Args:
            codes: (frames, q) of stream 0, 1 <= q <= codebooks; or (n, frames, q), n being the
                length of streams.
            streams: Numbers of different streams, in any order. Each continues where it stands;
                streams that are not named stay as they are.

        Returns:
            (frames * frame_size,) samples, or (n, frames * frame_size).

        Raises:
            ValueError: If a code or stream is out of range, a stream is named twice or the shape
                does not fit. All streams are then as before.
        """

    def reset(self, stream: int | None = None) -> None:
        """Let a stream begin anew; None: all of them.

        Raises:
            ValueError: If there is no such stream.
        """

    def trim(self) -> None:
        """Give back what an idle decoder does not need, to be taken anew when it is.

        That is graphs kept for reuse and the memory of streams that have not begun, or were reset.
        """

    def save(self, stream: int) -> bytes:
        """All that a stream's future depends on: the codec's past of it.

        Raises:
            ValueError: If there is no such stream.
        """

    def load(self, stream: int, data: bytes) -> None:
        """Go on with a saved stream in the place of this one.

        Raises:
            ValueError: If there is no such stream, or the data is damaged or of another codec; the
                stream is then as before.
        """

    @property
    def streams(self) -> int: ...
    @property
    def splits(self) -> int:
        """Parts that the device's scheduler cut the last piece into, as for `Engine.splits`."""

class MimiEncoder:
    """A stream of samples to codes."""

    def __init__(self, model: Model) -> None: ...
    def encode(
        self, samples: NDArray[np.float32], final: bool = True, return_latents: bool = False
    ) -> NDArray[np.int32] | tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(n,) samples to (ceil(n / frame_size), codebooks) codes.

        Args:
            samples: Mono, at the model's rate.
            final: False needs whole frames and keeps the state for the next call.
            return_latents: Whether to return the (frames, hidden) latents before the quantizer,
                too.
        """

    def reset(self) -> None: ...
    @property
    def splits(self) -> int:
        """Parts that the device's scheduler cut the last piece into, as for `Engine.splits`."""
