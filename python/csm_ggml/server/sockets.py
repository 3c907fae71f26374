"""The WebSocket for text as it is written: spoken sentence by sentence while it still comes.

The messages are those of vLLM-Omni and SGLang-Omni. From the client: `session.config` (the fields
of a speech request), `input.text`, `input.done`, `session.close`. From the server: `audio.start`,
binary frames, `audio.done` for each piece, `session.done` after `input.done`, `error`. Closing the
connection stops the speech at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from csm_ggml.server.answers import ClientGone
from csm_ggml.server.fields import SpeechFields
from csm_ggml.server.flow import SentenceReader
from csm_ggml.server.metrics import Meter
from csm_ggml.server.problems import ApiError, of_submitting
from csm_ggml.server.service import Order, Service

log = logging.getLogger("csm_ggml.server")

# A client that sends nothing for so long, while nothing is being said, is let go.
_IDLE_SECONDS = 120.0


def socket_routes(service: Service) -> APIRouter:
    """The endpoint of a server."""
    router = APIRouter()
    sessions = 0

    @router.websocket("/v1/audio/speech/stream")
    async def stream(socket: WebSocket) -> None:
        nonlocal sessions
        if sessions >= service.settings.sessions:
            await socket.close(1013, "too many sessions")
            return
        await socket.accept()
        sessions += 1
        try:
            with service.working():
                await _Session(service, socket).run()
        except (ClientGone, WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            # The client has left, amid a message of ours, too.
            return
        finally:
            sessions -= 1

    return router


class _Session:
    """One connection."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self._service = service
        self._socket = socket
        self._fields = SpeechFields()
        self._texts: asyncio.Queue[str | None] | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._utterance = 0
        self._characters = 0

    async def run(self) -> None:
        """Serve the client until it leaves."""
        try:
            while True:
                idle = self._speaking is None or self._speaking.done()
                wait = _IDLE_SECONDS if idle else None
                text = await asyncio.wait_for(self._socket.receive_text(), wait)
                try:
                    if not await self._take(text):
                        break
                except ApiError as problem:
                    await self._tell_error(problem)
            await self._socket.close()
        except KeyError:
            # A binary message: receive_text finds no text in it.
            await self._socket.close(1003, "messages are JSON texts")
        except asyncio.TimeoutError:
            await self._socket.close(1000, "idle")
        finally:
            if self._speaking is not None:
                self._speaking.cancel()
                await asyncio.gather(self._speaking, return_exceptions=True)

    async def _take(self, text: str) -> bool:
        """Do what a message says; whether the session goes on."""
        if len(text) > self._service.settings.json_bytes:
            raise ApiError(400, "the message is too long")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise ApiError(400, "the message is no JSON") from None
        if not isinstance(message, dict):
            raise ApiError(400, "the message must be a JSON object")
        kind = message.get("type")
        if kind == "session.config":
            await self._configure(message)
        elif kind == "input.text":
            await self._input(message.get("text"))
        elif kind == "input.done":
            if self._texts is None:
                await self._tell(
                    {
                        "type": "session.done",
                        "utterance_index": self._utterance,
                        "total_sentences": 0,
                    }
                )
            else:
                self._texts.put_nowait(None)
                self._texts = None
                self._utterance += 1
        elif kind == "session.close":
            return False
        else:
            raise ApiError(
                400, "type must be session.config, input.text, input.done, session.close"
            )
        return True

    async def _configure(self, message: dict[str, Any]) -> None:
        if self._texts is not None:
            raise ApiError(400, "session.config amid a text; send input.done first")
        try:
            fields = SpeechFields.model_validate(message)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))[:200]
            raise ApiError(400, f"{where}: {first['msg']}", param=where) from None
        # A text stands for the one that will come: everything else is checked now.
        self._service.order(fields, "text", default_format="pcm")
        self._fields = fields

    async def _input(self, text: object) -> None:
        if not isinstance(text, str):
            raise ApiError(400, "text must be a string", param="text")
        if self._texts is None:
            if self._speaking is not None:
                # The one before is said to its end first.
                await asyncio.gather(self._speaking, return_exceptions=True)
            order = self._service.order(self._fields, "text", default_format="pcm")
            self._texts = asyncio.Queue()
            self._characters = 0
            self._speaking = asyncio.create_task(self._speak(order, self._texts, self._utterance))
        self._characters += len(text)
        if self._characters > self._service.settings.input_characters:
            raise ApiError(
                400, "the text is too long", param="text", code="string_above_max_length"
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "text is not valid Unicode", param="text") from None
        self._texts.put_nowait(text)

    async def _speak(self, order: Order, texts: asyncio.Queue[str | None], utterance: int) -> None:
        """Say one text."""
        sink = self._service.sink(order)
        meter = Meter(self._service.metrics, order.csm.sample_rate)
        flow, sound = self._service.flow(order, _pieces(texts, order.csm.config))
        reason = "cancelled"
        sent = total = 0
        piece = -1
        names = {"utterance_index": utterance}
        try:
            async with aclosing(sound):
                async for part in sound:
                    meter.saw(part)
                    if part.piece != piece:
                        piece, sent = part.piece, 0
                        await self._tell(
                            {
                                "type": "audio.start",
                                **names,
                                "sentence_index": piece,
                                "sentence_text": part.text,
                                "format": order.format,
                                "sample_rate": order.csm.sample_rate,
                                "seed": order.manner.seed,
                            }
                        )
                    if data := sink.take(part.samples):
                        sent += len(data)
                        await self._send(data)
                    if part.finish_reason is not None:
                        done = {"type": "audio.done", **names, "sentence_index": piece}
                        unsaid = part.finish_reason == "empty"
                        await self._tell({**done, "total_bytes": sent, "error": unsaid})
                        total += 1
            if data := sink.finish():
                await self._send(data)
            reason = flow.finish_reason or "eos"
            await self._tell({"type": "session.done", **names, "total_sentences": total})
        except ClientGone:
            return
        except Exception as error:
            reason = "error"
            problem = of_submitting(error)
            if problem.status == 500:
                log.error("speech failed", exc_info=error)
            with suppress(ClientGone):
                await self._tell_error(problem)
                await self._tell({"type": "session.done", **names, "total_sentences": total})
        finally:
            sink.close()
            meter.end(reason)

    async def _send(self, data: bytes) -> None:
        await self._in_time(self._socket.send_bytes(data))

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._in_time(self._socket.send_json(message))

    async def _in_time(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(sending, self._service.settings.stall_seconds)
        except (OSError, RuntimeError, WebSocketDisconnect, asyncio.TimeoutError):
            # Starlette's error for a connection that is closed is a RuntimeError.
            raise ClientGone from None

    async def _tell_error(self, problem: ApiError) -> None:
        await self._tell({"type": "error", "message": problem.message, **problem.body()})


async def _pieces(
    texts: asyncio.Queue[str | None], config: dict[str, Any]
) -> AsyncGenerator[str, None]:
    """The pieces of a text, as it comes."""
    reader = SentenceReader(config)
    while (text := await texts.get()) is not None:
        for piece in reader.add(text):
            yield piece
    for piece in reader.finish():
        yield piece
