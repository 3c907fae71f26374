"""Errors as OpenAI's clients know them, and what becomes which."""

from __future__ import annotations

import math
from typing import Any

from csm_ggml.errors import ContextLengthError, DeadlineExceeded, NoSpeechError, QueueFull

# Seconds after which a client may ask a server again that is loading or going away.
RETRY_SECONDS = 5


class ApiError(Exception):
    """An error that is told to the client.

    Attributes:
        status: HTTP status.
        message: For people.
        type: OpenAI's class of error.
        param: The field that it is about, if any.
        code: OpenAI's word for it, if any.
        headers: To be sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Keep the parts."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The envelope, with all four keys."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def busy(retry_after: float) -> ApiError:
    """The queue is full."""
    return ApiError(
        429,
        "the server is busy and its queue is full; try again later",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(max(1, math.ceil(retry_after)))},
    )


def unavailable(why: str) -> ApiError:
    """The server is loading, or going away."""
    return ApiError(
        503,
        why,
        type="server_error",
        code="unavailable",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def internal() -> ApiError:
    """Something that is no fault of the client; the log has the rest."""
    return ApiError(500, "the server failed; its log says why", type="server_error")


def of_submitting(error: Exception) -> ApiError:
    """What the client is told of an error before any work was done."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return busy(error.retry_after)
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param="input", code="context_length_exceeded")
    if isinstance(error, ValueError | TypeError):
        return ApiError(400, str(error))
    return of_speaking(error)


def of_speaking(error: BaseException) -> ApiError:
    """What the client is told of an error while speech was being made."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return busy(error.retry_after)
    if isinstance(error, NoSpeechError):
        # No 500: clients repeat those by themselves, and the same seed would say the same.
        return ApiError(422, str(error), param="input", code="no_speech")
    if isinstance(error, DeadlineExceeded):
        return ApiError(503, "the speech was not made in time", type="server_error", code="timeout")
    return internal()
