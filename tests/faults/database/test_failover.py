"""The primary is lost or demoted and its standby takes over: no process restarts, and no acknowledged job is lost."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.migrate import migrate
from iidq.database.pool import Database, open_database
from iidq.embedded.postgres import EmbeddedPostgres, free_port
from iidq.errors import DatabaseUnavailable
from iidq.queue.enqueuer import Enqueuer, open_enqueuer
from iidq.queue.notify import listener
from iidq.queue.read import queue_health
from iidq.settings import load_settings
from tests.database.processing.test_work_loop import Executions
from tests.database.queue.test_operator_sql import counted
from tests.database.working import working
from tests.eventually import eventually
from tests.faults.conftest import StartWorker, keep_ledger
from tests.faults.database.standby import Standby, tcp_url
from tests.job_rows import insert, new_job, scalar, statuses

ServerPair = tuple[EmbeddedPostgres, Standby]


@pytest.fixture
def servers() -> Iterator[ServerPair]:
    """A migrated primary with synchronous commits, and its standby."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        home = Path(folder)
        # Run by root, the servers have another account, which must pass here.
        home.chmod(0o711)
        primary = EmbeddedPostgres(home / "primary", port=free_port(), options={"fsync": "off"})
        standby = Standby(home / "standby", primary)
        try:
            primary.start()
            migrate(primary.url)
            keep_ledger(primary.url)
            standby.start()
            standby.wait_until_synchronous()
            yield primary, standby
        finally:
            standby.close()
            primary.close()


@asynccontextmanager
async def asking(url: str, **overrides: Any) -> AsyncIterator[tuple[Database, Enqueuer]]:
    """Yield the database and the enqueuer of an API process."""
    settings = load_settings(database_url=url, **overrides)
    async with open_database(settings, pool_size=4) as database, open_enqueuer(database, settings) as enqueuer:
        yield database, enqueuer


async def test_a_promoted_standby_takes_over(servers: ServerPair, start_worker: StartWorker) -> None:
    """Workers and callers move to a promoted standby when the primary dies, and every acknowledged job ends once."""
    primary, standby = servers
    url = tcp_url(primary, standby)
    workers = [start_worker(url, MAX_RETRY_ATTEMPTS="10") for _ in range(2)]
    with psycopg.connect(primary.url, autocommit=True) as owner:
        owner.execute("INSERT INTO iidq_rate_count VALUES ('a client', 1, 1)")
    acknowledged: set[UUID] = set()
    stop_asking = asyncio.Event()
    async with asking(url, max_retry_attempts=10) as (_, enqueuer):

        async def ask() -> None:
            job = new_job(manifest_uri="test:quick:0.05")
            while not stop_asking.is_set():
                try:
                    acknowledged.add(await enqueuer.enqueue(job))
                except DatabaseUnavailable:
                    # The same job again: the commit may have succeeded.
                    continue
                job = new_job(manifest_uri="test:quick:0.05")
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as callers:
            for _ in range(4):
                callers.create_task(ask())
            await eventually(lambda: len(acknowledged) > 60)
            await asyncio.to_thread(primary.stop, signal.SIGKILL)
            before = len(acknowledged)
            await asyncio.to_thread(standby.promote)
            await eventually(lambda: len(acknowledged) > before + 60, timeout_seconds=30)
            stop_asking.set()

    with psycopg.connect(standby.url, autocommit=True) as ledger:
        await eventually(lambda: set(statuses(ledger)) == {"completed"}, timeout_seconds=30)
        present = {row[0] for row in ledger.execute("SELECT job_id FROM ending WHERE status = 'completed'")}
        assert acknowledged <= present
        assert scalar(ledger, "SELECT count(*) = count(DISTINCT job_id) FROM ending")
        # An unlogged table is empty and takes rows; the counts are replicated.
        assert scalar(ledger, "SELECT count(*) FROM iidq_rate_count") == 0
        ledger.execute("INSERT INTO iidq_rate_count VALUES ('a client', 1, 1)")
        kept, real = counted(ledger)
        assert kept == real
        # The LISTEN connections have moved as well.
        await eventually(lambda: scalar(ledger, "SELECT count(*) FROM queue_workers WHERE listening") == 2)
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0


def demote(primary: EmbeddedPostgres) -> None:
    """Refuse writes on the primary and keep its connections open, as in a switchover by another tool."""
    with psycopg.connect(primary.url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        admin.execute("SELECT pg_reload_conf()")


async def test_connections_to_a_demoted_primary_are_thrown_out(servers: ServerPair) -> None:
    """After a switchover without closed connections each call reaches the new primary."""
    primary, standby = servers
    async with asking(tcp_url(primary, standby)) as (database, enqueuer):
        first = await enqueuer.enqueue(new_job())
        # Several connections, so that the discarded connection is not the last.
        await asyncio.gather(*(database.run(queue_health.read_health) for _ in range(4)))
        await asyncio.to_thread(standby.promote)
        demote(primary)
        ids = [first]
        for _ in range(6):
            ids += await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(3)))
    with psycopg.connect(standby.url, autocommit=True) as sql:
        assert {row[0] for row in sql.execute('SELECT id FROM "VerificationJob"')} == set(ids)


async def test_a_worker_follows_a_switchover_and_hears_again(
    servers: ServerPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker, its listener and its lease keeper leave a demoted primary, though their connections stay open."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL_SECONDS", 0.4)
    monkeypatch.setattr(listener, "_ECHO_TIMEOUT_SECONDS", 0.4)
    primary, standby = servers
    handler = Executions(waits=True)
    with psycopg.connect(primary.url, autocommit=True) as sql:
        insert(sql)
    async with working(tcp_url(primary, standby), handler, poll_interval_seconds=0.5, job_lease_seconds=3) as work:
        await eventually(lambda: handler.running == 1 and work.loop.listener.listening)
        await asyncio.to_thread(standby.promote)
        demote(primary)
        with psycopg.connect(standby.url, autocommit=True) as sql:
            # If the claim has not reached the standby, the claim is made again and the attempt goes on.
            moment = scalar(sql, "SELECT now()")
            renewed = 'SELECT coalesce("leaseUntil" > %s + interval \'3 seconds\', false) FROM "VerificationJob"'
            await eventually(lambda: scalar(sql, renewed, moment))
            listens = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN'"
            await eventually(lambda: scalar(sql, listens) and work.loop.listener.listening)
            handler.go_on.set()
            insert(sql, copies=3)
            await eventually(lambda: statuses(sql) == {"completed": 4})
            assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE attempt = 1') == 4
    assert set(handler.begun.values()) == {1}
