"""What requests may hold: OpenAI's fields of `POST /v1/audio/speech`, and ours.

Unknown fields are ignored, as clients send those of other servers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from csm_ggml.limits import LIMITS, SEED_LIMIT

Name = Annotated[str, Field(max_length=200)]
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class VoiceId(BaseModel):
    """A voice by its id."""

    id: Name


class SpeechFields(BaseModel):
    """All fields but the text."""

    model_config = ConfigDict(extra="ignore")

    model: Name | None = Field(default=None, description="Default: the one that is loaded.")
    voice: Name | VoiceId | list[Name] | None = Field(
        default=None,
        description="A voice's id or name, or an object with its id. With `dialogue`, a list: one "
        "for each speaker.",
    )
    instructions: str | None = Field(
        default=None, max_length=4096, description="Accepted and ignored."
    )
    response_format: Format | None = Field(default=None, description="Default: mp3.")
    speed: float | None = Field(
        default=None, ge=0.25, le=4, allow_inf_nan=False, description="Default: 1, as it is."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=SEED_LIMIT, description="The same seed gives the same speech."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=LIMITS["temperature"].most, allow_inf_nan=False
    )
    top_k: int | None = Field(default=None, ge=0, le=int(LIMITS["top_k"].most))
    max_seconds: float | None = Field(
        default=None, gt=0, le=600, allow_inf_nan=False, description="Longest speech of a turn."
    )
    normalize: Literal["en", "off"] | None = Field(
        default=None,
        description="en: say numbers, dates, units, markup and the like in English words. Default: "
        "as the server was started.",
    )
    dialogue: bool | None = Field(
        default=None, description="Read tags such as [1] as speakers. Default: no, they are text."
    )
    priority: Literal["live", "bulk"] | None = Field(
        default=None, description="live: somebody listens; bulk: gets what live requests leave."
    )


class SpeechRequest(SpeechFields):
    """The body of `POST /v1/audio/speech`."""

    input: str = Field(description="What to say.")
    stream_format: Literal["audio", "sse"] | None = Field(
        default=None, description="Default: audio."
    )
    stream: bool | None = Field(
        default=None, description="false: send nothing before all is said. Default: true."
    )


class BatchItem(SpeechFields):
    """One text of a batch; what it leaves out, it takes from the batch."""

    input: str = Field(description="What to say.")


class BatchRequest(SpeechFields):
    """The body of `POST /v1/audio/speech/batch`."""

    items: list[BatchItem] = Field(description="What to say, text by text.")
