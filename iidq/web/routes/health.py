"""Probes: liveness (restart on failure), readiness (send requests), and health for people."""

import asyncio
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq import __version__
from iidq.errors import DatabaseBusy, DatabaseRefusal, DatabaseUnavailable, ObjectMissing
from iidq.queue.read import queue_health
from iidq.queue.read.queue_health import QueueHealth
from iidq.web.reply import shapes
from iidq.web.reply.error_replies import RETRY_AFTER_SECONDS
from iidq.web.reply.wire import JsonReply, redis_shape
from iidq.web.service import Service, service_of

PROBE_SECONDS: Final = 5.0
"""Longest time for reading the database's state."""


async def livez(request: Request) -> Response:
    """GET /livez: 200 while the process answers."""
    return JsonReply({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz: 200 while Postgres is reachable and migrated, otherwise 503; 503 too once the process stops.

    ``circuit`` is open while requests are refused, or processed at once, without a query. ``faults`` lists refusals of
    Postgres towards this process or workers; the status is then ``degraded``, and still 200 while Postgres answers.

    For people: live workers, listening workers (the others poll), and whether the queue is paused. The API is ready
    without workers, because jobs wait, and without Redis.
    """
    service = service_of(request)
    database = await _database_state(request)
    state: dict[str, Any] = {
        "database": database,
        "circuit": "open" if service.database.refuses_writes else "closed",
        "redis": redis_shape(service.accelerator.state, service.accelerator.since),
    }
    depth = await service.queue_state.read() if database == "ok" else None
    faults = await _faults(service, depth)
    if faults:
        state["faults"] = faults
    if service.stopping.is_set():
        return _not_ready({"status": "stopping", **state})
    if database == "ok" or (database == "refused" and not service.database.away):
        return JsonReply({"status": "degraded" if faults else "ready", **state, "queue": _queue_signs(depth)})
    return _not_ready({"status": "unavailable", **state})


async def _faults(service: Service, depth: QueueHealth | None) -> list[str]:
    """Return the faults for an operator: of the process, the database role, and the workers."""
    obstacles = [] if service.database.away else await service.queue_state.obstacles()
    named = [*(obstacles or []), *service.database.faults.for_operators(), *(depth.faults if depth else [])]
    return list(dict.fromkeys(named))


def _not_ready(state: dict[str, Any]) -> Response:
    return JsonReply(state, 503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


async def health(request: Request) -> Response:
    """GET /api/health: always 200; ``degraded`` without a database."""
    database = await _database_state(request)
    status: Literal["ok", "degraded"] = "ok" if database == "ok" else "degraded"
    body: shapes.Health = {"status": status, "database": database, "version": __version__}
    return JsonReply(body)


def _queue_signs(depth: QueueHealth | None) -> shapes.QueueSigns | None:
    if depth is None:
        return None
    return {"workers": depth.workers, "listeningWorkers": depth.listening_workers, "paused": depth.paused}


async def _database_state(request: Request) -> shapes.DatabaseState:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await service_of(request).overviews.run(queue_health.probe)
    except DatabaseRefusal as error:
        return "not migrated" if isinstance(error, ObjectMissing) else "refused"
    except DatabaseBusy:
        # Too many probes at once. The circuit shows whether Postgres is reachable.
        return "ok"
    except (DatabaseUnavailable, TimeoutError) as error:
        return "not migrated" if getattr(error, "code", None) == "database.not_migrated" else "unavailable"
    return "ok"


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/api/health", health, methods=["GET"]),
]
