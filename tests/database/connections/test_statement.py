"""Statements without a cursor work like statements with one, at a lower cost."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from iidq.database.connections import Connection
from iidq.database.hot_statement import Statement
from tests.eventually import eventually
from tests.job_rows import insert, scalar

NOTE = Statement(b"SELECT set_config('test.note', %(word)s || %(number)s::int || %(word)s || '%%', false)")
IDLE = psycopg.pq.TransactionStatus.IDLE


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


async def value(connection: Connection, query: str) -> Any:
    row = await (await connection.execute(query.encode(), prepare=True)).fetchone()
    assert row is not None
    return row[0]


async def works(connection: Connection, number: int) -> bool:
    """Return whether the statement has its effect on the connection."""
    await NOTE.run(connection, {"number": str(number), "word": "a'b"})
    return bool(await value(connection, "SELECT current_setting('test.note')") == f"a'b{number}a'b%")


async def test_values_arrive_by_name(connection: Connection) -> None:
    """Values are passed by name, also repeated and with a quote; a per cent sign is written as for psycopg."""
    assert await works(connection, 1)
    assert await works(connection, 2)
    assert connection.pgconn.transaction_status == IDLE


async def test_through_a_pooler_it_is_the_same(connection: Connection) -> None:
    """Through a pooler a statement works without any state on the server."""
    connection.prepare_threshold = None
    assert await works(connection, 3)
    await connection.execute("DISCARD ALL")
    assert await works(connection, 4)


async def test_errors_are_the_drivers(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """A failed statement raises psycopg's error class with details, and the connection works on."""
    with pytest.raises(errors.UndefinedColumn):
        await Statement(b"SELECT nothing").run(connection, {})
    progress = Statement(b"""UPDATE "VerificationJob" SET progress = %(progress)s::int""")
    insert(sql)
    with pytest.raises(errors.CheckViolation) as refused:
        await progress.run(connection, {"progress": "101"})
    assert refused.value.diag.constraint_name == "VerificationJob_progress_range"
    assert await works(connection, 5)


async def test_in_a_transaction_it_is_part_of_it(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """A statement in a transaction is rolled back with it, and works again after the rollback."""
    pause = Statement(b'UPDATE iidq_queue_control SET "pausedAt" = now()')
    assert await works(connection, 6)
    async with connection.transaction(force_rollback=True):
        await pause.run(connection, {})
        assert await value(connection, 'SELECT "pausedAt" IS NOT NULL FROM iidq_queue_control')
    assert scalar(sql, 'SELECT "pausedAt" FROM iidq_queue_control') is None
    with pytest.raises(errors.DivisionByZero):
        async with connection.transaction():
            await Statement(b"SELECT 1 / 0").run(connection, {})
    assert await works(connection, 7)


async def test_another_follows_in_a_transaction_of_its_own(
    connection: Connection, sql: psycopg.Connection[Any]
) -> None:
    """The second statement of a pair runs after the first's commit, in a transaction of its own."""
    sql.execute("CREATE TABLE entry (name text, transaction bigint DEFAULT txid_current())")
    first = Statement(b"INSERT INTO entry (name) VALUES (%(name)s)")
    then = Statement(b"INSERT INTO entry (name) SELECT name || %(sign)s FROM entry")
    assert await first.run_before(connection, {"name": "a"}, then, {"sign": "!"})
    assert [name for (name,) in sql.execute("SELECT name FROM entry ORDER BY name")] == ["a", "a!"]
    assert scalar(sql, "SELECT count(DISTINCT transaction) FROM entry") == 2
    assert connection.pgconn.transaction_status == IDLE
    assert await works(connection, 10)


@pytest.mark.parametrize(
    ("values", "error"),
    [(b"('a'), ('b')", None), (b"('a'), ('a')", errors.UniqueViolation), (b"(1 / 0)", errors.DataError)],
)
async def test_only_the_first_ones_failure_is_raised(
    connection: Connection, sql: psycopg.Connection[Any], values: bytes, error: type[Exception] | None
) -> None:
    """Only a failure of the pair's first statement is raised, at once or at its commit; the second's is returned."""
    sql.execute("CREATE TABLE entry (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    first = Statement(b"INSERT INTO entry VALUES " + values)
    failing, fine = Statement(b"SELECT 1 / 0"), Statement(b"SELECT 1")
    for then in (failing, fine):
        sql.execute("TRUNCATE entry")
        if error is None:
            assert await first.run_before(connection, {}, then, {}) is (then is fine)
        else:
            with pytest.raises(error):
                await first.run_before(connection, {}, then, {})
        assert scalar(sql, "SELECT count(*) FROM entry") == (2 if error is None else 0)
        assert await works(connection, 11)


async def test_a_pair_that_is_broken_off_leaves_no_half_open_connection(
    connection: Connection, sql: psycopg.Connection[Any]
) -> None:
    """A pair cancelled in the middle leaves a working connection; after a loss the connection is closed."""
    sleep, fine = Statement(b"SELECT pg_sleep(60)"), Statement(b"SELECT 1")
    backend = await value(connection, "SELECT pg_backend_pid()")
    asleep = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    for end in ("cancel", "loss"):
        running = asyncio.create_task(sleep.run_before(connection, {}, fine, {}))
        await eventually(lambda: scalar(sql, asleep, backend) == "PgSleep")
        if end == "cancel":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert await works(connection, 12)
        else:
            sql.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
            with pytest.raises(psycopg.OperationalError):
                await running
            assert connection.closed


async def test_a_cancelled_one_is_stopped_in_the_server(connection: Connection, sql: psycopg.Connection[Any]) -> None:
    """A cancelled statement is stopped in the server, and the connection works on."""
    sleep = Statement(b"SELECT pg_sleep(%(seconds)s::int)")
    backend = await value(connection, "SELECT pg_backend_pid()")
    sleeping = asyncio.create_task(sleep.run(connection, {"seconds": "60"}))
    # Wait for the server's start of the statement: before, nothing can be cancelled.
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
    """A statement on a lost connection raises ``OperationalError``, and the connection is closed."""
    sql.execute("SELECT pg_terminate_backend(%s, 5000)", [await value(connection, "SELECT pg_backend_pid()")])
    with pytest.raises(psycopg.OperationalError):
        await works(connection, 9)
    assert connection.closed
