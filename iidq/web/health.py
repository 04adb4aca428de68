"""Probes: alive (restart me if not), ready (send me requests), and health for people."""

import asyncio
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq import __version__
from iidq.errors import DatabaseBusy, DatabaseUnavailable
from iidq.queue import readers
from iidq.web import shapes
from iidq.web.replies import RETRY_AFTER_SECONDS
from iidq.web.service import service_of
from iidq.web.wire import JsonReply, redis_shape

PROBE_SECONDS: Final = 5.0


async def livez(request: Request) -> Response:
    """GET /livez: the process answers; says nothing about what it depends on."""
    return JsonReply({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz: 200 once Postgres is reachable and migrated, else 503; 503 too as soon as the process is to stop.

    ``circuit`` is open while requests are refused, or processed at once, without asking Postgres.

    Beside it, for people: live workers, how many of them hear of new jobs at once (the others poll), and whether the
    queue is paused. The API is ready without any: jobs wait. It is ready without Redis, too.
    """
    service = service_of(request)
    database = await _database_state(request)
    state = {
        "database": database,
        "circuit": "open" if service.database.away else "closed",
        "redis": redis_shape(service.accelerator.state, service.accelerator.since),
    }
    if service.stopping.is_set():
        return _not_ready({"status": "stopping", **state})
    if database == "ok":
        return JsonReply({"status": "ready", **state, "queue": await _queue_signs(request)})
    return _not_ready({"status": "unavailable", **state})


def _not_ready(state: dict[str, Any]) -> Response:
    return JsonReply(state, 503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


async def health(request: Request) -> Response:
    """GET /api/health: always 200 while the process serves; ``degraded`` without a database."""
    database = await _database_state(request)
    status: Literal["ok", "degraded"] = "ok" if database == "ok" else "degraded"
    body: shapes.Health = {"status": status, "database": database, "version": __version__}
    return JsonReply(body)


async def _queue_signs(request: Request) -> shapes.QueueSigns | None:
    depth = await service_of(request).queue_state.read()
    if depth is None:
        return None
    return {"workers": depth.workers, "listeningWorkers": depth.listening_workers, "paused": depth.paused}


async def _database_state(request: Request) -> shapes.DatabaseState:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await service_of(request).overviews.run(readers.probe)
    except DatabaseBusy:
        # Too many ask at the same time. Whether Postgres is there is known from the circuit.
        return "ok"
    except (DatabaseUnavailable, TimeoutError) as error:
        return "not migrated" if getattr(error, "code", None) == "database.not_migrated" else "unavailable"
    return "ok"


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/api/health", health, methods=["GET"]),
]
