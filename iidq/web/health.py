"""Probes: alive (restart me if not), ready (send me requests), and health for people."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq import __version__
from iidq.errors import DatabaseUnavailable
from iidq.queue import store
from iidq.web.replies import RETRY_AFTER_SECONDS
from iidq.web.service import service_of
from iidq.web.wire import JsonReply

PROBE_SECONDS: Final = 5.0


async def livez(request: Request) -> Response:
    """GET /livez: the process answers; says nothing about what it depends on."""
    return JsonReply({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz: 200 once Postgres is reachable and migrated, else 503."""
    database = await _database_state(request)
    if database == "ok":
        return JsonReply({"status": "ready", "database": database})
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return JsonReply({"status": "unavailable", "database": database}, 503, headers=headers)


async def health(request: Request) -> Response:
    """GET /api/health: always 200 while the process serves; ``degraded`` without a database."""
    database = await _database_state(request)
    status = "ok" if database == "ok" else "degraded"
    return JsonReply({"status": status, "database": database, "version": __version__})


async def _database_state(request: Request) -> str:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await service_of(request).database.run(store.probe)
    except (DatabaseUnavailable, TimeoutError) as error:
        return "not migrated" if getattr(error, "code", None) == "database.not_migrated" else "unavailable"
    return "ok"


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/api/health", health, methods=["GET"]),
]
