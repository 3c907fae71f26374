"""Speech as the answer to an HTTP request: bytes that flow, server-sent events, or a whole file."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from csm_ggml.audio.encoders import MEDIA_TYPES
from csm_ggml.server.flow import Flow, Sound
from csm_ggml.server.metrics import Meter
from csm_ggml.server.problems import ApiError, of_speaking, of_submitting
from csm_ggml.server.service import Order, Service, Sink, whole_file

log = logging.getLogger("csm_ggml.server")


class ClientGone(Exception):  # noqa: N818
    """The client has left, or takes nothing any more."""


class SpeechAnswer(Response):
    """An answer whose headers are sent when the first audio is there.

    Until then an error has a status of its own. Later a stream of bytes is broken off, so that no
    client takes what it got for all there is; server-sent events end with an error event. A client
    that leaves cancels its speech at any time.
    """

    def __init__(self, service: Service, order: Order, *, sse: bool, stream: bool) -> None:
        """Take what to say; nothing happens before the answer is asked for."""
        self._service = service
        self._order = order
        self._sse = sse
        self._stream = stream
        # Since when the client has been given something that it does not take.
        self._sending: float | None = None
        # What Starlette and FastAPI look at.
        self.status_code = 200
        self.background = None
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        scope["csm.format"] = self._order.format
        with self._service.working():
            await self._until_done(scope, receive, send)

    async def _until_done(self, scope: Scope, receive: Receive, send: Send) -> None:
        speaking = asyncio.create_task(self._answer(send, scope))
        leaving = asyncio.create_task(_until_disconnect(receive))
        try:
            stall = self._service.settings.stall_seconds
            while not speaking.done() and not leaving.done():
                tasks = {speaking, leaving}
                await asyncio.wait(tasks, timeout=stall / 4, return_when=asyncio.FIRST_COMPLETED)
                if self._sending is not None and time.monotonic() > self._sending + stall:
                    log.info("a client takes nothing")
                    return
            if speaking.done():
                speaking.result()
        finally:
            for task in (speaking, leaving):
                task.cancel()
            await asyncio.gather(speaking, leaving, return_exceptions=True)

    async def _answer(self, send: Send, scope: Scope) -> None:
        service, order = self._service, self._order
        meter = Meter(service.metrics, order.csm.sample_rate)
        scope["csm.meter"] = meter
        sink = service.sink(order)
        flow, sound = service.flow(order)
        reason = "cancelled"
        begun = False
        try:
            async with aclosing(sound):
                try:
                    first = await anext(sound, None)
                except Exception as error:
                    problem = _logged(of_submitting(error), error)
                    reason = "refused" if problem.status == 429 else "error"
                    raise problem from error
                if not self._stream:
                    await self._whole(send, flow, first, sound, meter)
                else:
                    begun = True
                    await self._start(send)
                    await self._parts(send, flow, first, sound, meter, sink)
            reason = flow.finish_reason or "eos"
        except ClientGone:
            log.info("client gone")
        except ApiError:
            # Nothing was sent: it becomes the answer.
            raise
        except Exception as error:
            reason = "error"
            problem = _logged(of_speaking(error), error)
            if not begun:
                raise problem from error
            if self._sse:
                await self._send(send, _event({"type": "error", **problem.body()}), more=False)
            # Else: no last part, so the server closes the connection amid the body.
        finally:
            sink.close()
            meter.end(reason)

    def _head(self) -> list[tuple[bytes, bytes]]:
        order = self._order
        headers = {
            "content-type": "text/event-stream" if self._sse else MEDIA_TYPES[order.format],
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            "x-csm-seed": str(order.manner.seed),
        }
        if order.format == "pcm" and not self._sse:
            rate = self._order.csm.sample_rate
            headers |= {"x-sample-rate": str(rate), "x-channels": "1", "x-bit-depth": "16"}
        return [(name.encode(), value.encode()) for name, value in headers.items()]

    async def _start(self, send: Send, more: dict[str, str] | None = None) -> None:
        headers = self._head()
        headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _parts(
        self,
        send: Send,
        flow: Flow,
        first: Sound | None,
        sound: AsyncGenerator[Sound, None],
        meter: Meter,
        sink: Sink,
    ) -> None:
        part = first
        while part is not None:
            meter.saw(part)
            if data := sink.take(part.samples):
                await self._send(send, self._delta(data), more=True)
            part = await anext(sound, None)
        data = sink.finish()
        body = self._delta(data) if data else b""
        if self._sse:
            body += _event({"type": "speech.audio.done", "usage": self._usage(flow)})
        await self._send(send, body, more=False)

    async def _whole(
        self,
        send: Send,
        flow: Flow,
        first: Sound | None,
        sound: AsyncGenerator[Sound, None],
        meter: Meter,
    ) -> None:
        parts = [np.zeros(0, np.float32)]
        part = first
        while part is not None:
            meter.saw(part)
            parts.append(part.samples)
            part = await anext(sound, None)
        data = await asyncio.to_thread(whole_file, self._order, np.concatenate(parts))
        more = {"x-csm-finish-reason": flow.finish_reason or "eos"}
        if self._sse:
            body = self._delta(data)
            body += _event({"type": "speech.audio.done", "usage": self._usage(flow)})
        else:
            body = data
            more["content-length"] = str(len(body))
        await self._start(send, more)
        await self._send(send, body, more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        self._sending = time.monotonic()
        try:
            await send({"type": "http.response.body", "body": body, "more_body": more})
        except OSError:
            raise ClientGone from None
        finally:
            self._sending = None

    def _delta(self, data: bytes) -> bytes:
        if not self._sse:
            return data
        return _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})

    def _usage(self, flow: Flow) -> dict[str, int]:
        csm = self._order.csm
        said = len(csm.tokenize(self._order.text, tags=self._order.manner.options["tags"]))
        made = flow.frames * csm.codebooks
        return {"input_tokens": said, "output_tokens": made, "total_tokens": said + made}


def _event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _logged(problem: ApiError, error: BaseException) -> ApiError:
    if problem.status == 500:
        log.error("speech failed", exc_info=error)
    return problem
