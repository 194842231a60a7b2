"""The HTTP process: `python -m framework.app.serving.front LINK_FD LISTEN_FD`, started by `serve`.

It binds nothing and finds nothing by itself: both sockets come from its parent, and so do the settings, as the first
message. The API key is in its environment.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import pickle
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from framework.app.serving.client import EngineClient
from framework.app.serving.endpoints import ApiError, Endpoints, errors_as_json
from framework.app.serving.settings import FrontSettings
from framework.app.serving.wire import Link

KEY_VARIABLE = "SERVELAB_API_KEY"
_OPEN_TO_ALL = ("/health",)


class Guard:
    """Asks for the API key, if there is one, before anything else is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401."""
        if scope["type"] == "http" and scope["path"] not in _OPEN_TO_ALL:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._key):
                text = "this server wants an API key: send it as Authorization: Bearer KEY"
                await ApiError(401, text).response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def application(endpoints: Endpoints, key: str) -> ASGIApp:
    """Every route of the server."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    async def home(request: Request) -> Response:
        return HTMLResponse(page)

    async def missing(request: Request, error: Exception) -> Response:
        return ApiError(
            getattr(error, "status_code", 404), f"{request.method} {request.url.path} is not served"
        ).response()

    handlers = [
        ("/v1/chat/completions", endpoints.chat, "POST"),
        ("/v1/completions", endpoints.complete, "POST"),
        ("/tokenize", endpoints.tokenize, "POST"),
        ("/detokenize", endpoints.detokenize, "POST"),
        ("/tokenizer_info", endpoints.tokenizer_info, "GET"),
        ("/v1/models", endpoints.models, "GET"),
        ("/health", endpoints.health, "GET"),
        ("/version", endpoints.version, "GET"),
        ("/metrics", endpoints.metrics, "GET"),
        ("/status", endpoints.status, "GET"),
        ("/", home, "GET"),
    ]
    routes = [Route(path, errors_as_json(handler), methods=[method]) for path, handler, method in handlers]
    app: ASGIApp = Starlette(routes=routes, exception_handlers={404: missing, 405: missing})
    return Guard(app, key) if key else app


def protocol_with_limit(limit_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, closing a connection whose headers do not arrive in time (slow loris)."""

    class Limited(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(limit_s, self._close_if_idle)

        def on_headers_complete(self) -> None:
            self._late.cancel()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._late.cancel()
            super().connection_lost(exc)

        def _close_if_idle(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Limited


async def serve(link_socket: socket.socket, listener: socket.socket, settings: FrontSettings, key: str) -> None:
    """Answer until the engine hangs up."""
    from framework.models.loading.byte_tokenizer import byte_tokenizer
    from framework.models.loading.load import load_tokenizer

    loop = asyncio.get_running_loop()
    tokenizer = load_tokenizer(settings.model) or byte_tokenizer()
    config = uvicorn.Config(
        application_placeholder,
        http=protocol_with_limit(settings.read_limit_s),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        ws="none",
    )
    server = uvicorn.Server(config)
    link = Link(link_socket)
    engine = EngineClient(link, loop, on_closed=lambda: setattr(server, "should_exit", True))
    config.app = application(Endpoints(engine, tokenizer, settings), key)
    link.send("ready")
    await server.serve(sockets=[listener])


async def application_placeholder(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands in `uvicorn.Config` until the engine's client exists, which needs the running loop."""
    raise AssertionError("replaced before the server starts")


def main(arguments: list[str]) -> int:
    """Read the settings from the link and serve."""
    link = socket.socket(fileno=int(arguments[0]))
    listener = socket.socket(fileno=int(arguments[1]))
    with link.makefile("rb", buffering=0) as stream:
        (length,) = struct.unpack("!Q", _exactly(stream, 8))
        settings: FrontSettings = pickle.loads(_exactly(stream, length))[0]
    asyncio.run(serve(link, listener, settings, os.environ.pop(KEY_VARIABLE, "")))
    return 0


def _exactly(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (piece := stream.read(size - len(data)))
        if not piece:
            raise EOFError("the engine process ended at start")
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
