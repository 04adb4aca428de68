"""Serve a real API on a real socket, inside the test's event loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from iidq.embedded.endpoint import serve_locally
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server.http_protocol import bounded_http
from tests.web.serving import NO_DATABASE, NO_LIMITS, ServeApi


@pytest.fixture
def serve_api() -> ServeApi:
    """Start APIs; each runs until its ``async with`` ends."""

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        defaults: dict[str, Any] = {"database_url": NO_DATABASE, "rpc_url": "http://rpc.invalid/", **NO_LIMITS}
        known = Settings(_env_file=None, **{**defaults, **settings})
        app = create_app(known)
        async with (
            app.router.lifespan_context(app),
            serve_locally(app, http=bounded_http(known)) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            yield client

    return serve


@pytest.fixture
async def api(serve_api: ServeApi, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an API with an empty queue."""
    async with serve_api(database_url=database_url) as client:
        yield client


@pytest.fixture
async def lonely_api(serve_api: ServeApi) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an API without a reachable database."""
    async with serve_api() as client:
        yield client
