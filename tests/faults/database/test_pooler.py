"""The queue behind a real PgBouncer in transaction mode, without LISTEN and without prepared statements."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from iidq.database.connections import Connection
from iidq.database.pool import open_database
from iidq.errors import GatewayFault, ManifestFault
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.identifiers import new_job_id
from iidq.queue.job import ClaimedJob, IdempotencyKey, JobStatus
from iidq.queue.notify import listener
from iidq.queue.processing.execution import Progress
from iidq.queue.read import queue_health, readers
from iidq.settings import load_settings
from tests.database.processing.test_work_loop import OK, Executions
from tests.database.working import working
from tests.eventually import eventually
from tests.faults.conftest import StartWorker, keep_ledger
from tests.faults.database.pgbouncer import find_pgbouncer, pool_transactions
from tests.job_rows import insert, new_job, read, scalar, statuses
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

pytestmark = pytest.mark.skipif(find_pgbouncer() is None, reason="pgbouncer is not installed")

POLL_SECONDS = 0.3


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The URL of the test's database through the pooler."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # Run by root, the pooler has another account, which must read the configuration.
        Path(folder).chmod(0o755)
        with pool_transactions(Path(folder), database_url) as url:
            yield url


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection past the pooler."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_jobs_run_once_with_their_outcomes_and_retries(pooled_url: str, sql: psycopg.Connection[Any]) -> None:
    """By polling alone every job ends with its handler's outcome, on fewer connections than clients."""
    settings = load_settings(database_url=pooled_url)
    began: dict[UUID, int] = {}

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        began[job.id] = began.get(job.id, 0) + 1
        progress(50)
        if job.subject.manifest_uri == "bad":
            raise ManifestFault("404", code="manifest.missing")
        if job.subject.manifest_uri == "shaky" and job.attempt == 1:
            raise GatewayFault("503")
        return OK

    async with (
        open_database(settings, pool_size=8) as database,
        open_enqueuer(database, settings) as enqueuer,
        working(pooled_url, handler, poll_interval_seconds=POLL_SECONDS, worker_concurrency=20) as one,
        working(pooled_url, handler, poll_interval_seconds=POLL_SECONDS, worker_concurrency=20) as two,
    ):
        # Far more rounds than psycopg waits before preparing a statement.
        for _ in range(15):
            jobs = [new_job(manifest_uri=uri) for uri in ("good", "good", "shaky", "bad")]
            ids = await asyncio.gather(*(enqueuer.enqueue(job) for job in jobs))
            await asyncio.gather(*(database.run(lambda c, i=i: readers.find(c, i)) for i in ids))  # type: ignore[misc]
        await eventually(lambda: statuses(sql) == {"completed": 45, "failed": 15})
        listed = await database.run(lambda c: readers.list_jobs(c, limit=50, status=JobStatus.FAILED))
        counts = await database.run(queue_health.read_health)
        assert not one.loop.listener.listening
        assert not two.loop.listener.listening
    assert len(listed.jobs) == counts.failed == 15
    assert sorted(set(began.values())) == [1, 2]
    assert scalar(sql, 'SELECT sum("retryCount") FROM "VerificationJob"') == 15


