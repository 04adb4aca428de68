"""A small HTTP server of our own on 127.0.0.1, inside a running event loop, for as long as a ``with`` block lasts."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 512
_GRACE_SECONDS = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Signals are for the program that we run inside.
        yield


@contextlib.asynccontextmanager
async def serve_locally(app: ASGIApp, *, port: int = 0, http: Any = "auto") -> AsyncIterator[str]:
    """Serve ``app``; give its base URL (no trailing slash) once connections are accepted. Port 0 = any free one.

    ``http`` is what ``uvicorn.Config`` takes under this name.
    """
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without, every reply takes 40 ms longer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        # From here on clients wait in the backlog, however long the server takes to come up.
        listener.listen(_BACKLOG)
        config = uvicorn.Config(
            app,
            http=http,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
    finally:
        listener.close()
