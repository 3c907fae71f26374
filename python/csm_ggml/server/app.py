"""The application: all faces of one server that speak HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

import csm_ggml
from csm_ggml.csm import CSM
from csm_ggml.server.batches import batch_routes
from csm_ggml.server.journal import AccessLog
from csm_ggml.server.pages import page_routes
from csm_ggml.server.problems import ApiError
from csm_ggml.server.routes import routes
from csm_ggml.server.security import Guard
from csm_ggml.server.service import Service
from csm_ggml.server.settings import Settings
from csm_ggml.server.sockets import socket_routes
from csm_ggml.server.uploads import upload_routes

log = logging.getLogger("csm_ggml.server")


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[], CSM],
    service: Service | None = None,
    eager: bool = False,
) -> FastAPI:
    """The server as an ASGI application, for uvicorn, Ray Serve and others.

    The model is loaded when the application starts, in the background: until it is there, requests
    for speech get a 503. When the application stops, what is being said is said to its end.

    Args:
        settings: Default: no keys, no saved voices, this machine's names alone as Host.
        load: Loads the model, with as many slots and as long a queue as it is to have.
        service: To be shared with other faces; made of settings and load if left out.
        eager: Whether the application has started only when the model is loaded, for servers that
            send no request before.
    """
    shared = service or Service(settings or Settings(), load)
    settings = shared.settings

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        starting = asyncio.create_task(shared.start())
        starting.add_done_callback(_tell_failure)
        if eager:
            await starting
        try:
            yield
        finally:
            shared.drain()
            await asyncio.gather(starting, return_exceptions=True)
            await shared.drained()
            if shared.csm is not None:
                await asyncio.to_thread(shared.csm.close, drain=False)

    middleware = [Middleware(AccessLog, shared.metrics), Middleware(Guard, settings)]
    if settings.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["x-request-id", "x-csm-seed", "x-csm-finish-reason"],
        )
        middleware.insert(1, cors)
    app = FastAPI(
        title="csm-ggml",
        version=csm_ggml.__version__,
        description="Speech from text, as OpenAI's audio API has it.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=middleware,
        redirect_slashes=False,
    )
    app.state.service = shared
    app.include_router(batch_routes(shared))
    app.include_router(upload_routes(shared))
    app.include_router(routes(shared))
    app.include_router(socket_routes(shared))
    app.include_router(page_routes())
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _tell_failure(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        log.error("the model cannot be loaded: %s", error)


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """A body that has not the form it should have. What it holds is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][1:] if not str(part).startswith("function-")]
    param = where[0] if where and first["type"] != "json_invalid" else None
    message = first["msg"] if param is None else f"{'.'.join(where)[:200]}: {first['msg']}"
    return JSONResponse(ApiError(400, message, param=param).body(), 400)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    problem = ApiError(error.status_code, str(error.detail))
    return JSONResponse(problem.body(), error.status_code, error.headers)
