"""The HTTP endpoints except uploads, batches and the WebSocket."""

from __future__ import annotations

import platform
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

import csm_ggml
from csm_ggml.server.answers import SpeechAnswer
from csm_ggml.server.fields import SpeechRequest
from csm_ggml.server.problems import ApiError
from csm_ggml.server.service import Service

_STARTED = int(time.time())


def routes(service: Service) -> APIRouter:
    """The endpoints of a server."""
    router = APIRouter()

    @router.post(
        "/v1/audio/speech",
        response_class=Response,
        summary="Speak a text",
        responses={200: {"description": "Audio, or server-sent events with audio inside."}},
    )
    async def speech(request: Request, body: SpeechRequest) -> Response:
        streamed = body.stream is not False
        order = service.order(body, body.input, streamed=streamed)
        if service.settings.log_texts:
            request.scope["csm.text"] = order.text
        return SpeechAnswer(service, order, sse=body.stream_format == "sse", stream=streamed)

    @router.get("/v1/models", summary="The model, under all its names")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in service.model_names()]}

    @router.get("/v1/models/{id:path}", summary="One of its names")
    async def model(id: str) -> dict[str, Any]:
        if id not in service.model_names():
            raise ApiError(404, "there is no such model", param="model", code="model_not_found")
        return _model(id)

    @router.get("/v1/audio/models", summary="The model, as Open WebUI asks for it")
    async def audio_models() -> dict[str, Any]:
        return {"models": [{"id": name, "name": name} for name in service.model_names()]}

    @router.get("/v1/audio/voices", summary="Voices that requests may name")
    async def voices() -> dict[str, Any]:
        entries = [
            {
                "object": "audio.voice",
                "id": entry.id,
                "name": entry.name,
                "created_at": entry.created_at,
                "uploaded": entry.uploaded,
            }
            for entry in service.voices.entries()
        ]
        return {"object": "list", "voices": entries, "data": entries}

    @router.get("/health", summary="Whether the process runs")
    async def health() -> JSONResponse:
        if service.failure is not None:
            return JSONResponse({"status": "failed"}, 500)
        return JSONResponse({"status": "ok"})

    @router.get(
        "/ready", summary="Whether it takes requests, and how many live streams it promises"
    )
    async def ready() -> JSONResponse:
        takes, told = service.readiness()
        return JSONResponse(told, 200 if takes else 503, None if takes else {"Retry-After": "5"})

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/version", summary="What runs here")
    async def version() -> dict[str, Any]:
        return {
            "name": "csm-ggml",
            "version": csm_ggml.__version__,
            "python": platform.python_version(),
        }

    @router.get("/v1", include_in_schema=False)
    @router.get("/v1/", summary="What there is")
    async def index() -> dict[str, Any]:
        return {"object": "server", "name": "csm-ggml", "documentation": "/docs"}

    return router


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "csm-ggml"}
