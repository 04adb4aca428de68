"""A drain: no more claims, running jobs may end, the rest is released uncharged."""

import asyncio
from typing import Any

import psycopg
import pytest

from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from tests.database.processing.test_work_loop import Executions
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import insert, scalar, statuses


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


async def test_an_idle_worker_stops_at_once(database_url: str) -> None:
    """An idle worker stops at once."""
    async with working(database_url, Executions()) as work:
        await eventually(lambda: work.loop.listener.listening)
        assert await work.stop() == 0


async def test_running_jobs_may_end(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A drain waits for running jobs and claims nothing more."""
    insert(sql, copies=6)
    handler = Executions(waits=True)
    async with working(database_url, handler, worker_concurrency=2) as work:
        await eventually(lambda: handler.running == 2)
        stopping = asyncio.create_task(work.stop())
        await asyncio.sleep(0)
        insert(sql)
        handler.go_on.set()
        assert await stopping == 0
    assert statuses(sql) == {"completed": 2, "queued": 5}


async def test_jobs_that_do_not_end_in_time_go_back_uncharged(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """At the drain's deadline unfinished jobs are released: in line at once and uncharged."""
    insert(sql, copies=3)
    handler = Executions(waits=True)
    async with working(database_url, handler, worker_concurrency=2, drain_timeout_seconds=0.1) as work:
        await eventually(lambda: handler.running == 2)
        assert await work.stop() == 2
    assert len(handler.interrupted) == 2
    assert statuses(sql) == {"queued": 3}
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE ready AND "retryCount" = 0 AND error IS NULL') == 3
    assert scalar(sql, 'SELECT max(jsonb_array_length(errors)) FROM "VerificationJob"') == 0


async def test_a_second_stop_hurries(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A second stop releases the jobs before the drain's deadline, and the next worker runs the jobs."""
    insert(sql, copies=2)
    handler = Executions(waits=True)
    async with working(database_url, handler, drain_timeout_seconds=3600) as work:
        await eventually(lambda: handler.running == 2)
        assert await work.stop(hurry=True) == 2
    assert statuses(sql) == {"queued": 2}
    async with working(database_url, Executions()):
        await eventually(lambda: statuses(sql) == {"completed": 2})
    assert scalar(sql, 'SELECT max("retryCount") FROM "VerificationJob"') == 0


async def test_a_drain_that_comes_during_a_long_lease_keeps_it(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Leases are renewed during a drain, so that no other worker takes the jobs."""
    job = insert(sql)
    handler = Executions(waits=True)
    async with working(database_url, handler, job_lease_seconds=0.5) as work:
        await eventually(lambda: handler.running == 1)
        first = scalar(sql, 'SELECT "leaseUntil" FROM "VerificationJob" WHERE id = %s', job)
        stopping = asyncio.create_task(work.stop())
        await eventually(lambda: scalar(sql, 'SELECT "leaseUntil" > %s FROM "VerificationJob"', first))
        await eventually(lambda: scalar(sql, "SELECT now() > %s", first))
        handler.go_on.set()
        assert await stopping == 0
    assert statuses(sql) == {"completed": 1}
    assert scalar(sql, 'SELECT "retryCount" FROM "VerificationJob"') == 0


async def test_cleaning_up_past_the_deadline_is_not_charged(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A job interrupted by the drain is released uncharged, even if the handler then outlasts the job's deadline."""
    insert(sql)
    began, timed_out = asyncio.Event(), asyncio.Event()

    async def slow_to_leave(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            try:
                # Cut short by the deadline.
                await asyncio.sleep(4)
            finally:
                timed_out.set()
        return {}

    async with working(database_url, slow_to_leave, job_timeout_seconds=1, drain_timeout_seconds=0.1) as work:
        await began.wait()
        assert await work.stop() == 1
    assert timed_out.is_set()
    assert statuses(sql) == {"queued": 1}
    assert scalar(sql, 'SELECT "retryCount" FROM "VerificationJob"') == 0
