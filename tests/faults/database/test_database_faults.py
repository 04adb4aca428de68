"""Postgres crashes, or is not ready yet: workers wait, and no acknowledged job is lost."""

import asyncio
import signal
from uuid import UUID

import psycopg

from iidq.database.migrate import migrate
from iidq.database.pool import open_database
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.errors import DatabaseUnavailable
from iidq.queue.enqueuer import open_enqueuer
from iidq.settings import load_settings
from tests.eventually import eventually
from tests.faults.conftest import StartWorker, keep_ledger
from tests.job_rows import insert, new_job, scalar, statuses


async def test_a_crash_of_postgres_loses_no_acknowledged_job(
    own_server: EmbeddedPostgres, start_worker: StartWorker
) -> None:
    """A crash of Postgres under load loses no acknowledged job: each ends, and ends exactly once."""
    workers = [start_worker(own_server.url, MAX_RETRY_ATTEMPTS="10") for _ in range(2)]
    settings = load_settings(database_url=own_server.url, max_retry_attempts=10)
    acknowledged: set[UUID] = set()
    stop_asking = asyncio.Event()

    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:

        async def ask() -> None:
            while not stop_asking.is_set():
                job = new_job(manifest_uri="test:quick:0.05")
                try:
                    acknowledged.add(await enqueuer.enqueue(job))
                except DatabaseUnavailable:
                    continue
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as callers:
            for _ in range(4):
                callers.create_task(ask())
            await eventually(lambda: len(acknowledged) > 60)
            await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
            await eventually(lambda: all(worker.says("database.lost") for worker in workers))
            await asyncio.to_thread(own_server.start)
            before = len(acknowledged)
            await eventually(lambda: len(acknowledged) > before + 60)
            stop_asking.set()

    with psycopg.connect(own_server.url, autocommit=True) as ledger:
        await eventually(lambda: set(statuses(ledger)) == {"completed"}, timeout_seconds=30)
        completed = {row[0] for row in ledger.execute("SELECT job_id FROM ending WHERE status = 'completed'")}
        assert acknowledged <= completed
        assert scalar(ledger, "SELECT count(*) = count(DISTINCT job_id) FROM ending")
        assert scalar(ledger, "SELECT count(*) FROM ending") == scalar(ledger, 'SELECT count(*) FROM "VerificationJob"')
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0


async def test_a_worker_waits_for_postgres(own_server: EmbeddedPostgres, start_worker: StartWorker) -> None:
    """A worker started before its database waits, and works once the database is up."""
    insert_url = own_server.url
    own_server.stop()
    worker = start_worker(insert_url)
    await eventually(lambda: worker.says("database.lost"))
    await asyncio.to_thread(own_server.start)
    with psycopg.connect(own_server.url, autocommit=True) as ledger:
        insert(ledger, manifestUri="test:quick:0", copies=3)
        await eventually(lambda: statuses(ledger) == {"completed": 3})
        assert scalar(ledger, "SELECT count(*) FROM execution") == 3
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0


async def test_a_worker_waits_for_migrations(empty_database_url: str, start_worker: StartWorker) -> None:
    """A worker started before the migrations waits for the migrations."""
    worker = start_worker(empty_database_url)
    await eventually(lambda: worker.says("iidq migrate"))
    await asyncio.to_thread(migrate, empty_database_url)
    keep_ledger(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as ledger:
        insert(ledger, manifestUri="test:quick:0", copies=3)
        await eventually(lambda: statuses(ledger) == {"completed": 3})
