"""Test cancel, retry, pause and resume over HTTP."""

from typing import Any

import httpx
import psycopg
import pytest

from iidq.queue.identifiers import new_job_id
from tests.job_rows import insert, read
from tests.web.serving import JOBS, ServeApi

ENDED: dict[str, Any] = {"status": "failed", "error": "manifest.not_found: gone", "completedAt": "2024-01-01T00:00:00Z"}


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_a_waiting_job_can_be_cancelled_once(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The reply to a cancel is the cancelled job; a second cancel gives 409 with the state."""
    job_id = insert(sql)
    reply = await api.post(f"{JOBS}/{job_id}/cancel")
    assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
    assert reply.json()["completedAt"] is not None
    again = await api.post(f"{JOBS}/{job_id}/cancel")
    assert again.status_code == 409
    assert "cancelled job cannot be cancelled" in again.json()["error"]


async def test_a_failed_job_can_be_retried(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A retried job is queued as new; a queued job cannot be retried."""
    job_id = insert(sql, **ENDED, retryCount=2)
    reply = await api.post(f"{JOBS}/{job_id}/retry")
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["error"], body["completedAt"], body["retryCount"]) == ("queued", None, None, 0)
    assert (await api.post(f"{JOBS}/{job_id}/retry")).status_code == 409


@pytest.mark.parametrize("step", ["cancel", "retry"])
async def test_unknown_jobs_are_not_found(api: httpx.AsyncClient, step: str) -> None:
    """An unknown id and a malformed id give the same 404."""
    for job_id in (str(new_job_id()), "1234567890"):
        reply = await api.post(f"{JOBS}/{job_id}/{step}")
        assert (reply.status_code, reply.json()) == (404, {"error": "Job not found"})


async def test_pausing_keeps_jobs_waiting_and_touches_none(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """A pause stores its reason for operators and changes no job."""
    job_id = insert(sql)
    before = read(sql, job_id)
    reply = await api.post(f"{JOBS}/pause", json={"reason": "gateway maintenance"})
    assert reply.json() == {"paused": True, "reason": "gateway maintenance"}
    assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == ("paused", "gateway maintenance")
    assert (await api.post(f"{JOBS}/resume")).json() == {"paused": False, "reason": None}
    assert sql.execute("SELECT state FROM queue_health").fetchone() == ("no workers",)
    assert read(sql, job_id) == before


@pytest.mark.parametrize("reason", [7, ["x"], "x" * 501, "nul\0"])
async def test_a_reason_is_short_text(api: httpx.AsyncClient, reason: object) -> None:
    """A malformed reason gives 400 with the field's name."""
    reply = await api.post(f"{JOBS}/pause", json={"reason": reason})
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["field"] == "reason"


@pytest.mark.parametrize("path", ["pause", "resume", "{id}/cancel", "{id}/retry"])
async def test_the_key_is_asked_for(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any], path: str
) -> None:
    """With API_KEY set, changing the queue needs the key, while reading does not."""
    job_id = insert(sql, **(ENDED if path.endswith("retry") else {}))
    url = f"{JOBS}/" + path.format(id=job_id)
    async with serve_api(database_url=database_url, api_key="open sesame") as api:
        assert (await api.get(f"{JOBS}/{job_id}")).status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
            reply = await api.post(url, headers=headers)
            assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
        assert (await api.post(url, headers={"x-api-key": "open sesame"})).status_code == 200


async def test_without_a_database_nothing_is_steered(lonely_api: httpx.AsyncClient) -> None:
    """Without a database a change gives 503 with Retry-After."""
    reply = await lonely_api.post(f"{JOBS}/{new_job_id()}/cancel")
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
