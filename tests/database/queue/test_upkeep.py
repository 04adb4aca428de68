"""Upkeep: by one worker at a time, in bounded steps, without locked rows, and without blocking others."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs

from iidq.database import pool as databases
from iidq.database.pool import open_database
from iidq.database.queries import load_queries
from iidq.queue import control, store, upkeep
from iidq.queue.enqueuer import KEY_LIFETIME_SECONDS, open_enqueuer
from iidq.queue.job import ClaimedJob, IdempotencyKey
from iidq.queue.outcome import Outcome
from iidq.queue.processing.execution import Progress
from iidq.queue.read import queue_health
from iidq.queue.upkeep import Retention
from iidq.settings import Settings, load_settings
from tests.database.attempts import claim, finish, sweep
from tests.database.queue.test_operator_sql import counted
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import COMPLETED, PROCESSING, QUEUED, Sql, insert, new_job, scalar, statuses

QUERIES = load_queries("iidq.queue")

LONG_AGO = Sql("now() - interval '60 days'")
ENOUGH_SECONDS = 10


def leave_work_for_upkeep(sql: psycopg.Connection[Any]) -> tuple[UUID, UUID]:
    """Insert a job with a lapsed lease and a due retry."""
    lost = insert(sql, PROCESSING, leaseUntil=Sql("now() - interval '1 second'"))
    due = insert(sql, QUEUED, ready=False)
    return lost, due


async def test_upkeep_is_done_by_one_and_taken_over_by_another(
    connection: Any, rival: Any, sql: psycopg.Connection[Any]
) -> None:
    """Upkeep is done by one worker at a time; another takes over after the first is gone."""
    await connection.set_autocommit(False)
    await sweep(connection, worker_id="one")
    leave_work_for_upkeep(sql)
    async with asyncio.timeout(ENOUGH_SECONDS):
        seen = await sweep(rival, worker_id="two")
        assert (seen.expired, seen.promoted) == ([], 0)
        # The worker is still shown as alive.
        assert scalar(sql, "SELECT array_agg(worker_id) FROM queue_workers") == ["two"]
        # As when the first is killed in the middle.
        await connection.close()
        while not seen.expired:
            seen = await sweep(rival, worker_id="two")
    assert (len(seen.expired), seen.promoted) == (1, 1)


async def test_a_pause_that_is_not_committed_holds_nobody_up(rival: Any, sql: psycopg.Connection[Any]) -> None:
    """A forgotten transaction after resume_queue does not hold up retries and lost jobs."""
    leave_work_for_upkeep(sql)
    with sql.transaction():
        sql.execute("SELECT resume_queue()")
        async with asyncio.timeout(ENOUGH_SECONDS):
            seen = await sweep(rival)
        assert (len(seen.expired), seen.promoted) == (1, 1)
    assert scalar(sql, "SELECT upkeep_at FROM queue_health") is None
    await sweep(rival)
    assert scalar(sql, "SELECT upkeep_at FROM queue_health") is not None


async def test_counts_are_folded_in_bounded_steps(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Each sweep folds a bounded number of counts, and the totals stay right."""
    insert(sql, copies=700)
    sql.execute("UPDATE \"VerificationJob\" SET \"runAt\" = now() + interval '1 hour' WHERE type = 'verify'")
    rows = int(scalar(sql, "SELECT count(*) FROM iidq_queue_count"))
    assert rows >= 1400
    while rows > 200:
        await sweep(connection, batch=20)
        left = int(scalar(sql, "SELECT count(*) FROM iidq_queue_count"))
        assert rows - 20 * 20 <= left < rows
        rows = left
        kept, real = counted(sql)
        assert kept == real
    assert scalar(sql, "SELECT sum(enqueued) FROM queue_throughput") == 700


async def test_expired_keys_are_removed_and_no_others(
    connection: Any, settings: Settings, sql: psycopg.Connection[Any]
) -> None:
    """A key lasts a day by the database's clock; upkeep removes expired keys only, in bounded batches."""
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        for number in range(5):
            await enqueuer.enqueue(new_job(key=IdempotencyKey("caller", f"k{number}", b"f" * 32)))
    lasts = """SELECT bool_and("expiresAt" BETWEEN now() + make_interval(secs => %s - 300)
                                               AND now() + make_interval(secs => %s)) FROM iidq_idempotency_key"""
    assert scalar(sql, lasts, KEY_LIFETIME_SECONDS, KEY_LIFETIME_SECONDS) is True
    sql.execute("UPDATE iidq_idempotency_key SET \"expiresAt\" = now() - interval '1 second' WHERE key < 'k3'")
    left = []
    for _ in range(3):
        await sweep(connection, batch=2)
        left.append(scalar(sql, "SELECT count(*) FROM iidq_idempotency_key"))
    assert left == [3, 2, 2]
    # The jobs stay.
    assert statuses(sql) == {"queued": 5}


