"""Test ``Prefer``: a client may wait for the job (RFC 7240)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from iidq.errors import ManifestFault
from iidq.queue.identifiers import new_job_id
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from tests.database.working import Working, working
from tests.eventually import eventually
from tests.job_rows import COMPLETED, PROCESSING, insert, scalar, update
from tests.web.request.test_idempotency import QUESTION
from tests.web.routes.test_events import opened
from tests.web.serving import JOBS

OK = {"status": "OK"}


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def answer(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    """Process a job without upstreams."""
    if job.subject.chain_id == 404:
        raise ManifestFault("not there", code="manifest.not_found")
    return OK


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Working]:
    """Start a worker in addition to the API."""
    async with working(database_url, answer) as work:
        await eventually(lambda: work.loop.listener.listening)
        yield work


@pytest.mark.usefixtures("worker")
async def test_a_wait_brings_the_job_itself(api: httpx.AsyncClient) -> None:
    """A request with a wait gets 200 with the completed job, in the form of GET, and the job's location."""
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers={"Prefer": "wait=30"})
    job = reply.json()
    assert (reply.status_code, job["status"], job["result"]) == (200, "completed", OK)
    assert (reply.headers["preference-applied"], reply.headers["vary"]) == ("wait=30", "Prefer")
    assert reply.headers["location"] == f"{JOBS}/{job['id']}"
    assert job == (await api.get(reply.headers["location"])).json()


@pytest.mark.usefixtures("worker")
async def test_a_failed_job_is_an_end_as_well(api: httpx.AsyncClient) -> None:
    """A wait also ends with a failed job, and works for an upload."""
    question = {**QUESTION, "chainId": "404"}
    reply = await api.post(
        f"{JOBS}/proof", data=question, files={"x": ("", b"")}, headers={"Prefer": "respond-async, wait=30"}
    )
    assert (reply.status_code, reply.json()["status"]) == (200, "failed")
    assert reply.headers["preference-applied"] == "respond-async, wait=30"


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "respond-async, wait=1"])
async def test_who_does_not_wait_long_gets_202(api: httpx.AsyncClient, prefer: str) -> None:
    """Without a wait, or after a short wait, the reply is 202 with a queued job."""
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers={"Prefer": prefer})
    body = reply.json()
    assert (reply.status_code, reply.headers["preference-applied"]) == (202, prefer)
    assert body == {
        "mode": "async",
        "jobId": body["jobId"],
        "status": "queued",
        "message": "Verification job queued successfully",
        "pollUrl": reply.headers["location"],
    }


@pytest.mark.parametrize("prefer", [None, "wait=soon", "return=minimal", "wait"])
async def test_without_a_preference_the_reply_is_as_ever(api: httpx.AsyncClient, prefer: str | None) -> None:
    """An unknown or malformed preference gives 200 without a wait; ``Vary`` names the header for caches."""
    headers = {} if prefer is None else {"Prefer": prefer}
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers=headers)
    assert (reply.status_code, reply.json()["status"], reply.headers["vary"]) == (200, "queued", "Prefer")
    assert "preference-applied" not in reply.headers


async def test_a_repeated_request_waits_for_the_first_job(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A request repeated under its key waits for the first job, so the wait for an ended job is over at once."""
    headers = {"Idempotency-Key": "order-4711", "Prefer": "wait=30"}
    queued = await api.post(f"{JOBS}/verify", json=QUESTION, headers={**headers, "Prefer": "respond-async"})
    sql.execute("SELECT cancel_job(%s)", [queued.json()["jobId"]])
    reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers=headers)
    assert (reply.status_code, reply.json()["id"]) == (200, queued.json()["jobId"])


async def test_get_can_wait_for_the_end(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """GET with a wait replies at the job's end, or with the present state after the wait."""
    job_id = insert(sql, PROCESSING)
    late = await api.get(f"{JOBS}/{job_id}", headers={"Prefer": "wait=1"})
    assert (late.status_code, late.json()["status"]) == (200, "processing")
    assert (late.headers["preference-applied"], late.headers["retry-after"]) == ("wait=1", "1")
    polling = asyncio.create_task(api.get(f"{JOBS}/{job_id}", headers={"Prefer": "wait=30"}))
    update(sql, job_id, progress=70)
    sql.execute("SELECT cancel_job(%s)", [job_id])
    reply = await polling
    assert (reply.json()["status"], reply.headers["preference-applied"]) == ("cancelled", "wait=30")
    assert "retry-after" not in reply.headers


async def test_get_can_wait_for_news(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """GET with a wait and the ETag of a state replies at the next change, or with 304 after the wait."""
    job_id = insert(sql, PROCESSING)
    tag = (await api.get(f"{JOBS}/{job_id}")).headers["etag"]
    headers = {"Prefer": "wait=30", "If-None-Match": tag}
    same = await api.get(f"{JOBS}/{job_id}", headers={**headers, "Prefer": "wait=1"})
    assert (same.status_code, same.content) == (304, b"")
    polling = asyncio.create_task(api.get(f"{JOBS}/{job_id}", headers=headers))
    update(sql, job_id, progress=70)
    assert (await polling).json()["progress"] == 70


async def test_a_wait_for_no_job_is_404_at_once(api: httpx.AsyncClient) -> None:
    """A wait for an unknown job gives 404 at once."""
    reply = await api.get(f"{JOBS}/{new_job_id()}", headers={"Prefer": "wait=60"})
    assert reply.status_code == 404


async def test_without_room_for_watchers_nobody_is_refused(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Without room for watchers a submission is still queued, and GET replies with the present state."""
    async with opened(database_url=database_url, max_watchers=0) as (api, _):
        reply = await api.post(f"{JOBS}/verify", json=QUESTION, headers={"Prefer": "wait=60"})
        assert reply.status_code == 202
        reply = await api.get(f"{JOBS}/{insert(sql, COMPLETED)}", headers={"Prefer": "wait=60"})
        assert (reply.status_code, reply.json()["status"]) == (200, "completed")
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 2


async def test_a_client_that_leaves_waits_no_more(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A lost client frees its place at once, for GET and for a submission; the submitted job stays queued."""
    job_id = insert(sql)
    async with opened(database_url=database_url) as (api, service):
        for method, path, body in (("GET", f"{job_id}", None), ("POST", "verify", QUESTION)):
            request = api.request(method, f"{JOBS}/{path}", json=body, headers={"Prefer": "wait=60"})
            waiting = asyncio.create_task(request)
            await eventually(lambda: service.watching.watchers == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await eventually(lambda: service.watching.watchers == 0)
    assert scalar(sql, "SELECT count(*) FROM \"VerificationJob\" WHERE status = 'queued'") == 2


async def test_waits_end_when_the_service_stops(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """At shutdown each waiting request gets the reply for the end of its wait."""
    job_id = insert(sql)
    async with opened(database_url=database_url) as (api, service):
        submitting = asyncio.create_task(api.post(f"{JOBS}/verify", json=QUESTION, headers={"Prefer": "wait=60"}))
        polling = asyncio.create_task(api.get(f"{JOBS}/{job_id}", headers={"Prefer": "wait=60"}))
        await eventually(lambda: service.watching.watchers == 2)
        service.stopping.set()
        assert (await submitting).status_code == 202
        assert ((await polling).status_code, (await polling).json()["status"]) == (200, "queued")
