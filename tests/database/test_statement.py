"""Statements that are sent without a cursor behave as those with one, but for what they cost."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from iidq.database import Connection
from iidq.statement import Statement
from tests.eventually import eventually
from tests.job_rows import scalar

NOTE = Statement(b"SELECT set_config('test.note', %(word)s || %(number)s::int || %(word)s || '%%', false)")
IDLE = psycopg.pq.TransactionStatus.IDLE


@pytest.fixture
def postgres_kind() -> str:
    """Nothing here hangs on the version."""
    return "embedded"


async def value(connection: Connection, query: str) -> Any:
    row = await (await connection.execute(query.encode(), prepare=True)).fetchone()
    assert row is not None
    return row[0]


async def works(connection: Connection, number: int) -> bool:
    """Whether the statement does what it says on this connection."""
    await NOTE.run(connection, {"number": str(number), "word": "a'b"})
    return bool(await value(connection, "SELECT current_setting('test.note')") == f"a'b{number}a'b%")


async def test_values_arrive_by_name(connection: Connection) -> None:
    """Also one that stands twice, and with a quote in it; a sign for per cent is written as for psycopg."""
    assert await works(connection, 1)
    assert await works(connection, 2)
    assert connection.pgconn.transaction_status == IDLE


async def test_through_a_pooler_it_is_the_same(connection: Connection) -> None:
    """Nothing is kept on the server that the next statement might miss."""
    connection.prepare_threshold = None
    assert await works(connection, 3)
    await connection.execute("DISCARD ALL")
    assert await works(connection, 4)


async def test_errors_are_the_drivers(connection: Connection) -> None:
    """Of the right class, with Postgres' details; the connection goes on."""
    with pytest.raises(errors.UndefinedColumn):
        await Statement(b"SELECT nothing").run(connection, {})
    hash_form = Statement(b"SELECT %(hash)s::content_hash")
    with pytest.raises(errors.CheckViolation) as refused:
        await hash_form.run(connection, {"hash": "0x"})
    assert refused.value.diag.constraint_name == "VerificationJob_contentHash_form"
    assert await works(connection, 5)


async def test_in_a_transaction_it_is_part_of_it(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """What is rolled back has not happened, and what psycopg does after a rollback does it no harm."""
    pause = Statement(b'UPDATE queue_control SET "pausedAt" = now()')
    assert await works(connection, 6)
    async with connection.transaction(force_rollback=True):
        await pause.run(connection, {})
        assert await value(connection, 'SELECT "pausedAt" IS NOT NULL FROM queue_control')
    assert scalar(sql, 'SELECT "pausedAt" FROM queue_control') is None
    with pytest.raises(errors.DivisionByZero):
        async with connection.transaction():
            await Statement(b"SELECT 1 / 0").run(connection, {})
    assert await works(connection, 7)


async def test_a_cancelled_one_is_stopped_in_the_server(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """Whoever waits for it may give up; the connection is then free, for the same statement too."""
    sleep = Statement(b"SELECT pg_sleep(%(seconds)s::int)")
    backend = await value(connection, "SELECT pg_backend_pid()")
    sleeping = asyncio.create_task(sleep.run(connection, {"seconds": "60"}))
    # Until the server has begun: before that, it has nothing to cancel.
    await eventually(
        lambda: scalar(sql, "SELECT wait_event FROM pg_stat_activity WHERE pid = %s", backend) == "PgSleep"
    )
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    async with asyncio.timeout(10):
        await sleep.run(connection, {"seconds": "0"})
        assert await works(connection, 8)


async def test_a_lost_connection_is_told(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """As any other statement's: an OperationalError, and the connection counts as closed."""
    sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await value(connection, "SELECT pg_backend_pid()")])
    with pytest.raises(psycopg.OperationalError):
        await works(connection, 9)
    assert connection.closed
