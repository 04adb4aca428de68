"""Interruptions and claims at awkward moments, without the loop of a worker."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.pool import Database, open_database
from iidq.queue import store
from iidq.queue.job import ClaimedJob
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.processing.attempts import Attempts
from iidq.queue.processing.execution import Progress
from iidq.settings import Settings
from tests.eventually import eventually
from tests.job_rows import insert, scalar, statuses

WORKER = "test"


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


class Bystander:
    """The attempts of a worker without the loop: the handler notes each job, and ends when ``go_on`` is set.

    Its first job ends in spite of an interruption, once ``give_in`` is set.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self.handled: list[UUID] = []
        self.go_on, self.give_in = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.attempts = Attempts(
            settings,
            database,
            self._handle,
            WORKER,
            changes=ChangeAnnouncer(database),
            freed=lambda: None,
            stored=lambda _job, _outcome: None,
        )

    async def claim(self) -> list[ClaimedJob]:
        async with self._database.connection() as connection:
            return (await store.claim(connection, worker_id=WORKER, slots=3, lease_seconds=30.0)).jobs

    async def _handle(self, job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        self.handled.append(job.id)
        number = len(self.handled)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            if number > 1:
                raise
            await self.give_in.wait()
        return {"number": number}


@pytest.fixture
async def bystander(database_url: str) -> AsyncIterator[Bystander]:
    settings = Settings(database_url=database_url)
    async with open_database(settings, pool_size=2, sorts=False) as database:
        yield Bystander(settings, database)


async def test_a_job_cancelled_as_it_begins_frees_its_slot(bystander: Bystander, sql: psycopg.Connection[Any]) -> None:
    """A job cancelled as it begins is never run, and its slot is free again."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.attempts.start([job])
    bystander.attempts.cancel(job.id)
    await eventually(lambda: bystander.attempts.executing == 0)
    assert (bystander.handled, dict(bystander.attempts.held)) == ([], {})


async def test_what_is_claimed_during_a_drain_goes_back(bystander: Bystander, sql: psycopg.Connection[Any]) -> None:
    """A job claimed by a draining worker is released without a start."""
    insert(sql, copies=2)
    jobs = await bystander.claim()
    assert await bystander.attempts.drain(3600, asyncio.Event()) == 0
    bystander.attempts.start(jobs)
    await eventually(lambda: statuses(sql) == {"queued": 2})
    assert bystander.handled == []


async def test_a_claim_that_a_crash_undid_and_that_was_made_again_is_kept(
    bystander: Bystander, sql: psycopg.Connection[Any]
) -> None:
    """A job claimed twice after a crash of the database runs once, despite the late loss of the first claim."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.attempts.start([job])
    bystander.attempts.start([job])
    bystander.attempts.lose({(job.id, job.attempt)})
    await eventually(lambda: statuses(sql) == {"completed": 1})
    assert bystander.handled == [job.id]
    await eventually(lambda: bystander.attempts.executing == 0 and not bystander.attempts.held)


async def test_a_lost_attempt_that_ends_late_leaves_its_successor_alone(
    bystander: Bystander, sql: psycopg.Connection[Any]
) -> None:
    """An attempt claimed again after a crash of the database keeps its lease, and its second result is stored."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.go_on.clear()
    bystander.attempts.start([job])
    await eventually(lambda: len(bystander.handled) == 1)
    bystander.attempts.lose({(job.id, job.attempt)})
    bystander.attempts.start([job])
    await eventually(lambda: len(bystander.handled) == 2)
    bystander.give_in.set()
    await eventually(lambda: bystander.attempts.executing == 1)
    assert len(bystander.attempts.held) == 1
    bystander.go_on.set()
    await eventually(lambda: statuses(sql) == {"completed": 1})
    assert scalar(sql, """SELECT result ->> 'number' FROM "VerificationJob" """) == "2"


async def test_a_second_loss_counts(bystander: Bystander, sql: psycopg.Connection[Any]) -> None:
    """An attempt claimed twice survives one loss; a second loss ends the attempt."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.go_on.clear()
    bystander.give_in.set()
    bystander.attempts.start([job])
    bystander.attempts.start([job])
    await eventually(lambda: len(bystander.handled) == 1)
    bystander.attempts.lose({(job.id, job.attempt)})
    assert bystander.attempts.executing == 1
    bystander.attempts.lose({(job.id, job.attempt)})
    await eventually(lambda: bystander.attempts.executing == 0 and not bystander.attempts.held)
    assert statuses(sql) == {"processing": 1}
