"""What can go wrong, by name. Everything else a caller can cause is a ValueError or TypeError.

`ModelFormatError` and `BackendError` come from the compiled core, which raises them itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from csm_ggml._core import BackendError, ModelFormatError

__all__ = [
    "AudioFileError",
    "BackendError",
    "BookFileError",
    "ContextLengthError",
    "DeadlineExceeded",
    "JobCancelled",
    "ModelFormatError",
    "ModelNotFoundError",
    "NoSpeechError",
    "QueueFull",
    "VoiceFileError",
]


class ContextLengthError(ValueError):
    """The text and its context need more rows than the model can attend to.

    Attributes:
        needed: Rows that the prompt needs, one row of speech included.
        available: Rows that the context window has.
    """

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        """Keep the two numbers beside the message."""
        super().__init__(message)
        self.needed = needed
        self.available = available


class ModelNotFoundError(FileNotFoundError):
    """No model goes by this name, here or on the Hugging Face hub, or it may not be fetched."""


class AudioFileError(ValueError):
    """An audio file cannot be read or written, or holds nothing usable as speech."""


class BookFileError(ValueError):
    """A book's file is damaged, of a kind that is not read, or holds nothing to speak."""


class VoiceFileError(ValueError):
    """A voice file is damaged, incomplete, of a later version or none at all."""


class NoSpeechError(RuntimeError):
    """The model answered all of a text with nothing: its first frame said "end"."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> NoSpeechError:
        """The error for these turns or pieces."""
        words = " ".join(texts)
        return cls(
            f'the model has nothing to say to this text: its first frame already says "end" '
            f"({words[:60]!r}); is the text in a language that it was trained on? Another seed, or "
            "more retries, may help"
        )


class QueueFull(RuntimeError):  # noqa: N818
    """More requests wait than the scheduler's queue takes.

    Attributes:
        retry_after: Seconds after which there will probably be room.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        """Keep the wait beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class JobCancelled(RuntimeError):  # noqa: N818
    """The job was cancelled, or the model closed, before the speech was complete."""


class DeadlineExceeded(TimeoutError):  # noqa: N818
    """The speech was not complete at the job's deadline."""
