"""Jobs that a busy worker has claimed before it has a slot for them, against real Postgres."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.queue import announcements, attempts, steering
from iidq.queue.execution import Progress
from iidq.queue.job import ClaimedJob
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import insert, read, statuses

SLOTS = 2
# So many short jobs come first that the worker sees a backlog of short jobs, and one more stands by.
SHORT = 40
LATER = 3


@pytest.fixture
def postgres_kind() -> str:
    """Nothing here hangs on the version."""
    return "embedded"


@pytest.fixture
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands by is not given back within the test."""
    monkeypatch.setattr(attempts, "_PATIENCE_SECONDS", 300.0)


class ShortThenLong:
    """A handler of ``SHORT`` jobs of 10 ms; all further ones end when ``go_on`` is set."""

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
            if len(self.begun) <= SHORT:
                await asyncio.sleep(0.01)
            else:
                await self.go_on.wait()
        finally:
            self.running -= 1
        return {"status": "OK"}


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
    insert(sql, copies=SHORT + SLOTS + 1 + LATER)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS):
        await one_stands_by(sql, handler)
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": SHORT + SLOTS + 1 + LATER})
    assert handler.most == SLOTS
    assert set(handler.begun.values()) == {1}


async def test_who_stands_by_for_too_long_goes_back(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job behind long ones is soon back in line, uncharged, and all workers are told of it."""
    # Long enough to be seen standing by.
    monkeypatch.setattr(attempts, "_PATIENCE_SECONDS", 2.0)
    insert(sql, copies=SHORT + SLOTS + 1 + LATER)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS):
        waiting = await one_stands_by(sql, handler)
        sql.execute(f"LISTEN {announcements.JOBS_CHANNEL}")
        told = await asyncio.to_thread(lambda: [each.payload for each in sql.notifies(timeout=15, stop_after=1)])
        assert told == [announcements.TO_ALL]
        row = read(sql, waiting)
        assert (row["status"], row["ready"], row["attempt"], row["retryCount"]) == ("queued", True, 1, 0)
        assert handler.running == SLOTS
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": SHORT + SLOTS + 1 + LATER})
    assert set(handler.begun.values()) == {1}


async def test_a_drain_gives_back_at_once_what_stands_by(
    database_url: str, sql: psycopg.Connection[Any], long_patience: None
) -> None:
    """A worker that stops lets its running jobs end; the one that stands by is another's before that."""
    insert(sql, copies=SHORT + SLOTS + 1 + LATER)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS) as work:
        waiting = await one_stands_by(sql, handler)
        stopping = asyncio.create_task(work.stop())
        await eventually(lambda: statuses(sql) == {"completed": SHORT, "processing": SLOTS, "queued": LATER + 1})
        handler.go_on.set()
        assert await stopping == 0
    assert statuses(sql) == {"completed": SHORT + SLOTS, "queued": LATER + 1}
    assert waiting not in handler.begun


async def test_a_job_that_stands_by_can_be_cancelled(
    database_url: str, sql: psycopg.Connection[Any], connection: Any, long_patience: None
) -> None:
    """It never begins, and the others go on."""
    insert(sql, copies=SHORT + SLOTS + 1 + LATER)
    handler = ShortThenLong()
    async with working(database_url, handler, worker_concurrency=SLOTS) as work:
        await eventually(lambda: work.loop.listener.listening)
        waiting = await one_stands_by(sql, handler)
        await steering.cancel(connection, waiting)
        # Another takes its place: the worker has heard of it.
        await eventually(
            lambda: statuses(sql) == {"completed": SHORT, "processing": SLOTS + 1, "queued": LATER - 1, "cancelled": 1}
        )
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": SHORT + SLOTS + LATER, "cancelled": 1})
    assert waiting not in handler.begun
