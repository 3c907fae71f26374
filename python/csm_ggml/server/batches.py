"""Many texts in one request, spoken side by side in what live requests leave."""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import aclosing
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from csm_ggml.audio.encoders import MEDIA_TYPES
from csm_ggml.server.fields import BatchItem, BatchRequest, SpeechFields
from csm_ggml.server.problems import ApiError, of_submitting
from csm_ggml.server.service import Order, Service, whole_file


def batch_routes(service: Service) -> APIRouter:
    """The endpoint of a server."""
    router = APIRouter()

    @router.post("/v1/audio/speech/batch", summary="Speak many texts")
    async def batch(request: Request, body: BatchRequest) -> dict[str, Any]:
        limit = service.settings.batch_items
        if not 1 <= len(body.items) <= limit:
            raise ApiError(
                400, f"items must be 1 to {limit} texts, got {len(body.items)}", param="items"
            )
        orders = [_order(service, body, number) for number in range(len(body.items))]
        with service.working():
            work = asyncio.ensure_future(_speak_all(service, orders))
            leaving = asyncio.ensure_future(_until_left(request))
            try:
                await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise ClientDisconnect
                results = work.result()
            finally:
                work.cancel()
                leaving.cancel()
                await asyncio.gather(work, leaving, return_exceptions=True)
        failed = sum(result["status"] == "error" for result in results)
        return {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "audio.speech.batch",
            "results": results,
            "total": len(results),
            "succeeded": len(results) - failed,
            "failed": failed,
        }

    return router


def _order(service: Service, body: BatchRequest, number: int) -> Order:
    """An item's order; its errors name the item."""
    item: BatchItem = body.items[number]
    given = item.model_dump(exclude_none=True, exclude={"input"})
    common = body.model_dump(exclude_none=True, exclude={"items"})
    try:
        fields = SpeechFields.model_validate({**common, **given})
        return service.order(fields, item.input, bulk=True, streamed=False)
    except ApiError as problem:
        problem.param = f"items[{number}].{problem.param or 'input'}"
        raise


async def _speak_all(service: Service, orders: list[Order]) -> list[dict[str, Any]]:
    # As many as fit side by side: the others wait here and not in the queue, which is for all.
    places = asyncio.Semaphore(orders[0].csm.scheduler.stats().slots)

    async def one(number: int, order: Order) -> dict[str, Any]:
        async with places:
            try:
                return {"index": number, **await _speak(service, order)}
            except Exception as error:
                problem = of_submitting(error)
                return {"index": number, "status": "error", **problem.body()}

    return await asyncio.gather(*(one(number, order) for number, order in enumerate(orders)))


async def _speak(service: Service, order: Order) -> dict[str, Any]:
    flow, sound = service.flow(order, patient=True)
    parts = [np.zeros(0, np.float32)]
    async with aclosing(sound):
        async for part in sound:
            parts.append(part.samples)
    samples = np.concatenate(parts)
    data = await asyncio.to_thread(whole_file, order, samples)
    return {
        "status": "success",
        "audio_data": base64.b64encode(data).decode(),
        "media_type": MEDIA_TYPES[order.format],
        "duration": len(samples) / order.csm.sample_rate / order.speed,
        "finish_reason": flow.finish_reason or "eos",
        "seed": order.manner.seed,
    }


async def _until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