async def test_upkeep_under_way_blocks_no_work(connection: Any, rival: Any, sql: psycopg.Connection[Any]) -> None:
    """Jobs are enqueued, claimed, ended, cancelled and counted without waiting while a purge and a sweep are open."""
    insert(sql, COMPLETED, copies=50, createdAt=LONG_AGO, completedAt=LONG_AGO)
    insert(sql, copies=5)
    leave_work_for_upkeep(sql)
    await connection.set_autocommit(False)
    removed, _ = await upkeep.purge(connection, completed_seconds=1.0, failed_seconds=1.0, batch=40)
    removed_in_excess, _ = await upkeep.purge_excess(connection, keep=5, batch=40)
    seen = await sweep(connection, worker_id="one")
    assert (removed, removed_in_excess, len(seen.expired), seen.promoted) == (40, 5, 1, 1)

    sql.execute("SET lock_timeout = '10s'")
    async with asyncio.timeout(ENOUGH_SECONDS):
        await store.enqueue(rival, [new_job()], max_attempts=3)
        jobs = await claim(rival, 100)
        assert len(jobs) == 6
        assert len(await finish(rival, *(Outcome.completed(job, {"status": "OK"}) for job in jobs))) == 6
        assert await control.cancel(rival, insert(sql)) is True
        assert (await queue_health.read_health(rival)).completed == 56
    await connection.commit()
    kept, real = counted(sql)
    assert kept == real


async def test_one_worker_at_a_time_removes_old_jobs(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """One worker at a time removes old jobs; the others come back later."""
    insert(sql, COMPLETED, createdAt=LONG_AGO, completedAt=LONG_AGO)
    retention = Retention(settings)
    async with open_database(settings, pool_size=1) as database:
        with sql.transaction():
            sql.execute("SELECT pg_advisory_xact_lock(hashtext('iidq.retention public'))")
            async with asyncio.timeout(ENOUGH_SECONDS):
                assert await retention.purge(database) > 20
        assert statuses(sql) == {"completed": 1}
        await retention.purge(database)
    assert statuses(sql) == {}


async def test_workers_that_clean_at_once_keep_what_is_to_be_kept(
    connection: Any, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """``RETENTION_COMPLETED_COUNT`` jobs are left, also when two workers remove the excess at the same moment."""
    insert(sql, COMPLETED, copies=90)
    await connection.set_autocommit(False)
    await connection.execute(QUERIES["lock_retention"])
    assert (await upkeep.purge_excess(connection, keep=60, batch=1000))[0] == 30
    settings = load_settings(database_url=database_url, retention_completed_count=60)
    async with open_database(settings, pool_size=1) as database:
        await Retention(settings).purge(database)
        await connection.commit()
        assert statuses(sql) == {"completed": 60}
        await Retention(settings).purge(database)
    assert statuses(sql) == {"completed": 60}


async def test_a_long_count_keeps_no_sweep(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow recount holds up no sweep and no job, and causes no error."""

    async def succeed(_job: ClaimedJob, _progress: Progress) -> dict[str, Any]:
        return {"status": "OK"}

    monkeypatch.setattr(databases, "ANSWER_SECONDS", 0.5)
    sql.execute("""
        ALTER FUNCTION iidq_recount_queue() RENAME TO count_at_last;
        CREATE TABLE gate ();
        CREATE FUNCTION iidq_recount_queue() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
          LOCK TABLE gate IN ACCESS SHARE MODE; PERFORM count_at_last(); END $$""")
    sql.execute('DELETE FROM iidq_queue_count; UPDATE iidq_queue_control SET "countedAt" = NULL')
    with capture_logs() as logged, psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE gate IN ACCESS EXCLUSIVE MODE")
        async with working(database_url, succeed, poll_interval_seconds=0.1):
            waits = """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND now() - query_start > interval '1 second')"""
            await eventually(lambda: scalar(sql, waits))
            insert(sql)
            await eventually(lambda: statuses(sql) == {"completed": 1})
            other.rollback()
            await eventually(lambda: scalar(sql, 'SELECT "countedAt" IS NOT NULL FROM iidq_queue_control'))
    assert scalar(sql, "SELECT completed FROM queue_health") == 1
    assert [line for line in logged if line["event"] in ("database.lost", "database.refuses")] == []
