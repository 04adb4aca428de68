"""Retention by age and by count, oldest first, in batches; unfinished jobs stay."""

from typing import Any

import psycopg

from iidq.database.pool import open_database
from iidq.queue import upkeep
from iidq.queue.upkeep import Retention
from iidq.settings import load_settings
from tests.job_rows import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, Sql, insert, scalar, statuses

DAY_SECONDS = 86_400.0


def age(days: float) -> dict[str, Any]:
    """Return the columns of a job created ``days`` ago."""
    return {"createdAt": Sql(f"now() - interval '{days} days'")}


def ended(days: float) -> dict[str, Any]:
    moment = Sql(f"now() - interval '{days} days'")
    return {"createdAt": moment, "completedAt": moment}


async def test_ages_are_per_state(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Failed jobs have an age of their own; unfinished jobs stay whatever their age."""
    for base in (COMPLETED, CANCELLED, FAILED):
        for days in (1, 8, 31):
            insert(sql, base, **ended(days))
    for base in (QUEUED, PROCESSING):
        insert(sql, base, **age(400))
    removed, _ = await upkeep.purge(
        connection, completed_seconds=7 * DAY_SECONDS, failed_seconds=30 * DAY_SECONDS, batch=100
    )
    assert removed == 5
    assert statuses(sql) == {"completed": 1, "cancelled": 1, "failed": 2, "queued": 1, "processing": 1}


async def test_none_keeps_for_ever(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Without an age no job of the state is removed, also when the other states have an age."""
    for base in (COMPLETED, FAILED):
        insert(sql, base, **ended(4000))
    assert (await upkeep.purge(connection, completed_seconds=None, failed_seconds=None, batch=100))[0] == 0
    assert (await upkeep.purge(connection, completed_seconds=None, failed_seconds=1.0, batch=100))[0] == 1
    assert statuses(sql) == {"completed": 1}


async def test_a_job_that_ended_late_is_kept(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """The age of a job counts from its end, not from its creation."""
    insert(sql, COMPLETED, **age(20))
    assert (await upkeep.purge(connection, completed_seconds=DAY_SECONDS, failed_seconds=None, batch=100))[0] == 0


async def test_batches_are_bounded_and_oldest_first(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Each purge removes at most a batch, and returns the start of the next."""
    for days in range(10, 17):
        insert(sql, COMPLETED, **ended(days))
    from_time, removed = upkeep.EARLIEST, []
    while True:
        count, last_time = await upkeep.purge(
            connection, completed_seconds=DAY_SECONDS, failed_seconds=None, batch=3, from_time=from_time
        )
        if not count:
            break
        assert last_time is not None
        assert from_time < last_time
        assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE "createdAt" <= %s', last_time) == 0
        from_time = last_time
        removed.append(count)
    assert removed == [3, 3, 1]


async def test_rows_that_are_held_are_passed_over(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A purge does not wait for locked rows."""
    insert(sql, COMPLETED, **ended(10))
    with sql.transaction():
        sql.execute('SELECT FROM "VerificationJob" FOR UPDATE')
        assert (await upkeep.purge(connection, completed_seconds=1.0, failed_seconds=None, batch=10))[0] == 0
    assert (await upkeep.purge(connection, completed_seconds=1.0, failed_seconds=None, batch=10))[0] == 1


async def test_only_the_newest_are_kept_by_count(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """``RETENTION_COMPLETED_COUNT`` bounds completed and cancelled jobs together, and no other jobs."""
    newest = [insert(sql, base, **ended(days)) for days, base in ((1, COMPLETED), (2, CANCELLED))]
    for days in (3, 4, 5):
        insert(sql, COMPLETED, **ended(days))
    insert(sql, FAILED, **ended(9))
    insert(sql, QUEUED, **age(9))
    assert (await upkeep.purge_excess(connection, keep=2, batch=2))[0] == 2
    assert (await upkeep.purge_excess(connection, keep=2, batch=2))[0] == 1
    assert (await upkeep.purge_excess(connection, keep=2, batch=2))[0] == 0
    kept = sql.execute(
        "SELECT id FROM \"VerificationJob\" WHERE status IN ('completed', 'cancelled') ORDER BY id"
    ).fetchall()
    assert {row[0] for row in kept} == set(newest)
    assert statuses(sql) == {"completed": 1, "cancelled": 1, "failed": 1, "queued": 1}


async def test_retention_goes_on_until_nothing_is_left(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Retention goes on at once while more than a batch is left, then pauses for more than 20 s."""
    insert(sql, COMPLETED, copies=1500, **ended(8))
    insert(sql, COMPLETED, copies=10, **ended(1))
    settings = load_settings(database_url=database_url, retention_completed_count=4)
    retention = Retention(settings)
    async with open_database(settings, pool_size=1) as database:
        pauses: list[float] = []
        while statuses(sql).get("completed", 0) > 4 and len(pauses) < 10:
            pauses.append(await retention.purge(database))
    assert statuses(sql) == {"completed": 4}
    assert pauses[0] < 1
    assert await _last_pause(retention, database_url) > 20


async def _last_pause(retention: Retention, database_url: str) -> float:
    async with open_database(load_settings(database_url=database_url), pool_size=1) as database:
        return await retention.purge(database)
