"""Serve a small ASGI app on 127.0.0.1 inside a running event loop, for the length of a ``with`` block."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from iidq.listening import base_url, listen

_GRACE_SECONDS = 2


class _LocalServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Signals are for the surrounding program.
        yield


@contextlib.asynccontextmanager
async def serve_locally(app: ASGIApp, *, port: int = 0, http: Any = "auto") -> AsyncIterator[str]:
    """Serve ``app``; yield the base URL, without trailing slash, once connections are accepted.

    Port 0 takes any free one. ``http`` is passed to ``uvicorn.Config``.
    """
    with listen("127.0.0.1", port) as listener:
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
        server = _LocalServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield base_url(listener)
        finally:
            server.should_exit = True
            await serving
