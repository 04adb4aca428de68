"""GET /{jobId}/events: a job's states as server-sent events (HTML standard, section 9.2).

Each event's ``data`` is the job's JSON. Its ``id`` is made from the row, so a client can reconnect to any process and
miss nothing. The last event is named after the job's end, and then the stream ends.
"""

import asyncio
import json
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from iidq.errors import DatabaseUnavailable, TemporaryFault
from iidq.queue.identifiers import find_job_id
from iidq.queue.job import FINAL, Job, JobStatus
from iidq.queue.notify.watching import Watch, WatchHub
from iidq.web.reply.error_replies import job_not_found
from iidq.web.reply.wire import JOBS_PATH, job_shape
from iidq.web.service import service_of
from iidq.web.waiting import until_gone

HEARTBEAT_SECONDS: Final = 15.0
"""Interval of comments in a silent stream, because proxies cut silent connections."""
RECONNECT_MS: Final = 2000
"""Pause of a browser before it reconnects."""
LONGEST_STREAM_SECONDS: Final = 3600.0
"""Longest stream; the client then reconnects, perhaps to a process with fewer watchers."""
_FIRST_STATE_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 30.0

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would hold events back until a buffer is full.
    (b"x-accel-buffering", b"no"),
]
_HEARTBEAT: Final = b": still here\n\n"


async def events(request: Request) -> Response:
    """GET /{jobId}/events."""
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    return _JobEvents(service_of(request).watching, job_id, seen=request.headers.get("last-event-id"))


def event_id(job: Job) -> str:
    """Return the identity of a job's state: attempt, status, progress, and the time of the status (µs).

    A renewed lease is no new state. The time is needed because a job retried by hand may be cancelled twice.
    """
    since = job.completed_at or (job.started_at if job.status is JobStatus.PROCESSING else None) or job.run_at
    return f"{job.attempt}-{job.status.value}-{job.progress}-{int(since.timestamp() * 1_000_000)}"


def event(job: Job) -> bytes:
    """Return the job as one event: ``progress``, or the status of its end."""
    name = job.status.value if job.status in FINAL else "progress"
    # JSON escapes line breaks within texts, so the data is one line.
    data = json.dumps(job_shape(job), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"id: {event_id(job)}\nevent: {name}\ndata: {data}\n\n".encode()


class _JobEvents(Response):
    """The stream of a job; 404, 503 or 204 if there is nothing to stream."""

    def __init__(self, hub: WatchHub, job_id: UUID, *, seen: str | None) -> None:
        super().__init__()
        self._hub = hub
        self._job_id = job_id
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the job ends, its row is removed, the client disconnects or the service stops."""
        with self._hub.watch(self._job_id) as watch:
            job = await _first_state(watch)
            if job is None:
                await job_not_found()(scope, receive, send)
            elif job.status in FINAL and event_id(job) == self._seen:
                # After 204 a browser does not reconnect.
                await Response(status_code=204)(scope, receive, send)
            else:
                await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
                if scope["method"] != "HEAD":
                    try:
                        async with until_gone(receive, watch.end):
                            await self._stream(job, watch, send)
                    except TimeoutError:
                        # The client reads nothing, so the end of the stream cannot be sent either.
                        return
                await send({"type": "http.response.body", "body": b""})

    async def _stream(self, job: Job | None, watch: Watch, send: Send) -> None:
        end = asyncio.get_running_loop().time() + LONGEST_STREAM_SECONDS
        await _send(send, b"retry: %d\n\n" % RECONNECT_MS)
        while job is not None:
            state = event_id(job)
            if state != self._seen:
                await _send(send, event(job))
                self._seen = state
            if job.status in FINAL:
                return
            job = await _next_state(watch, send, end)


async def _first_state(watch: Watch) -> Job | None:
    try:
        async with asyncio.timeout(_FIRST_STATE_SECONDS):
            job = await watch.next()
    except TimeoutError:
        raise DatabaseUnavailable("the job cannot be read for now") from None
    if job is None and not watch.gone:
        raise TemporaryFault("the service is stopping; connect again", code="service.stopping", retry_after_seconds=1)
    return job


async def _next_state(watch: Watch, send: Send, end: float) -> Job | None:
    while asyncio.get_running_loop().time() < end:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await watch.next()
        except TimeoutError:
            await _send(send, _HEARTBEAT)
    return None


async def _send(send: Send, chunk: bytes) -> None:
    # A client that reads nothing for so long loses its place.
    async with asyncio.timeout(_SEND_SECONDS):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


ROUTES = [Route(f"{JOBS_PATH}/{{job_id}}/events", events, methods=["GET"])]
