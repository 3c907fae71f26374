"""Wyoming, the protocol of Home Assistant's voice assistants: text in, speech out, as it comes.

`describe` is answered with what there is. `synthesize` brings a whole text; between
`synthesize-start` and `synthesize-stop` a text comes in `synthesize-chunk`s, and then as a whole in
a `synthesize` for servers that cannot take chunks, which is left out here. A text is answered with
`audio-start`, `audio-chunk`s and `audio-stop`, and one in chunks with `synthesize-stopped` at last.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

import csm_ggml
from csm_ggml.server.fields import SpeechFields
from csm_ggml.server.flow import SentenceReader, pieces_of
from csm_ggml.server.metrics import Meter
from csm_ggml.server.problems import ApiError, of_submitting
from csm_ggml.server.service import Order, Service

log = logging.getLogger("csm_ggml.server")

_URL = "https://huggingface.co/sesame/csm-1b"
# Longest part of an event.
_LINE_BYTES = 1 << 20


async def start_wyoming(service: Service, listener: socket.socket) -> asyncio.Server:
    """Serve Wyoming clients at a socket that listens."""
    sessions = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sessions
        try:
            if sessions < service.settings.sessions:
                sessions += 1
                try:
                    await _Session(service, _Bounded(reader), writer).run()
                finally:
                    sessions -= 1
        finally:
            writer.close()

    return await asyncio.start_server(serve, sock=listener, limit=_LINE_BYTES)


class _Bounded:
    """A reader that takes no part of an event that is longer than any should be."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def readline(self) -> bytes:
        return await self._reader.readline()

    async def readexactly(self, count: int) -> bytes:
        if not 0 <= count <= _LINE_BYTES:
            raise ValueError(f"an event has a part of {count} bytes")
        return await self._reader.readexactly(count)


class _Session:
    """One connection."""

    def __init__(self, service: Service, reader: Any, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        # Texts to be said, one after another.
        self._orders: asyncio.Queue[tuple[Order, AsyncGenerator[str, None], bool]] = asyncio.Queue()
        # Of a text that comes in chunks.
        self._chunks: asyncio.Queue[str | None] | None = None

    async def run(self) -> None:
        """Serve the client until it leaves."""
        speaking = asyncio.create_task(self._speak_all())
        try:
            while (event := await async_read_event(self._reader)) is not None:
                try:
                    await self._take(event)
                except Exception as error:
                    await self._tell_error(of_submitting(error))
        except (OSError, ValueError, KeyError, TypeError, EOFError, asyncio.LimitOverrunError):
            # The client has left, or does not speak Wyoming.
            return
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _take(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._write(self._info().event())
        elif SynthesizeStart.is_type(event.type):
            start = SynthesizeStart.from_event(event)
            order = self._order("text", start.voice)
            self._chunks = asyncio.Queue()
            self._orders.put_nowait((order, _pieces(self._chunks, order.csm.config), True))
        elif SynthesizeChunk.is_type(event.type):
            if self._chunks is not None:
                self._chunks.put_nowait(SynthesizeChunk.from_event(event).text)
        elif SynthesizeStop.is_type(event.type):
            if self._chunks is not None:
                self._chunks.put_nowait(None)
                self._chunks = None
        elif Synthesize.is_type(event.type) and self._chunks is None:
            whole = Synthesize.from_event(event)
            order = self._order(whole.text, whole.voice)
            self._orders.put_nowait(
                (order, pieces_of(order.text, whole=order.whole, config=order.csm.config), False)
            )

    def _order(self, text: str, voice: SynthesizeVoice | None) -> Order:
        name = voice.name if voice is not None else None
        speaker = voice.speaker if voice is not None else None
        fields = SpeechFields(voice=speaker or name or None)
        return self._service.order(fields, text, default_format="pcm")

    async def _speak_all(self) -> None:
        while True:
            order, pieces, streaming = await self._orders.get()
            with self._service.working():
                await self._speak(order, pieces, streaming=streaming)

    async def _speak(
        self, order: Order, pieces: AsyncGenerator[str, None], *, streaming: bool
    ) -> None:
        rate = order.csm.sample_rate
        meter = Meter(self._service.metrics, rate)
        sink = self._service.sink(order)
        flow, sound = self._service.flow(order, pieces)
        reason = "cancelled"
        form = {"rate": rate, "width": 2, "channels": 1}
        try:
            await self._write(AudioStart(**form).event())
            async with aclosing(sound):
                async for part in sound:
                    meter.saw(part)
                    if data := sink.take(part.samples):
                        await self._write(AudioChunk(audio=data, **form).event())
            reason = flow.finish_reason or "eos"
        except (OSError, asyncio.TimeoutError):
            # The client has left, or takes nothing any more.
            return
        except Exception as error:
            reason = "error"
            problem = of_submitting(error)
            if problem.status == 500:
                log.error("speech failed", exc_info=error)
            await self._tell_error(problem)
        finally:
            sink.close()
            meter.end(reason)
        await self._write(AudioStop().event())
        if streaming:
            await self._write(SynthesizeStopped().event())

    async def _write(self, event: Event) -> None:
        await asyncio.wait_for(
            async_write_event(event, self._writer), self._service.settings.stall_seconds
        )

    async def _tell_error(self, problem: ApiError) -> None:
        await self._write(Error(text=problem.message, code=problem.code).event())

    def _info(self) -> Info:
        attribution = Attribution(name="Sesame", url=_URL)
        version = csm_ggml.__version__
        voices = [
            TtsVoice(
                name=entry.id,
                description=entry.name,
                attribution=attribution,
                installed=True,
                version=version,
                languages=["en"],
            )
            for entry in self._service.voices.entries()
        ]
        program = TtsProgram(
            name="csm-ggml",
            description="CSM on ggml",
            attribution=attribution,
            installed=True,
            version=version,
            voices=voices,
            supports_synthesize_streaming=True,
        )
        return Info(tts=[program])


async def _pieces(
    chunks: asyncio.Queue[str | None], config: dict[str, Any]
) -> AsyncGenerator[str, None]:
    """The pieces of a text, as it comes."""
    reader = SentenceReader(config)
    while (text := await chunks.get()) is not None:
        for piece in reader.add(text):
            yield piece
    for piece in reader.finish():
        yield piece
