"""Test the loss and return of the database while the API serves."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres
from tests.web.serving import JOBS, ServeApi

SUBMISSION = {
    "registryAddress": "0x" + "ab" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
    "contentHash": "0x" + "ab" * 32,
}


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """Start a separate, empty Postgres server for the test to stop and start."""
    # As root, Postgres runs as an unprivileged user and must reach the folder.
    with TemporaryDirectory(prefix="iidq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        server.start()
        yield server
        server.close()


async def eventually(ask: Callable[[], Coroutine[Any, Any, httpx.Response]], status: int) -> httpx.Response:
    """Repeat the request until the status is ``status``, for at most 20 s."""
    deadline = time.monotonic() + 20
    while True:
        reply = await ask()
        if reply.status_code == status or time.monotonic() > deadline:
            return reply
        await asyncio.sleep(0.05)


async def test_without_a_database_every_call_has_its_answer(lonely_api: httpx.AsyncClient) -> None:
    """Without a database the API is alive but not ready, and queue endpoints give 503 with Retry-After.

    Stats report the loss; an invalid id still gives 404.
    """
    paths = (f"{JOBS}/stats", "/api/health", "/readyz", JOBS, f"{JOBS}/{uuid4()}")
    stats, health, *refused = await asyncio.gather(*map(lonely_api.get, paths))
    assert (stats.status_code, stats.json()["available"], stats.json()["waiting"]) == (200, False, 0)
    assert (await lonely_api.get("/livez")).status_code == 200
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    for reply in refused:
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
    assert (await lonely_api.get(f"{JOBS}/~none")).status_code == 404


async def test_an_unmigrated_database_is_no_database_until_it_is_migrated(
    serve_api: ServeApi, empty_database_url: str
) -> None:
    """An API started before the migrations is ready after the migrations, without a restart."""
    async with serve_api(database_url=empty_database_url) as api:
        assert (await api.get("/readyz")).status_code == 503
        assert (await api.get(f"{JOBS}/stats")).json()["available"] is False
        assert (await api.get(JOBS)).status_code == 503
        assert (await api.post(f"{JOBS}/verify", json=SUBMISSION)).status_code == 503
        await asyncio.to_thread(migrate, empty_database_url)
        assert (await eventually(lambda: api.get("/readyz"), 200)).status_code == 200
        assert (await api.post(f"{JOBS}/verify", json=SUBMISSION)).status_code == 200


@pytest.mark.parametrize("missing", ["TABLE iidq_idempotency_key", 'INDEX "VerificationJob_line"'])
async def test_half_of_the_migrations_are_not_enough(serve_api: ServeApi, database_url: str, missing: str) -> None:
    """The API is ready only with every table and index of its version."""
    async with serve_api(database_url=database_url) as api:
        ready = (await api.get("/readyz")).json()
        assert (ready["status"], ready["database"], ready["circuit"]) == ("ready", "ok", "closed")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(f"DROP {missing}".encode())
        reply = await api.get("/readyz")
        unready = {"status": "unavailable", "database": "not migrated", "circuit": "closed"}
        assert (reply.status_code, {**reply.json(), **unready}) == (503, reply.json())
        assert int(reply.headers["retry-after"]) > 0


async def test_a_dropped_function_is_no_outage(serve_api: ServeApi, database_url: str) -> None:
    """A dropped function, restored by no migration, gives 503 without a fallback, and the right remedy."""
    async with serve_api(database_url=database_url) as api:
        assert (await api.post(f"{JOBS}/verify", json=SUBMISSION)).status_code == 200
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("DROP PROCEDURE iidq_enqueue")
        assert await asyncio.to_thread(migrate, database_url) == []
        reply = await api.post(f"{JOBS}/verify", json=SUBMISSION)
        assert (reply.status_code, reply.json()["code"]) == (503, "database.refused")
        faults = (await api.get("/readyz")).json()["faults"]
        assert any("iidq_enqueue is missing: restore it from a dump" in fault for fault in faults)
        assert not any("run `iidq migrate`" in fault for fault in faults)


async def test_a_slow_read_ends_cleanly(
    serve_api: ServeApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read over the statement timeout gives 503 with Retry-After, and the next request is served."""
    monkeypatch.setattr("iidq.web.app.STATEMENT_TIMEOUT_SECONDS", 0.2)
    async with serve_api(database_url=database_url) as api:
        job_id = (await api.post(f"{JOBS}/verify", json=SUBMISSION)).json()["jobId"]
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute('LOCK TABLE "VerificationJob" IN ACCESS EXCLUSIVE MODE')
            # More reads than connections in the pool: no connection is lost with its statement.
            for _ in range(2):
                replies = await asyncio.gather(*(api.get(f"{JOBS}/{job_id}") for _ in range(5)), api.get(JOBS))
                assert {reply.status_code for reply in replies} == {503}
                assert {reply.json()["code"] for reply in replies} == {"database.timeout"}
                assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
                stats = await api.get(f"{JOBS}/stats")
                assert (stats.status_code, stats.json()["available"]) == (200, False)
        assert (await api.get(f"{JOBS}/{job_id}")).status_code == 200
        assert (await api.get(f"{JOBS}/stats")).json()["waiting"] == 1


async def test_the_database_stops_and_starts_while_serving(serve_api: ServeApi, postgres: EmbeddedPostgres) -> None:
    """During an outage the API gives 503 in JSON; after the outage the API works, with all acknowledged jobs."""
    await asyncio.to_thread(migrate, postgres.url)
    async with serve_api(database_url=postgres.url, sync_fallback="off") as api:
        accepted = await api.post(f"{JOBS}/verify", json=SUBMISSION)
        assert (await api.get("/readyz")).status_code == 200
        await asyncio.to_thread(postgres.stop)
        stats, *refused = await asyncio.gather(
            api.get(f"{JOBS}/stats"),
            api.post(f"{JOBS}/verify", json=SUBMISSION),
            api.get(accepted.headers["location"]),
            api.get("/readyz"),
        )
        assert stats.json()["available"] is False
        for away in refused:
            assert away.status_code == 503
            assert int(away.headers["retry-after"]) > 0
            assert not {"sql", "psycopg", "traceback"} & set(away.text.lower().split())
        await asyncio.to_thread(postgres.start)
        assert (await eventually(lambda: api.get(accepted.headers["location"]), 200)).json()["status"] == "queued"
        assert (await eventually(lambda: api.post(f"{JOBS}/verify", json=SUBMISSION), 200)).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
