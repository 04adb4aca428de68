"""Test GET /{jobId}/events: each stream follows its job to the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from iidq.embedded.endpoint import serve_locally
from iidq.queue.identifiers import new_job_id
from iidq.queue.notify import watching as hub
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.routes import events
from iidq.web.service import Service
from tests.eventually import eventually
from tests.job_rows import CANCELLED, COMPLETED, FAILED, PROCESSING, Sql, insert, update
from tests.web.request.test_idempotency import QUESTION
from tests.web.serving import JOBS, NO_LIMITS, ServeApi


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database, also in the role of a worker."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll more often than usual, because these tests send no notifications."""
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.05)


FREE = {"workerId": None, "leaseUntil": None}


class Stream:
    """Server-sent events as read by a client."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply = reply
        self._lines = reply.aiter_lines()
        self.comments = 0
        self.retry_ms: int | None = None

    async def next(self) -> dict[str, Any] | None:
        """Return the next event, or None at the stream's end."""
        told: dict[str, Any] = {}
        async with asyncio.timeout(15):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and "data" in told:
                    return {**told, "job": json.loads(told["data"])}
                if line.startswith(":"):
                    self.comments += 1
                elif name == "retry":
                    self.retry_ms = int(value)
                elif line:
                    told[name] = value
        return None


