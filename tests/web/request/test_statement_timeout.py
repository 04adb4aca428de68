"""Test that Postgres ends long statements of the API."""

from typing import Any

import httpx
import psycopg
import pytest

from iidq.web import app
from tests.job_rows import scalar
from tests.web.serving import JOBS, ServeApi

SOME_JOB = "01a20b08-516f-732e-b82a-6f029e528ae5"
WAITING = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'iidq'"""


@pytest.mark.parametrize("path", ["", "?status=failed", "?offset=100000", f"/{SOME_JOB}"])
async def test_a_read_that_takes_too_long_is_ended(
    serve_api: ServeApi, database_url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A read over the time limit gives 503 with Retry-After and no internals; Postgres ends the statement."""
    monkeypatch.setattr(app, "STATEMENT_TIMEOUT_SECONDS", 0.3)
    with psycopg.connect(database_url, autocommit=True) as sql:
        async with serve_api(database_url=database_url) as api:
            with sql.transaction():
                sql.execute('LOCK TABLE "VerificationJob" IN ACCESS EXCLUSIVE MODE')
                reply = await api.get(JOBS + path)
                told_in_time(reply)
                assert scalar(sql, WAITING) == 0
            assert (await api.get(JOBS)).status_code == 200


async def test_stats_that_take_too_long_are_told(
    serve_api: ServeApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts over the time limit are reported as not available."""
    monkeypatch.setattr(app, "STATEMENT_TIMEOUT_SECONDS", 0.3)
    with psycopg.connect(database_url, autocommit=True) as sql:
        async with serve_api(database_url=database_url) as api:
            with sql.transaction():
                sql.execute("LOCK TABLE iidq_queue_count IN ACCESS EXCLUSIVE MODE")
                reply = await api.get(f"{JOBS}/stats")
                assert (reply.status_code, reply.json()["available"]) == (200, False)
                assert scalar(sql, WAITING) == 0
            assert (await api.get(f"{JOBS}/stats")).json()["available"] is True


def told_in_time(reply: httpx.Response) -> None:
    """Check the reply for a temporary fault."""
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    body: dict[str, Any] = reply.json()
    assert body["error"]
    assert not {"select", "verificationjob", "statement"} & set(reply.text.lower().split())
