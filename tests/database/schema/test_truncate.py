"""TRUNCATE of the jobs also empties their counts and deliveries, at any isolation level."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.eventually import eventually
from tests.job_rows import insert, scalar

_COUNTED = "SELECT coalesce(sum(waiting), 0) + coalesce(sum(completed), 0) FROM iidq_queue_count"
_DELIVERIES = "SELECT count(*) FROM iidq_webhook_delivery"


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A second session as in psql, with all statements in one transaction."""
    with psycopg.connect(database_url) as connection:
        yield connection


def ask_for_a_callback(sql: psycopg.Connection[Any]) -> None:
    """Insert a job with a callback and its delivery."""
    job_id = insert(sql, hasCallback=True)
    sql.execute('INSERT INTO iidq_webhook_delivery ("jobId", url) VALUES (%s, %s)', [job_id, "https://a.example/"])


@pytest.mark.parametrize("level", [level for level in IsolationLevel if level is not IsolationLevel.READ_UNCOMMITTED])
def test_truncate_leaves_no_counts_behind(
    sql: psycopg.Connection[Any], other: psycopg.Connection[Any], level: IsolationLevel
) -> None:
    """TRUNCATE leaves neither counts nor deliveries, also of rows committed after the transaction's snapshot."""
    insert(sql, copies=2)
    other.isolation_level = level
    assert scalar(other, _COUNTED) == 2
    insert(sql, copies=3)
    ask_for_a_callback(sql)
    other.execute('TRUNCATE "VerificationJob"')
    other.commit()
    assert (scalar(sql, _COUNTED), scalar(sql, _DELIVERIES)) == (0, 0)
    insert(sql)
    assert scalar(sql, "SELECT waiting FROM queue_health") == 1


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
def test_a_truncate_that_is_undone_changes_nothing(
    sql: psycopg.Connection[Any], other: psycopg.Connection[Any], level: IsolationLevel
) -> None:
    """ROLLBACK of a TRUNCATE restores counts and deliveries."""
    ask_for_a_callback(sql)
    other.isolation_level = level
    other.execute('TRUNCATE "VerificationJob"')
    other.rollback()
    assert (scalar(sql, _COUNTED), scalar(sql, _DELIVERIES)) == (1, 1)


def test_one_truncate_of_all_tables(sql: psycopg.Connection[Any]) -> None:
    """One TRUNCATE may name the jobs, counts and deliveries together."""
    ask_for_a_callback(sql)
    sql.execute('TRUNCATE iidq_queue_count, iidq_webhook_delivery, "VerificationJob"')
    assert (scalar(sql, _COUNTED), scalar(sql, _DELIVERIES)) == (0, 0)


def test_no_right_to_the_counts_is_needed(sql: psycopg.Connection[Any]) -> None:
    """A role with TRUNCATE on the jobs alone empties the counts as well."""
    insert(sql)
    role = f"truncator_{scalar(sql, 'SELECT pg_backend_pid()')}"
    sql.execute(f"CREATE ROLE {role}".encode())
    try:
        sql.execute(f'GRANT TRUNCATE ON "VerificationJob" TO {role}'.encode())
        sql.execute(f"SET ROLE {role}".encode())
        sql.execute('TRUNCATE "VerificationJob"')
    finally:
        sql.execute("RESET ROLE")
        sql.execute(f"DROP OWNED BY {role}".encode())
        sql.execute(f"DROP ROLE {role}".encode())
    assert scalar(sql, _COUNTED) == 0


async def test_readers_of_the_counts_do_not_deadlock(
    database_url: str, sql: psycopg.Connection[Any], other: psycopg.Connection[Any]
) -> None:
    """A read of queue_health in wait for the jobs does not block a TRUNCATE."""
    insert(sql)
    other.execute('LOCK TABLE "VerificationJob" IN ACCESS EXCLUSIVE MODE')
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        reading = asyncio.create_task(reader.execute("SELECT waiting FROM queue_health"))
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        await eventually(lambda: scalar(sql, waits, reader.info.backend_pid))
        other.execute('TRUNCATE "VerificationJob"')
        other.commit()
        assert await (await reading).fetchone() == (0,)
