"""Speak with Sesame's CSM on ggml: text with speaker tags in, 24 kHz speech out, without PyTorch.

from csm_ggml import CSM

csm = CSM.from_pretrained("demo")
csm.generate("[0]Hello there.").save("hello.wav")
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csm_ggml._core import __version__
    from csm_ggml.audio.audio import Audio, TurnSpan
    from csm_ggml.audio.stats import Stats
    from csm_ggml.conversation import Conversation
    from csm_ggml.csm import CSM
    from csm_ggml.errors import (
        AudioFileError,
        BackendError,
        BookFileError,
        ContextLengthError,
        DeadlineExceeded,
        JobCancelled,
        ModelFormatError,
        ModelNotFoundError,
        NoSpeechError,
        QueueFull,
        VoiceFileError,
    )
    from csm_ggml.longform.reading import LongForm
    from csm_ggml.longform.recording import Progress, Recording
    from csm_ggml.speech.job import Job
    from csm_ggml.speech.meter import SchedulerStats
    from csm_ggml.speech.options import GenerateOptions
    from csm_ggml.text.lexicon import Lexicon
    from csm_ggml.text.turns import Turn
    from csm_ggml.voices.segment import Segment
    from csm_ggml.voices.voice import Voice

__all__ = [
    "CSM",
    "Audio",
    "AudioFileError",
    "BackendError",
    "BookFileError",
    "ContextLengthError",
    "Conversation",
    "DeadlineExceeded",
    "GenerateOptions",
    "Job",
    "JobCancelled",
    "Lexicon",
    "LongForm",
    "ModelFormatError",
    "ModelNotFoundError",
    "NoSpeechError",
    "Progress",
    "QueueFull",
    "Recording",
    "SchedulerStats",
    "Segment",
    "Stats",
    "Turn",
    "TurnSpan",
    "Voice",
    "VoiceFileError",
    "__version__",
]

# Imported on first use: the command line must be quick to start, and `csm-ggml doctor` must run
# where the compiled module does not load.
_HOMES = {
    "CSM": "csm",
    "Audio": "audio.audio",
    "AudioFileError": "errors",
    "BackendError": "errors",
    "BookFileError": "errors",
    "ContextLengthError": "errors",
    "DeadlineExceeded": "errors",
    "Job": "speech.job",
    "JobCancelled": "errors",
    "NoSpeechError": "errors",
    "QueueFull": "errors",
    "SchedulerStats": "speech.meter",
    "Conversation": "conversation",
    "GenerateOptions": "speech.options",
    "Lexicon": "text.lexicon",
    "LongForm": "longform.reading",
    "ModelFormatError": "errors",
    "ModelNotFoundError": "errors",
    "Progress": "longform.recording",
    "Recording": "longform.recording",
    "Segment": "voices.segment",
    "TurnSpan": "audio.audio",
    "Stats": "audio.stats",
    "Turn": "text.turns",
    "Voice": "voices.voice",
    "VoiceFileError": "errors",
    "__version__": "_core",
}

# Former names of what is public.
_FORMER = {"SpokenTurn": "TurnSpan"}


def __getattr__(name: str) -> object:
    if name in _FORMER:
        warnings.warn(
            f"csm_ggml.{name} is now csm_ggml.{_FORMER[name]}", DeprecationWarning, stacklevel=2
        )
        return __getattr__(_FORMER[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"csm_ggml.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
