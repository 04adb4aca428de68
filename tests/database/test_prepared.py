"""Statements that are sent without a cursor behave as those with one, but for what they cost."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from iidq.database import Connection
from iidq.prepared import Prepared
from tests.eventually import eventually
from tests.job_rows import scalar

NOTE = Prepared("note", b"SELECT set_config('test.note', %(word)s || %(number)s::int || %(word)s, false)")


@pytest.fixture
def postgres_kind() -> str:
    """Nothing here hangs on the version."""
    return "embedded"


async def value(connection: Connection, query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return row[0]


async def prepared_by_us(connection: Connection) -> int:
    return int(await value(connection, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'iidq_note'"))


async def test_it_is_prepared_once_on_each_connection(connection: Connection, rival: Connection) -> None:
    """Values arrive by name, also one that stands twice; a second run finds the statement there."""
    for each in (connection, rival):
        for number in ("1", "2"):
            await NOTE.run(each, {"number": number, "word": "a'b"})
            assert await value(each, "SELECT current_setting('test.note')") == f"a'b{number}a'b"
        assert await prepared_by_us(each) == 1


async def test_through_a_pooler_nothing_is_prepared(connection: Connection) -> None:
    """The next statement may meet another connection to the server, on which the name means nothing."""
    connection.prepare_threshold = None
    await NOTE.run(connection, {"number": "3", "word": ""})
    assert await value(connection, "SELECT current_setting('test.note')") == "3"
    assert await prepared_by_us(connection) == 0


async def test_errors_are_the_drivers(connection: Connection) -> None:
    """Of the right class, with Postgres' details, in preparing and in running; the connection goes on."""
    with pytest.raises(errors.UndefinedColumn):
        await Prepared("wrong", b"SELECT nothing").run(connection, {})
    hash_form = Prepared("hash_form", b"SELECT %(hash)s::content_hash")
    with pytest.raises(errors.CheckViolation) as refused:
        await hash_form.run(connection, {"hash": "0x"})
    assert refused.value.diag.constraint_name == "VerificationJob_contentHash_form"
    await NOTE.run(connection, {"number": "4", "word": ""})


async def test_in_a_transaction_it_is_part_of_it(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """What is rolled back has not happened."""
    pause = Prepared("pause", b'UPDATE queue_control SET "pausedAt" = now()')
    async with connection.transaction(force_rollback=True):
        await pause.run(connection, {})
    assert scalar(sql, 'SELECT "pausedAt" FROM queue_control') is None


async def test_a_cancelled_one_is_stopped_in_the_server(connection: Connection) -> None:
    """Whoever waits for it may give up; the connection is then free for others."""
    sleep = Prepared("sleep", b"SELECT pg_sleep(60)")
    await NOTE.run(connection, {"number": "5", "word": ""})
    sleeping = asyncio.create_task(sleep.run(connection, {}))
    await eventually(lambda: connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    async with asyncio.timeout(10):
        assert await value(connection, "SELECT current_setting('test.note')") == "5"


async def test_a_lost_connection_is_told(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """As any other statement's: an OperationalError, and the connection counts as closed."""
    sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await value(connection, "SELECT pg_backend_pid()")])
    with pytest.raises(psycopg.OperationalError):
        await NOTE.run(connection, {"number": "6", "word": ""})
    assert connection.closed