async def test_the_listener_notices_that_it_is_deaf(
    pooled_url: str,
    sql: psycopg.Connection[Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a pooler the worker reports its listener as down, in its log and in its row, and never as up."""
    monkeypatch.setattr(listener, "_ECHO_TIMEOUT_SECONDS", 0.5)
    async with working(pooled_url, Executions(), poll_interval_seconds=POLL_SECONDS):
        said = ""

        def deaf() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "listener.down" in said

        await eventually(deaf)
        seen = 'SELECT "seenAt" > %s FROM iidq_queue_worker'
        moment = scalar(sql, "SELECT now()")
        await eventually(lambda: scalar(sql, seen, moment))
        assert scalar(sql, "SELECT bool_or(listening) FROM iidq_queue_worker") is False
    assert "listener.up" not in said + capfd.readouterr().out


async def test_a_running_job_is_cancelled_although_nobody_is_told(
    pooled_url: str, sql: psycopg.Connection[Any]
) -> None:
    """With a lease of an hour and no LISTEN, a cancelled attempt is still interrupted soon."""
    handler = Executions(waits=True)
    job_id = insert(sql)
    async with working(pooled_url, handler, poll_interval_seconds=POLL_SECONDS, job_lease_seconds=3600):
        await eventually(lambda: handler.running == 1)
        assert sql.execute("SELECT cancel_job(%s)", [job_id]).fetchone() == (True,)
        await eventually(lambda: handler.interrupted == [(job_id, 1)])
    assert read(sql, job_id)["status"] == "cancelled"


async def test_leases_are_kept_and_a_drain_gives_back(pooled_url: str, sql: psycopg.Connection[Any]) -> None:
    """A long job keeps its lease over many renewals, and at the drain's deadline goes back uncharged."""
    handler = Executions(waits=True)
    job_id = insert(sql)
    async with working(
        pooled_url, handler, poll_interval_seconds=POLL_SECONDS, job_lease_seconds=0.5, drain_timeout_seconds=0.1
    ) as work:
        await eventually(lambda: handler.running == 1)
        started = read(sql, job_id)["startedAt"]
        await eventually(lambda: scalar(sql, "SELECT now() > %s + interval '1.5 seconds'", started))
        assert (read(sql, job_id)["attempt"], handler.interrupted) == (1, [])
        assert await work.stop() == 1
    row = read(sql, job_id)
    assert (row["status"], row["ready"], row["retryCount"], row["attempt"]) == ("queued", True, 0, 1)


async def test_keys_hold_through_the_pooler(pooled_url: str, sql: psycopg.Connection[Any]) -> None:
    """Racing callers of one key share its job: a transaction of several statements stays on one connection."""
    settings = load_settings(database_url=pooled_url)
    async with (
        open_database(settings, pool_size=4) as database,
        open_enqueuer(database, settings) as one,
        open_enqueuer(database, settings) as two,
    ):
        for number in range(10):
            key = IdempotencyKey("caller", f"k{number}", b"f" * 32)
            answers = await asyncio.gather(*(side.enqueue(new_job(key=key)) for side in (one, two) * 10))
            assert len(set(answers)) == 1
    assert statuses(sql) == {"queued": 10}


async def test_a_real_worker_process_and_the_api(
    pooled_url: str,
    sql: psycopg.Connection[Any],
    start_worker: StartWorker,
    serve_api: ServeApi,  # noqa: F811
) -> None:
    """A worker process and the API both work behind the pooler, and the worker drains cleanly."""
    keep_ledger(pooled_url)
    worker = start_worker(pooled_url, POLL_INTERVAL_SECONDS=str(POLL_SECONDS))
    fields = {"registryAddress": "0x" + "ab" * 20, "contentHash": "0x" + "ab" * 32}
    async with serve_api(database_url=pooled_url, rate_limit_submit_per_minute=0) as api:
        replies: list[httpx.Response] = []
        for _ in range(8):
            replies += await asyncio.gather(
                *(api.post(f"{JOBS}/verify", json=fields | {"manifestURI": "http://example.org/a:0"}) for _ in range(5))
            )
        assert {reply.status_code for reply in replies} == {200}
        await eventually(lambda: statuses(sql) == {"completed": 40})
        shown = await asyncio.gather(*(api.get(reply.headers["location"]) for reply in replies))
        assert {reply.json()["status"] for reply in shown} == {"completed"}
        assert (await api.get(f"{JOBS}/stats")).json()["completed"] == 40
    worker.process.terminate()
    assert worker.exit_code() == 0
    assert not worker.says("attempt.lost")


async def test_settings_of_one_client_stay_with_it(pooled_url: str) -> None:
    """A reader's time-out applies to its own statements only, though server connections are shared."""
    settings = load_settings(database_url=pooled_url)

    async def timeout_of(connection: Connection) -> Any:
        async with connection.transaction():
            cursor = await connection.execute("SHOW statement_timeout")
            row = await cursor.fetchone()
            # Long enough for the others to need another server connection.
            await connection.execute("SELECT pg_sleep(0.05)")
        return row and row[0]

    async with (
        open_database(settings, pool_size=3, statement_timeout_seconds=10) as reader,
        open_database(settings, pool_size=3, sorts=False) as worker,
    ):
        for _ in range(3):
            seen = await asyncio.gather(*(database.run(timeout_of) for database in (reader, worker) * 3))
            assert seen == ["10s", "0"] * 3


@pytest.mark.parametrize("step", ["cancel", "retry"])
async def test_an_unknown_job_is_not_found(
    serve_api: ServeApi,  # noqa: F811 — the fixture
    pooled_url: str,
    step: str,
) -> None:
    """Cancellation and retry of an unknown job get 404, though the error ends the transaction."""
    async with serve_api(database_url=pooled_url) as api:
        assert (await api.post(f"{JOBS}/{new_job_id()}/{step}")).status_code == 404
