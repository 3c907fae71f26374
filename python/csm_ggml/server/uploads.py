"""Voices that clients bring, and take away again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from csm_ggml.csm import CSM
from csm_ggml.errors import VoiceFileError
from csm_ggml.server.problems import ApiError
from csm_ggml.server.recordings import read_recording
from csm_ggml.server.service import Service
from csm_ggml.text.characters import clean, one_line
from csm_ggml.voices.voice import MAGIC, Voice

_NAME_CHARACTERS = 100
_TEXT_CHARACTERS = 2_000
_PART_BYTES = 16 << 10
_NO = frozenset(("", "false", "no", "0", "off"))

_FORM = {
    "type": "object",
    "required": ["name", "audio_sample", "consent"],
    "properties": {
        "name": {"type": "string", "maxLength": _NAME_CHARACTERS},
        "audio_sample": {
            "type": "string",
            "format": "binary",
            "description": "A recording of half a second to a minute, 10 MiB at most; or a voice "
            "file of `csm-ggml voice create`.",
        },
        "transcript": {"type": "string", "description": "What is said in the recording."},
        "consent": {
            "type": "string",
            "description": "The consent of the one who speaks: its id, or how it was given.",
        },
    },
}


def upload_routes(service: Service) -> APIRouter:
    """The endpoints of a server."""
    router = APIRouter()
    # One at a time: a recording that is encoded keeps a thread and memory.
    one = asyncio.Semaphore(1)

    @router.post(
        "/v1/audio/voices",
        summary="Make a voice of a recording",
        openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}},
    )
    async def create(request: Request) -> dict[str, Any]:
        csm = service.model()
        if not service.voices.can_upload:
            raise ApiError(403, "this server keeps no voices; it was started without --voices")
        async with _form(request) as form:
            name = _text(form, "name", _NAME_CHARACTERS)
            consent = _text(form, "consent", _TEXT_CHARACTERS)
            if consent.lower() in _NO:
                raise ApiError(400, "no voice without its speaker's consent", param="consent")
            sample = form.get("audio_sample")
            if not isinstance(sample, UploadFile):
                raise ApiError(400, "audio_sample must be a file", param="audio_sample")
            data = await sample.read()
            if data.startswith(MAGIC):
                make = partial(_voice_of_file, csm, data)
            else:
                transcript = _text(form, "transcript", _TEXT_CHARACTERS)
                make = partial(_voice_of_recording, csm, data, transcript)
        async with one:
            voice = await asyncio.to_thread(make)
            entry = await asyncio.to_thread(service.voices.add, voice, name, consent)
        return {
            "object": "audio.voice",
            "id": entry.id,
            "name": entry.name,
            "created_at": entry.created_at,
        }

    @router.delete("/v1/audio/voices/{id}", summary="Delete an uploaded voice")
    async def delete(id: str) -> dict[str, Any]:
        entry = await asyncio.to_thread(service.voices.remove, id)
        return {"object": "audio.voice.deleted", "id": entry.id, "deleted": True}

    return router


@asynccontextmanager
async def _form(request: Request) -> AsyncGenerator[FormData, None]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "the body must be multipart/form-data")
    try:
        form = await request.form(max_files=1, max_fields=8, max_part_size=_PART_BYTES)
    except (MultiPartException, HTTPException, LookupError, ValueError):
        raise ApiError(400, "the body is no valid multipart/form-data") from None
    try:
        yield form
    finally:
        await form.close()


def _text(form: FormData, name: str, limit: int) -> str:
    value = form.get(name)
    if not isinstance(value, str):
        raise ApiError(400, f"{name} is missing", param=name)
    try:
        value = one_line(clean(value))
    except ValueError:
        raise ApiError(400, f"{name} is not valid Unicode", param=name) from None
    if not value:
        raise ApiError(400, f"{name} is empty", param=name)
    if len(value) > limit:
        raise ApiError(400, f"{name} may have {limit} characters at most", param=name)
    return value


def _voice_of_file(csm: CSM, data: bytes) -> Voice:
    """A voice file, of which only the codes and the words are believed."""
    try:
        # Keys and values would go into the model's memory unchecked; the model makes its own.
        voice = Voice.from_bytes(data).without_prefix()
        csm.check_voice(voice)
    except (VoiceFileError, ValueError) as error:
        raise ApiError(400, f"audio_sample: {error}", param="audio_sample") from None
    return voice


def _voice_of_recording(csm: CSM, data: bytes, transcript: str) -> Voice:
    samples, rate = read_recording(data)
    try:
        return csm.create_voice((samples, rate), transcript)
    except ValueError as error:
        raise ApiError(
            400, f"the recording cannot be used: {error}", param="audio_sample"
        ) from None
