"""Silent connections: nothing is closed, and nothing arrives any more."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from iidq.database import pool as databases
from iidq.database.connections import Connection
from iidq.database.migrate import migrate
from iidq.database.pool import open_database
from iidq.embedded.postgres import EmbeddedPostgres, free_port
from iidq.errors import DatabaseUnavailable
from iidq.queue import store
from iidq.queue.notify import channels, listener
from iidq.queue.processing.loop import WorkLoop
from iidq.queue.read import readers
from iidq.settings import load_settings
from tests.database.processing.test_work_loop import Executions
from tests.database.working import NEVER_POLLS_SECONDS, working
from tests.eventually import eventually
from tests.faults.database.silent_proxy import SilentProxy, silent_proxy
from tests.job_rows import insert, new_job, read, scalar, statuses

CHECK_SECONDS = 0.4


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[EmbeddedPostgres]:
    """A migrated server on a TCP port."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # Run by root, the server has another account, which must pass here.
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres", port=free_port(), options={"fsync": "off"})
        server.start()
        try:
            migrate(server.url)
            yield server
        finally:
            server.close()


@pytest.fixture
def sql(tcp_server: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection past the proxy, to an empty queue."""
    with psycopg.connect(tcp_server.url, autocommit=True) as connection:
        connection.execute('TRUNCATE "VerificationJob", iidq_queue_worker')
        yield connection


@pytest.fixture
async def proxy(tcp_server: EmbeddedPostgres) -> AsyncIterator[SilentProxy]:
    """The proxy between worker and server."""
    assert tcp_server.port is not None
    async with silent_proxy(tcp_server.port) as proxy:
        yield proxy


def through(proxy: SilentProxy) -> str:
    """Return the URL of the same database through the proxy."""
    return f"postgresql://iidq@127.0.0.1:{proxy.port}/iidq"


@asynccontextmanager
async def listening_through(
    proxy: SilentProxy,
    server: EmbeddedPostgres,
    handler: Executions,
    poll_interval_seconds: float,
    job_lease_seconds: float = 1.5,
) -> AsyncIterator[WorkLoop]:
    """A work loop with only its listener and lease keeper behind the proxy."""
    settings = load_settings(
        database_url=through(proxy),
        poll_interval_seconds=poll_interval_seconds,
        job_lease_seconds=job_lease_seconds,
    )
    direct = load_settings(database_url=server.url)
    async with open_database(direct, pool_size=3, sorts=False) as database:
        loop = WorkLoop(settings, database, handler, "worker")
        run = asyncio.create_task(loop.run())
        try:
            await eventually(lambda: loop.listener.listening)
            yield loop
        finally:
            loop.stop()
            await run


@pytest.fixture
def checks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listener check its connection often, and give up early."""
    monkeypatch.setattr(listener, "CHECK_INTERVAL_SECONDS", CHECK_SECONDS)
    monkeypatch.setattr(listener, "_ECHO_TIMEOUT_SECONDS", CHECK_SECONDS)


@pytest.mark.usefixtures("checks_often")
async def test_wake_ups_come_back(
    proxy: SilentProxy, tcp_server: EmbeddedPostgres, sql: psycopg.Connection[Any]
) -> None:
    """A listener on a silent connection notices the silence, connects again, and no job of the gap waits for a poll."""
    async with listening_through(proxy, tcp_server, Executions(), NEVER_POLLS_SECONDS) as loop:
        insert(sql)
        await eventually(lambda: statuses(sql) == {"completed": 1})
        for number in range(2, 6, 2):
            proxy.fall_silent()
            insert(sql)
            await eventually(lambda: statuses(sql) == {"completed": number})  # noqa: B023
            await eventually(lambda: loop.listener.listening)
            insert(sql)
            await eventually(lambda: statuses(sql) == {"completed": number + 1})  # noqa: B023
    assert proxy.accepted >= 3


async def test_polling_covers_the_gap(
    proxy: SilentProxy, tcp_server: EmbeddedPostgres, sql: psycopg.Connection[Any]
) -> None:
    """The poll finds jobs as long as a listener has not noticed its silent connection."""
    # No lease is renewed in the meantime: a renewal would open a connection, too.
    async with listening_through(proxy, tcp_server, Executions(), 0.2, job_lease_seconds=600) as loop:
        proxy.fall_silent()
        for number in range(1, 4):
            insert(sql)
            await eventually(lambda: statuses(sql) == {"completed": number})  # noqa: B023
        assert loop.listener.listening
    assert proxy.accepted == 1


@pytest.mark.usefixtures("checks_often")
async def test_a_cancellation_that_was_not_heard_interrupts_all_the_same(
    proxy: SilentProxy, tcp_server: EmbeddedPostgres, sql: psycopg.Connection[Any]
) -> None:
    """A job cancelled during the silence is interrupted after the next lease renewal."""
    handler = Executions(waits=True)
    async with listening_through(proxy, tcp_server, handler, NEVER_POLLS_SECONDS):
        job_id = insert(sql)
        await eventually(lambda: handler.running == 1)
        proxy.fall_silent()
        sql.execute("SELECT cancel_job(%s)", [job_id])
        await eventually(lambda: handler.interrupted == [(job_id, 1)])


@pytest.mark.usefixtures("checks_often")
async def test_a_worker_with_all_connections_cut_works_on(
    proxy: SilentProxy, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with silent connections repeats claims, outcomes and renewals; jobs keep their lease and end once."""
    monkeypatch.setattr(databases, "ANSWER_SECONDS", CHECK_SECONDS)
    handler = Executions(waits=True)
    async with working(through(proxy), handler, poll_interval_seconds=0.2, job_lease_seconds=10, worker_concurrency=2):
        job_id = insert(sql)
        await eventually(lambda: handler.running == 1)
        proxy.fall_silent()
        lease = read(sql, job_id)["leaseUntil"]
        await eventually(lambda: read(sql, job_id)["leaseUntil"] > lease)
        proxy.fall_silent()
        handler.go_on.set()
        insert(sql, copies=3)
        await eventually(lambda: statuses(sql) == {"completed": 4})
    assert set(handler.begun.values()) == {1}
    assert scalar(sql, 'SELECT sum("retryCount") FROM "VerificationJob"') == 0


async def test_callers_are_told_when_no_answer_comes(
    proxy: SilentProxy, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work on a silent connection is repeated on a new connection; if silent as well, the caller gets an error."""
    monkeypatch.setattr(databases, "ANSWER_SECONDS", CHECK_SECONDS)
    settings = load_settings(database_url=through(proxy))
    async with open_database(settings, pool_size=1) as database:
        job = new_job()
        await database.run(lambda connection: store.enqueue(connection, [job], max_attempts=3))
        proxy.fall_silent()
        found = await database.run(lambda connection: readers.find(connection, job.id))
        assert found is not None

        async def always_cut(connection: Connection) -> None:
            proxy.fall_silent()
            await channels.echo(connection, "x")

        with pytest.raises(DatabaseUnavailable):
            await database.run(always_cut)
