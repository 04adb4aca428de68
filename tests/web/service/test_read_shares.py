"""Test the connection share of costly reads: reads wait and are refused, without any effect on submissions."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from iidq.database import pool
from iidq.errors import DatabaseBusy
from iidq.queue.read import queue_health
from iidq.settings import Settings, load_settings
from iidq.web import reads
from iidq.web.app import POOL_SIZE
from tests.eventually import eventually
from tests.job_rows import CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS, scalar
from tests.web.serving import JOBS, ServeApi

HELD = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'iidq'"""
QUESTION = {"contentHash": CONTENT_HASH, "manifestURI": MANIFEST_URI, "registryAddress": REGISTRY_ADDRESS}


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as an observer, outside of transactions for the present activity."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def locker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection for locks."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings for the test's database."""
    return load_settings(database_url=database_url)


@asynccontextmanager
async def held(
    locker: psycopg.Connection[Any], sql: psycopg.Connection[Any], api: httpx.AsyncClient, path: str
) -> AsyncIterator[list[Any]]:
    """Start many more reads of ``path`` than connections, blocked by a lock.

    The lock is on a table used by lists and counts, but not by inserts of jobs.
    """
    with locker.transaction():
        locker.execute("LOCK TABLE iidq_webhook_delivery, iidq_queue_worker IN ACCESS EXCLUSIVE MODE")
        asked = [asyncio.ensure_future(api.get(path)) for _ in range(3 * POOL_SIZE)]
        await eventually(lambda: scalar(sql, HELD) == reads.CONNECTIONS)
        yield asked
    await asyncio.gather(*asked)


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}?contentHash={CONTENT_HASH}", f"{JOBS}/stats", "/readyz"])
async def test_submissions_keep_their_connections(
    serve_api: ServeApi,
    database_url: str,
    sql: psycopg.Connection[Any],
    locker: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """During blocked reads, submissions are queued as usual, without a synchronous fallback."""
    # No read times out during the test.
    monkeypatch.setattr(reads, "WAIT_SECONDS", 60.0)
    hold_reads_of_jobs(sql)
    async with serve_api(database_url=database_url) as api, held(locker, sql, api, path):
        for _ in range(3):
            accepted = await asyncio.gather(*(api.post(f"{JOBS}/verify", json=QUESTION) for _ in range(8)))
            assert {(reply.status_code, reply.json()["mode"]) for reply in accepted} == {(200, "async")}
        assert scalar(sql, HELD) == reads.CONNECTIONS


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_WAITING", 0), ("WAIT_SECONDS", 0.1)], ids=["no room to wait", "too long a wait"]
)
async def test_reads_without_a_turn_are_refused(
    serve_api: ServeApi,
    database_url: str,
    sql: psycopg.Connection[Any],
    locker: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
) -> None:
    """A list or count without a turn gives 503 with Retry-After and a code; afterwards all reads are served."""
    monkeypatch.setattr(reads, limit, value)
    hold_reads_of_jobs(sql)
    async with serve_api(database_url=database_url) as api:
        for path in (JOBS, f"{JOBS}/stats"):
            async with held(locker, sql, api, path) as asked:
                await eventually(lambda: sum(read.done() for read in asked) == len(asked) - reads.CONNECTIONS)
                for refused in (read.result() for read in asked if read.done()):
                    assert refused.status_code == 503
                    assert int(refused.headers["retry-after"]) > 0
                    assert refused.json()["code"] == "database.busy"
            assert [read.result().status_code for read in asked].count(200) == reads.CONNECTIONS
            assert (await api.get(path)).status_code == 200


async def test_a_full_pool_is_not_a_lost_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pool raises ``DatabaseBusy``, so that no caller assumes an outage."""
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.2)
    async with pool.open_database(settings, pool_size=2) as opened:
        async with opened.connection(), opened.connection():
            with pytest.raises(DatabaseBusy, match="in use"):
                await opened.run(queue_health.read_health)
        await opened.run(queue_health.read_health)


async def test_a_full_pool_sets_no_synchronous_run_off(
    serve_api: ServeApi,
    database_url: str,
    sql: psycopg.Connection[Any],
    locker: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A submission without a free connection gives 503 with Retry-After, and the next submission is queued."""
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.2)
    batch = {"jobs": [{"type": "verify", **QUESTION}]}
    async with serve_api(database_url=database_url) as api:
        with locker.transaction():
            locker.execute('LOCK TABLE "VerificationJob" IN ACCESS EXCLUSIVE MODE')
            batches = [asyncio.ensure_future(api.post(f"{JOBS}/batch", json=batch)) for _ in range(POOL_SIZE)]
            await eventually(lambda: scalar(sql, HELD) == POOL_SIZE)
            refused = await api.post(f"{JOBS}/verify", json=QUESTION)
            assert (refused.status_code, refused.json()["code"]) == (503, "database.busy")
            assert int(refused.headers["retry-after"]) > 0
        assert {reply.status_code for reply in await asyncio.gather(*batches)} == {200}
        assert (await api.get("/readyz")).json()["circuit"] == "closed"
        assert (await api.post(f"{JOBS}/verify", json=QUESTION)).json()["mode"] == "async"


def hold_reads_of_jobs(sql: psycopg.Connection[Any]) -> None:
    """Insert one job with a callback, because the list reads its state from a separate table."""
    sql.execute(
        """WITH job AS (
          INSERT INTO "VerificationJob" (type, "contentHash", "manifestUri", "registryAddress", "hasCallback")
          VALUES ('verify', %s, %s, %s, true) RETURNING id)
        INSERT INTO iidq_webhook_delivery ("jobId", url) SELECT id, 'https://x.example/' FROM job""",
        [CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS],
    )
