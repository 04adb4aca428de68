"""Jobs that a busy worker has claimed before it has a slot for them, against real Postgres."""

import asyncio
from collections import Counter
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.queue import control
from iidq.queue.job import ClaimedJob
from iidq.queue.notify import channels
from iidq.queue.processing import claim_ahead, standing_by
from iidq.queue.processing.execution import Progress
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import Sql, insert, scalar, statuses, update

SLOTS = 2
# So many short jobs come first.
SHORT = 10
LATER = 3
ALL = SHORT + SLOTS + 1 + LATER


@pytest.fixture
def postgres_kind() -> str:
    """Nothing here hangs on the version."""
    return "embedded"


@pytest.fixture(autouse=True)
def always_a_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a worker claims ahead is a matter of tenths of a second; here it does so once a slot has become free."""
    monkeypatch.setattr(claim_ahead, "_BACKLOG_SECONDS", 0.0)
    monkeypatch.setattr(claim_ahead, "_SHORT_SECONDS", 300.0)


@pytest.fixture
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands by is not given back within the test."""
    monkeypatch.setattr(standing_by, "_PATIENCE_SECONDS", 300.0)


class ShortThenLong:
    """``SHORT`` jobs end at once, all further ones when ``go_on`` is set."""

    def __init__(self) -> None:
        self.begun: Counter[UUID] = Counter()
        self.running = 0
        self.most = 0
        self.go_on = asyncio.Event()

    async def __call__(self, job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        self.begun[job.id] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if len(self.begun) > SHORT:
                await self.go_on.wait()
        finally:
            self.running -= 1
        return {"status": "OK"}


GIVEN_BACK = """
  SELECT array_agg(id) FROM "VerificationJob" WHERE status = 'queued' AND ready AND attempt = 1 AND "retryCount" = 0
"""
NEVER_CLAIMED = """SELECT count(*) FROM "VerificationJob" WHERE attempt = 0"""


async def one_stands_by(sql: psycopg.Connection[Any], handler: ShortThenLong) -> UUID:
    """Wait until all slots are taken by long jobs and another job is claimed; return that one's id."""
    await eventually(
        lambda: (
            statuses(sql) == {"completed": SHORT, "processing": SLOTS + 1, "queued": LATER} and handler.running == SLOTS
        )
    )
    ids = sql.execute("""SELECT id FROM "VerificationJob" WHERE status = 'processing'""").fetchall()
    [waiting] = {job_id for (job_id,) in ids} - set(handler.begun)
    assert isinstance(waiting, UUID)
    return waiting


async def test_the_next_job_is_claimed_before_a_slot_is_free(
    database_url: str, sql: psycopg.Connection[Any], long_patience: None
) -> None:
    """Short jobs do not wait for a claim between them; there are never more running than slots, and each runs once."""
    insert(sql, copies=ALL)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS):
        await one_stands_by(sql, handler)
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": ALL})
    assert handler.most == SLOTS
    assert set(handler.begun.values()) == {1}


async def test_who_stands_by_for_too_long_goes_back(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job behind long ones is soon back in line, uncharged and at its old place, and all workers are told of it."""
    monkeypatch.setattr(standing_by, "_PATIENCE_SECONDS", 0.1)
    sql.execute(f"LISTEN {channels.JOBS_CHANNEL}")
    insert(sql, copies=ALL)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS):
        [waiting] = await eventually(lambda: scalar(sql, GIVEN_BACK))
        assert waiting not in handler.begun
        told: list[str] = []
        async with asyncio.timeout(30):
            while told.count(channels.WAKE_ALL) < 2:
                # One call for the backlog, one for what was given back.
                told += await asyncio.to_thread(lambda: [each.payload for each in sql.notifies(timeout=1)])
        assert scalar(sql, NEVER_CLAIMED) == LATER
        # As long as a job would stand by several times.
        await asyncio.sleep(0.5)
        assert scalar(sql, GIVEN_BACK) == [waiting]
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": ALL})
    assert set(handler.begun.values()) == {1}


async def test_a_drain_gives_back_at_once_what_stands_by(
    database_url: str, sql: psycopg.Connection[Any], long_patience: None
) -> None:
    """A worker that stops lets its running jobs end; an idle one takes over what stood by before that."""
    insert(sql, copies=ALL)
    handler, other = ShortThenLong(), Counter[UUID]()

    async def takes_over(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        other[job.id] += 1
        return {"status": "OK"}

    async with working(database_url, handler, worker_concurrency=SLOTS) as work:
        waiting = await one_stands_by(sql, handler)
        async with working(database_url, takes_over) as idle:
            await eventually(lambda: idle.loop.listener.listening and len(other) == LATER)
            assert waiting not in other
            stopping = asyncio.create_task(work.stop())
            await eventually(lambda: statuses(sql) == {"completed": ALL - SLOTS, "processing": SLOTS})
            handler.go_on.set()
            assert await stopping == 1
    assert statuses(sql) == {"completed": ALL}
    assert (other[waiting], waiting in handler.begun) == (1, False)


async def test_a_job_that_stands_by_can_be_cancelled(
    database_url: str, sql: psycopg.Connection[Any], connection: Any, long_patience: None
) -> None:
    """It never begins, and the others go on."""
    insert(sql, copies=ALL)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS) as work:
        await eventually(lambda: work.loop.listener.listening)
        waiting = await one_stands_by(sql, handler)
        await control.cancel(connection, waiting)
        # Another takes its place: the worker has heard of it.
        await eventually(
            lambda: statuses(sql) == {"completed": SHORT, "processing": SLOTS + 1, "queued": LATER - 1, "cancelled": 1}
        )
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": SHORT + SLOTS + LATER, "cancelled": 1})
    assert waiting not in handler.begun


async def test_a_lost_lease_ends_the_wait(database_url: str, sql: psycopg.Connection[Any], long_patience: None) -> None:
    """What another worker has taken meanwhile never begins here, and makes room for the next."""
    insert(sql, copies=ALL)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS, job_lease_seconds=3):
        waiting = await one_stands_by(sql, handler)
        update(sql, waiting, workerId="another", attempt=2, leaseUntil=Sql("now() + interval '1 hour'"))
        await eventually(lambda: statuses(sql) == {"completed": SHORT, "processing": SLOTS + 2, "queued": LATER - 1})
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": ALL - 1, "processing": 1})
    assert waiting not in handler.begun


async def test_a_handlers_context_is_its_own(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A job that begins as another ends sees nothing of what that one left behind."""
    left_behind = ContextVar("left_behind", default=False)
    seen: set[bool] = set()

    async def leaves_something(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        seen.add(left_behind.get())
        left_behind.set(True)
        await asyncio.sleep(0.01)
        return {"status": "OK"}

    insert(sql, copies=40)
    async with working(database_url, leaves_something, worker_concurrency=SLOTS):
        await eventually(lambda: statuses(sql) == {"completed": 40})
    assert seen == {False}
