"""Attempts that are interrupted before they have taken their first step give back what they hold."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database import Database, open_database
from iidq.queue import store
from iidq.queue.attempts import Attempts
from iidq.queue.changes import ChangeAnnouncer
from iidq.queue.claim_ahead import ClaimAhead
from iidq.queue.execution import Progress
from iidq.queue.job import ClaimedJob
from iidq.settings import Settings
from tests.eventually import eventually
from tests.job_rows import insert, statuses

WORKER = "test"


@pytest.fixture
def postgres_kind() -> str:
    """Nothing here hangs on the version."""
    return "embedded"


class Bystander:
    """A worker's attempts without its loop: the handler notes what it is given."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self.handled: list[UUID] = []
        self.attempts = Attempts(
            settings,
            database,
            self._handle,
            WORKER,
            changes=ChangeAnnouncer(database),
            ahead=ClaimAhead(settings.worker_concurrency),
            freed=lambda: None,
            back_in_line=lambda _seconds: None,
            callback_due=lambda: None,
        )

    async def claim(self) -> list[ClaimedJob]:
        async with self._database.connection() as connection:
            return (await store.claim(connection, worker_id=WORKER, slots=3, lease_seconds=30.0)).jobs

    async def _handle(self, job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        self.handled.append(job.id)
        return {"status": "OK"}


@pytest.fixture
async def bystander(database_url: str) -> AsyncIterator[Bystander]:
    settings = Settings(database_url=database_url)
    async with open_database(settings, pool_size=2, sorts=False) as database:
        yield Bystander(settings, database)


async def test_a_job_cancelled_as_it_begins_frees_its_slot(bystander: Bystander, sql: psycopg.Connection[Any]) -> None:
    """Its handler is never called, and the slot is not taken for ever."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.attempts.start([job])
    bystander.attempts.cancel(job.id)
    await eventually(lambda: bystander.attempts.executing == 0)
    assert (bystander.handled, dict(bystander.attempts.held)) == ([], {})


async def test_what_is_claimed_during_a_drain_goes_back(bystander: Bystander, sql: psycopg.Connection[Any]) -> None:
    """A job that comes into a worker that is ending does not begin there."""
    insert(sql, copies=2)
    jobs = await bystander.claim()
    assert await bystander.attempts.drain(3600, asyncio.Event()) == 0
    bystander.attempts.start(jobs)
    await eventually(lambda: statuses(sql) == {"queued": 2})
    assert bystander.handled == []


async def test_a_claim_that_a_crash_undid_and_that_was_made_again_is_kept(
    bystander: Bystander, sql: psycopg.Connection[Any]
) -> None:
    """That the first of two claims of the same attempt is gone comes to light late: the second one's job runs."""
    insert(sql)
    [job] = await bystander.claim()
    bystander.attempts.start([job])
    bystander.attempts.start([job])
    bystander.attempts.lose({(job.id, job.attempt)})
    await eventually(lambda: statuses(sql) == {"completed": 1})
    assert bystander.handled == [job.id]
    await eventually(lambda: bystander.attempts.executing == 0 and not bystander.attempts.held)
