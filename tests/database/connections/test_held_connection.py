"""A held connection runs statements one after the other as the pool does, and blocks no other caller."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from iidq.concurrency.batcher import Batcher
from iidq.database.connections import Connection
from iidq.database.hot_statement import HeldConnection
from iidq.database.pool import open_database
from iidq.errors import DatabaseUnavailable, RowRefused
from iidq.queue.enqueuer import open_enqueuer
from iidq.settings import Settings
from tests.database.connections.test_database import backend
from tests.job_rows import new_job, statuses


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


async def test_it_is_kept_until_it_is_released(settings: Settings) -> None:
    """Statements between two releases use one server process; after the release others get the connection."""
    async with open_database(settings, pool_size=1) as database:
        held = HeldConnection(database)
        first = await held.run(backend)
        other = asyncio.create_task(database.run(backend))
        assert await held.run(backend) == first
        assert not other.done()
        await held.release()
        assert await other == first
        assert await held.run(backend) == first
        await held.release()


async def test_a_lost_one_is_replaced(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """Work on a lost connection is done once more on another, also after a loss in the middle."""
    async with open_database(settings, pool_size=2) as database:
        held = HeldConnection(database)
        lost: list[int] = []

        async def break_once(connection: Connection) -> int:
            pid = await backend(connection)
            if not lost:
                lost.append(pid)
                sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            return await backend(connection)

        pid = await held.run(break_once)
        assert pid not in lost
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await held.run(backend)])
        assert await held.run(backend) > 0
        await held.release()


@pytest.mark.parametrize(
    ("error", "stays"),
    [(errors.DeadlockDetected, True), (errors.SerializationFailure, True), (errors.ReadOnlySqlTransaction, False)],
)
async def test_what_another_try_may_mend_is_tried_again(
    settings: Settings, error: type[psycopg.Error], stays: bool
) -> None:
    """Work is repeated once after a deadlock or conflict, and after a read-only server on a new connection."""
    async with open_database(settings, pool_size=1) as database:
        held = HeldConnection(database)
        before = await held.run(backend)
        tries: list[int] = []

        async def fail_once(connection: Connection) -> int:
            tries.append(await backend(connection))
            if len(tries) == 1:
                raise error
            return tries[-1]

        after = await held.run(fail_once)
        assert tries == [before, after]
        assert (after == before) is stays


async def test_errors_are_translated(settings: Settings) -> None:
    """A held connection raises the pool's errors: a refused row, an open circuit, a database out of reach."""
    async with open_database(settings, pool_size=1) as database:
        held = HeldConnection(database)
        with pytest.raises(RowRefused):
            await held.run(lambda connection: connection.execute("SELECT 1 / 0"))
        await database.open_circuit()
        with pytest.raises(DatabaseUnavailable):
            await held.run(backend)
        database.close_circuit()
        assert await held.run(backend) > 0
        await held.release()
    away = settings.model_copy(update={"database_url": "postgresql://iidq@/iidq?host=/nonexistent"})
    async with open_database(away, pool_size=1) as database:
        with pytest.raises(DatabaseUnavailable):
            await HeldConnection(database).run(backend)


async def test_behind_a_pooler_nothing_is_held(settings: Settings) -> None:
    """Behind a pooler no connection is held, and each statement has the time limit of its transaction."""
    async with open_database(settings, pool_size=1, statement_timeout_seconds=7.0) as database:
        async with database.connection() as connection:
            # As configured for a pooler.
            connection.prepare_threshold = None
        held = HeldConnection(database)

        async def limit(connection: Connection) -> Any:
            cursor = await connection.execute("SELECT current_setting('statement_timeout')")
            return await cursor.fetchone()

        for _ in range(2):
            assert await held.run(limit) == ("7s",)
            async with asyncio.timeout(5):
                await database.run(backend)


async def test_an_enqueuer_that_is_ended_holds_none(settings: Settings) -> None:
    """A writer cancelled in the middle of a statement gives its connection back."""
    async with open_database(settings, pool_size=1) as database:
        held, began = HeldConnection(database), asyncio.Event()

        async def sleep(connection: Connection) -> None:
            began.set()
            await connection.execute("SELECT pg_sleep(60)")

        async def write(_items: object) -> list[None]:
            await held.run(sleep)
            return [None]

        commits: Batcher[int, None] = Batcher(write, blames_one_item=lambda _: False, on_idle=held.release)
        caller = commits.submit(1)
        await began.wait()
        commits.abandon()
        with pytest.raises(asyncio.CancelledError):
            await caller
        async with asyncio.timeout(10):
            assert await database.run(backend) > 0


async def test_an_enqueuer_holds_none_while_nobody_asks(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """An idle enqueuer holds no connection, and jobs on a lost connection are stored once."""
    async with open_database(settings, pool_size=1) as database, open_enqueuer(database, settings) as enqueuer:
        for _ in range(2):
            await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(20)))
            async with asyncio.timeout(5):
                pid = await database.run(backend)
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert statuses(sql) == {"queued": 40}
