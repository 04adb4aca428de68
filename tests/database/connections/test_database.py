"""Connections: errors of Postgres are translated, broken connections replaced, and repetitions bounded."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from iidq.database.connections import Connection, connect
from iidq.database.pool import open_database
from iidq.database.sqlstates import is_passing, translate
from iidq.errors import NOT_MIGRATED, DatabaseUnavailable, ObjectMissing, RowRefused
from iidq.settings import Settings, load_settings
from tests.job_rows import QUEUED, insert, scalar

AWAY = "postgresql://iidq@/iidq?host=/nonexistent"


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


async def backend(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_broken_connection_is_replaced(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """A broken connection is replaced at the next call, without an error for the caller."""
    async with open_database(settings, pool_size=2) as database:
        first = await database.run(backend)
        sql.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        assert await database.run(backend) != first


async def test_work_is_repeated_once_when_its_connection_breaks(
    settings: Settings, sql: psycopg.Connection[Any]
) -> None:
    """Work on a connection lost midway is repeated once, and only once."""
    async with open_database(settings, pool_size=1) as database:
        tries = 0

        async def work(connection: Connection) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await backend(connection)])
            return await backend(connection)

        assert await database.run(work) > 0
        assert tries == 2

        async def always_breaks(connection: Connection) -> int:
            nonlocal tries
            tries += 1
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await backend(connection)])
            return await backend(connection)

        tries = 0
        with pytest.raises(DatabaseUnavailable):
            await database.run(always_breaks)
        assert tries == 2


async def test_a_deadlocks_victim_is_served_again(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """A deadlock's victim is repeated, so both writers succeed."""
    first, second = insert(sql), insert(sql)
    met = asyncio.Barrier(2)
    async with open_database(settings, pool_size=2) as database:

        async def swap(one: Any, other: Any) -> None:
            tries = 0

            async def work(connection: Connection) -> None:
                nonlocal tries
                tries += 1
                async with connection.transaction():
                    await connection.execute("SET LOCAL deadlock_timeout = '50ms'")
                    await connection.execute('UPDATE "VerificationJob" SET priority = 1 WHERE id = %s', [one])
                    if tries == 1:
                        await met.wait()
                    await connection.execute('UPDATE "VerificationJob" SET priority = 2 WHERE id = %s', [other])

            await database.run(work)

        async with asyncio.timeout(10):
            await asyncio.gather(swap(first, second), swap(second, first))
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE priority > 0') == 2


async def test_a_read_only_server_is_left(settings: Settings) -> None:
    """A connection to a read-only server is dropped, and the work repeated on a new connection."""
    async with open_database(settings, pool_size=1) as database:
        tries = 0

        async def work(connection: Connection) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                await connection.execute("SET default_transaction_read_only = on")
            await connection.execute('DELETE FROM "VerificationJob"')
            return await backend(connection)

        assert await database.run(work) > 0
        assert tries == 2


async def test_errors_of_run_are_ours(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """Errors of Postgres are translated the same for ``run`` and ``connection``."""
    sql.execute("DROP TABLE iidq_rate_count")
    async with open_database(settings, pool_size=1) as database:

        async def bad_row(connection: Connection) -> None:
            await connection.execute(
                'INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress")'
                " VALUES ('sign', %s, 'x', %s)",
                [QUEUED["contentHash"], QUEUED["registryAddress"]],
            )

        async def no_table(connection: Connection) -> None:
            await connection.execute("SELECT FROM public.iidq_rate_count")

        async def too_slow(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = 10")
                await connection.execute("SELECT pg_sleep(10)")

        async def too_deep(connection: Connection) -> None:
            await connection.execute("SELECT repeat('[', 20000)::jsonb")

        for work, kind, code in (
            (no_table, ObjectMissing, "database.refused"),
            (too_slow, DatabaseUnavailable, "database.timeout"),
        ):
            with pytest.raises(kind) as caught:
                await database.run(work)
            assert getattr(caught.value, "code", None) == code
            with pytest.raises(kind):
                async with database.connection() as connection:
                    await work(connection)
        # Without a remedy by repetition, so not an outage.
        for fault in (too_deep, bad_row):
            with pytest.raises(RowRefused) as deep:
                await database.run(fault)
            assert not is_passing(deep.value)


async def test_a_server_that_is_away_is_told_in_time() -> None:
    """Callers get ``DatabaseUnavailable`` in a bounded time while the server is away."""
    settings = load_settings(database_url=AWAY)
    async with open_database(settings, pool_size=1) as database:
        async with asyncio.timeout(10):
            with pytest.raises(DatabaseUnavailable, match="no connection to the database in time"):
                await database.run(backend)
    with pytest.raises(DatabaseUnavailable, match="the database cannot be reached"):
        await connect(settings)


async def test_a_pool_that_is_exhausted_is_told(settings: Settings) -> None:
    """A caller of an exhausted pool gets ``DatabaseUnavailable``."""
    async with open_database(settings, pool_size=1) as database, database.connection():
        with pytest.raises(DatabaseUnavailable):
            async with database.connection():
                pass


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DiskFull(), "database.exhausted"),
        (errors.TooManyConnections(), "database.exhausted"),
        (errors.AdminShutdown(), "database.unavailable"),
        (errors.CannotConnectNow(), "database.unavailable"),
        (errors.QueryCanceled(), "database.timeout"),
        (errors.ReadOnlySqlTransaction(), "database.read_only"),
        (errors.UndefinedColumn(), NOT_MIGRATED),
        (errors.SyntaxError(), "database.refused"),
        (errors.UniqueViolation(), "database.row_refused"),
        (errors.StatementTooComplex(), "database.row_refused"),
        (psycopg.DataError(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_translation(error: psycopg.Error, code: str | None) -> None:
    """Each condition of Postgres has its code; psycopg's own refusals stay unchanged."""
    translated = translate(error)
    assert (translated.code if translated else None) == code
    assert is_passing(translated or error) == (isinstance(translated, DatabaseUnavailable) and code != NOT_MIGRATED)
