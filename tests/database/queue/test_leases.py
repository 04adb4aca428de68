"""Leases and progress: kept by renewal, lost by silence, cheap to write."""

import asyncio
from typing import Any

import psycopg
import pytest

from iidq.queue.outcome import Outcome
from tests.database.attempts import claim, claim_one, fence, finish, renew, report, sweep
from tests.job_rows import Sql, insert, read, scalar, update


async def test_renewal_extends_held_leases_alone(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A renewal extends held leases by the database's clock; lost leases are missing in the answer."""
    insert(sql, copies=3)
    held, ended, taken = await claim(connection, 3)
    await finish(connection, Outcome.released(ended))
    update(sql, taken.id, workerId="another")
    update(sql, held.id, leaseUntil=Sql("now() - interval '1 second'"))
    assert await renew(connection, fence(held), fence(ended), fence(taken)) == {fence(held)}
    row = read(sql, held.id)
    assert row["leaseUntil"] > row["updatedAt"]
    assert row["status"] == "processing"


async def test_a_silent_workers_job_goes_back_in_line(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A lost lease counts as a retry with an error, and the job is claimed again as the next attempt."""
    insert(sql)
    job = await claim_one(connection)
    await report(connection, (fence(job), 50))
    assert (await sweep(connection)).expired == []
    update(sql, job.id, leaseUntil=Sql("now() - interval '1 second'"))
    seen = await sweep(connection)
    assert seen.expired == [(str(job.id), 1, "queued")]
    row = read(sql, job.id)
    assert (row["status"], row["retryCount"], row["progress"], row["error"]) == ("queued", 1, 0, None)
    assert (row["workerId"], row["leaseUntil"]) == (None, None)
    assert row["errors"][0]["error"].startswith("attempt.lost: ")
    assert (await claim_one(connection)).attempt == 2


async def test_a_job_that_kills_its_workers_fails(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A lost lease at the last attempt fails the job with ``attempt.lost``."""
    insert(sql, maxAttempts=2)
    for attempt in (1, 2):
        job = await claim_one(connection)
        assert job.attempt == attempt
        update(sql, job.id, leaseUntil=Sql("now() - interval '1 second'"))
        await sweep(connection)
    row = read(sql, job.id)
    assert row["status"] == "failed"
    assert row["error"].startswith("attempt.lost: ")
    assert (row["retryCount"], len(row["errors"])) == (1, 2)
    assert row["completedAt"] is not None
    assert await claim(connection) == []


async def test_sweeps_are_bounded_and_tell_that_more_is_due(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A sweep takes back and promotes at most a batch each; the following sweeps do the rest."""
    insert(sql, copies=5)
    await claim(connection, 5)
    sql.execute('UPDATE "VerificationJob" SET "leaseUntil" = now() - interval \'1 second\'')
    insert(sql, copies=5, ready=False)
    counts = []
    for _ in range(4):
        seen = await sweep(connection, batch=2)
        counts.append((len(seen.expired), seen.promoted))
    assert counts == [(2, 2), (2, 2), (1, 1), (0, 0)]
    assert len(await claim(connection)) == 10


async def test_a_sweep_foretells_the_next_event(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A sweep returns the time to the next due job or end of a lease."""
    assert (await sweep(connection)).next_event_seconds is None
    insert(sql, runAt=Sql("now() + interval '1000 seconds'"))
    assert (await sweep(connection)).next_event_seconds == pytest.approx(1000, abs=30)
    insert(sql)
    job = await claim_one(connection)
    update(sql, job.id, leaseUntil=Sql("now() + interval '500 seconds'"))
    seen = await sweep(connection)
    assert seen.next_event_seconds == pytest.approx(500, abs=30)
    assert seen.waiting is False


async def test_a_sweep_passes_over_rows_that_others_hold(
    connection: Any, rival: Any, sql: psycopg.Connection[Any]
) -> None:
    """A sweep neither waits for a renewal in flight nor overrides it."""
    insert(sql)
    job = await claim_one(connection)
    update(sql, job.id, leaseUntil=Sql("now() - interval '1 second'"))
    await connection.set_autocommit(False)
    assert await renew(connection, fence(job)) == {fence(job)}
    assert (await sweep(rival)).expired == []
    await connection.commit()
    assert (await sweep(rival)).expired == []
    assert read(sql, job.id)["status"] == "processing"


@pytest.mark.parametrize("first", ["progress", "priority"])
async def test_a_renewal_waits_for_nobody(
    connection: Any, rival: Any, sql: psycopg.Connection[Any], first: str
) -> None:
    """A locked row keeps its lease, and a renewal of other rows does not wait for the lock."""
    insert(sql, copies=3)
    locked, free, _ = await claim(connection, 3)
    sql.execute('UPDATE "VerificationJob" SET "leaseUntil" = now()')
    await connection.set_autocommit(False)
    if first == "priority":
        await connection.execute('UPDATE "VerificationJob" SET priority = 1 WHERE id = %s', [locked.id])
    else:
        assert await report(connection, (fence(locked), 10)) == {fence(locked)}
    async with asyncio.timeout(10):
        assert await renew(rival, fence(locked), fence(free)) == {fence(locked), fence(free)}
        # The sweep skips the locked row as well, and takes back the row without a renewal.
        assert len((await sweep(rival)).expired) == 1
    await connection.commit()
    assert read(sql, free.id)["leaseUntil"] > read(sql, locked.id)["leaseUntil"]
    assert await renew(rival, fence(locked), fence(free)) == {fence(locked), fence(free)}
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE "leaseUntil" > now()') == 2


async def test_renewals_and_progress_touch_no_index(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Renewals and progress are heap-only updates: no index is touched."""
    insert(sql, copies=50)
    jobs = await claim(connection, 50)
    sql.execute('VACUUM "VerificationJob"')

    def hot_and_all() -> tuple[int, int]:
        for held in (connection, sql):
            held.pgconn.exec_(b"SELECT pg_stat_force_next_flush()")
        row = sql.execute(
            "SELECT pg_stat_get_tuples_hot_updated(c), pg_stat_get_tuples_updated(c)"
            " FROM CAST('\"VerificationJob\"' AS regclass) AS c"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    hot, updated = hot_and_all()
    for percent in range(10, 60, 10):
        await renew(connection, *(fence(job) for job in jobs))
        await report(connection, *((fence(job), percent) for job in jobs))
    hot_now, updated_now = hot_and_all()
    assert updated_now - updated == 500
    # With an index on the changed columns the number would be 0; a full page moves a row elsewhere now and then.
    assert hot_now - hot > 250


async def test_progress_never_goes_back(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """The stored progress of an attempt only grows; a report without the lease writes nothing."""
    insert(sql, copies=2)
    job, other = await claim(connection, 2)
    for percent, stored in ((30, 30), (10, 30), (70, 70)):
        assert await report(connection, (fence(job), percent), (fence(other), 5)) == {fence(job), fence(other)}
        assert read(sql, job.id)["progress"] == stored
    assert await report(connection, (fence(job), 90), worker_id="another") == set()
    assert await report(connection, ((job.id, 2), 90)) == set()
    assert scalar(sql, 'SELECT max(progress) FROM "VerificationJob"') == 70


async def test_a_new_attempt_begins_at_zero(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A new attempt begins with progress 0."""
    insert(sql)
    job = await claim_one(connection)
    await report(connection, (fence(job), 70))
    await finish(connection, Outcome.released(job))
    assert read(sql, job.id)["progress"] == 0
    await claim_one(connection)
    assert read(sql, job.id)["progress"] == 0