@asynccontextmanager
async def watching(api: httpx.AsyncClient, job_id: object, last: str | None = None) -> AsyncIterator[Stream]:
    """Open the event stream of a job."""
    headers = {} if last is None else {"Last-Event-ID": last}
    async with api.stream("GET", f"{JOBS}/{job_id}/events", headers=headers) as reply:
        yield Stream(reply)


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """Start an API; yield a client and the service object."""
    defaults: dict[str, Any] = {"rpc_url": "http://rpc.invalid/", **NO_LIMITS}
    app = create_app(Settings(_env_file=None, **defaults, **settings))
    async with (
        app.router.lifespan_context(app),
        serve_locally(app) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client, app.state.service


async def told(stream: Stream) -> dict[str, Any]:
    event = await stream.next()
    assert event is not None
    return event


async def test_a_job_is_seen_to_its_end(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A stream sends the present state at once, then each progress, then one final event, and ends."""
    job_id = insert(sql, PROCESSING, progress=10)
    async with watching(api, job_id) as stream:
        first = await told(stream)
        assert (first["event"], first["job"]["progress"], first["job"]["id"]) == ("progress", 10, str(job_id))
        update(sql, job_id, progress=70)
        second = await told(stream)
        assert (second["event"], second["job"]["progress"]) == ("progress", 70)
        update(sql, job_id, **{key: COMPLETED[key] for key in ("status", "progress", "result", "completedAt")}, **FREE)
        last = await told(stream)
        assert (last["event"], last["job"]["result"]) == ("completed", {"status": "OK"})
        assert await stream.next() is None
    assert len({first["id"], second["id"], last["id"]}) == 3
    assert last["job"] == (await api.get(f"{JOBS}/{job_id}")).json()


async def test_the_stream_passes_proxies_unbuffered(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The stream has the headers against caching and buffering, and the time to reconnect."""
    async with watching(api, insert(sql, COMPLETED)) as stream:
        assert stream.reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.reply.headers["cache-control"] == "no-cache"
        assert stream.reply.headers["x-accel-buffering"] == "no"
        await told(stream)
        assert stream.retry_ms == events.RECONNECT_MS


@pytest.mark.parametrize(("row", "name"), [(COMPLETED, "completed"), (FAILED, "failed"), (CANCELLED, "cancelled")])
async def test_who_comes_late_gets_the_end(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], row: dict[str, Any], name: str
) -> None:
    """The stream of an ended job is one final event."""
    async with watching(api, insert(sql, row)) as stream:
        event = await told(stream)
        assert (event["event"], event["job"]["status"]) == (name, name)
        assert await stream.next() is None


async def test_nothing_that_was_seen_is_told_again(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """After a reconnect with ``Last-Event-ID``, even to another process, seen events are not repeated."""
    job_id = insert(sql, PROCESSING, progress=30)
    async with serve_api(database_url=database_url) as one, serve_api(database_url=database_url) as other:
        async with watching(one, job_id) as stream:
            seen = (await told(stream))["id"]
        # A renewed lease is no event.
        update(sql, job_id, updatedAt=Sql("now()"), leaseUntil=Sql("now() + interval '2 minutes'"))
        async with watching(other, job_id, seen) as stream:
            update(sql, job_id, progress=50)
            assert (await told(stream))["job"]["progress"] == 50


async def test_the_end_is_told_to_who_missed_it_and_only_once(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """A reconnect after a progress event brings the final event; after the final event the reply is 204."""
    job_id = insert(sql, PROCESSING, progress=30)
    async with watching(api, job_id) as stream:
        seen = (await told(stream))["id"]
    sql.execute("SELECT cancel_job(%s)", [job_id])
    async with watching(api, job_id, seen) as stream:
        last = await told(stream)
        assert last["event"] == "cancelled"
        assert await stream.next() is None
    reply = await api.get(f"{JOBS}/{job_id}/events", headers={"Last-Event-ID": last["id"]})
    assert (reply.status_code, reply.content) == (204, b"")


async def test_a_second_end_is_another_event(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A job cancelled, retried and cancelled again gives two final events with different ids."""
    job_id = insert(sql)
    seen = None
    for _ in range(2):
        sql.execute("SELECT cancel_job(%s)", [job_id])
        async with watching(api, job_id, seen) as stream:
            event = await told(stream)
        assert (event["event"], event["id"] == seen) == ("cancelled", False)
        seen = event["id"]
        sql.execute("SELECT retry_job(%s)", [job_id])


async def test_a_row_that_goes_ends_the_stream(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The stream of a deleted job ends without a final event."""
    job_id = insert(sql)
    async with watching(api, job_id) as stream:
        await told(stream)
        sql.execute('DELETE FROM "VerificationJob"')
        assert await stream.next() is None


async def test_cancel_and_retry_over_http_are_told(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The stream of a waiting job shows a cancel by another client."""
    job_id = insert(sql)
    async with watching(api, job_id) as stream:
        await told(stream)
        assert (await api.post(f"{JOBS}/{job_id}/cancel")).status_code == 200
        assert (await told(stream))["event"] == "cancelled"


async def test_silence_is_broken_by_heartbeats(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeat comments keep an idle stream open."""
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.02)
    job_id = insert(sql)
    async with watching(api, job_id) as stream:
        await told(stream)
        ended = asyncio.create_task(stream.next())
        await eventually(lambda: stream.comments >= 3)
        sql.execute("SELECT cancel_job(%s)", [job_id])
        event = await ended
        assert event is not None
        assert event["event"] == "cancelled"


async def test_no_job_no_stream(api: httpx.AsyncClient) -> None:
    """An unknown id and a malformed id give the usual 404."""
    for job_id in (str(new_job_id()), "1234567890"):
        reply = await api.get(f"{JOBS}/{job_id}/events")
        assert (reply.status_code, reply.json()) == (404, {"error": "Job not found"})


async def test_head_has_no_stream(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """HEAD returns the headers and ends, even while the job is queued."""
    reply = await api.head(f"{JOBS}/{insert(sql)}/events")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_watchers_are_bounded(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A stream over the bound gives 503 with Retry-After; a closed stream frees its place.

    Submissions are not refused.
    """
    job_id = insert(sql)
    async with opened(database_url=database_url, max_watchers=1) as (api, service):
        async with watching(api, job_id) as stream:
            await told(stream)
            refused = await api.get(f"{JOBS}/{job_id}/events")
            assert (refused.status_code, refused.json()["code"]) == (503, "watching.limit")
            assert int(refused.headers["retry-after"]) > 0
            queued = await api.post(f"{JOBS}/verify", json=QUESTION, headers={"Prefer": "wait=10"})
            assert queued.status_code == 202
        await eventually(lambda: service.watching.watchers == 0)
        async with watching(api, job_id) as stream:
            await told(stream)


async def test_without_a_database_503(lonely_api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database the stream's reply is 503 with Retry-After."""
    monkeypatch.setattr(events, "_FIRST_STATE_SECONDS", 0.1)
    reply = await lonely_api.get(f"{JOBS}/{new_job_id()}/events")
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0


async def test_streams_end_when_the_service_stops(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """At shutdown streams end, and a new stream gives 503."""
    async with opened(database_url=database_url) as (api, service):
        async with watching(api, insert(sql)) as stream:
            await told(stream)
            service.stopping.set()
            assert await stream.next() is None
        refused = await api.get(f"{JOBS}/{insert(sql)}/events")
    assert (refused.status_code, refused.json()["code"]) == (503, "service.stopping")
