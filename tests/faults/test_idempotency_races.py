"""Many callers with one key at the same moment, in several processes' pools: one job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.errors import IdempotencyConflict
from iidq.queue.enqueuer import Enqueuer, open_enqueuer
from iidq.queue.job import SHARED, IdempotencyKey, NewJob
from iidq.settings import load_settings
from tests.job_rows import Sql, new_job, scalar, statuses, update

REQUEST = b"f" * 32
OTHER_REQUEST = b"g" * 32


def keyed(key: str = "k", *, scope: str = "caller", fingerprint: bytes = REQUEST) -> NewJob:
    """Return a job under a key."""
    return new_job(key=IdempotencyKey(scope, key, fingerprint))


@pytest.fixture
def sql(database_url: str) -> Any:
    """A connection as in psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def enqueuers(database_url: str) -> AsyncIterator[list[Enqueuer]]:
    """Eight enqueuers with separate pools, as in eight API processes, for real races of statements."""
    settings = load_settings(database_url=database_url)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_enqueuer(await stack.enter_async_context(open_database(settings, pool_size=2)), settings)
            )
            for _ in range(8)
        ]


async def ask_at_once(enqueuers: list[Enqueuer], jobs: list[NewJob]) -> list[UUID | BaseException]:
    """Enqueue all jobs at the same moment, spread over the enqueuers."""
    async with asyncio.timeout(30):
        return await asyncio.gather(
            *(enqueuers[number % len(enqueuers)].enqueue(job) for number, job in enumerate(jobs)),
            return_exceptions=True,
        )


async def test_fifty_requests_with_one_key_make_one_job(
    enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]
) -> None:
    """Fifty requests with one key at the same moment get the same job."""
    for number in range(10):
        answers = await ask_at_once(enqueuers, [keyed(f"k{number}") for _ in range(50)])
        assert len(set(answers)) == 1, answers
        assert statuses(sql) == {"queued": number + 1}
    assert (
        scalar(sql, 'SELECT count(*) FROM iidq_idempotency_key AS known JOIN "VerificationJob" ON id = known."jobId"')
        == 10
    )


async def test_another_request_under_the_key_is_refused(
    enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]
) -> None:
    """Of two different requests in a race for one key, one gets the job; all callers of the other get a conflict."""
    for number in range(10):
        jobs = [keyed(f"k{number}", fingerprint=(REQUEST, OTHER_REQUEST)[n % 2]) for n in range(20)]
        answers = await ask_at_once(enqueuers, jobs)
        ids = [answer for answer in answers if isinstance(answer, UUID)]
        refused = [answer for answer in answers if isinstance(answer, IdempotencyConflict)]
        assert (len(ids), len(set(ids)), len(refused)) == (10, 1, 10), answers
        assert statuses(sql) == {"queued": number + 1}


async def test_keys_taken_in_opposite_orders_do_not_deadlock(
    enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]
) -> None:
    """Batches with the same keys in opposite orders do not deadlock, and make one job per key."""
    keys = [f"k{number}" for number in range(40)]
    answers = await ask_at_once(enqueuers, [keyed(key) for key in keys * 2 + keys[::-1] * 2])
    assert len({answer for answer in answers if isinstance(answer, UUID)}) == 40
    assert not [answer for answer in answers if not isinstance(answer, UUID)]
    assert statuses(sql) == {"queued": 40}


async def test_an_expired_key_is_free_again(enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]) -> None:
    """An expired key makes one new job for all its callers, also for another request."""
    [first] = await ask_at_once(enqueuers, [keyed()])
    sql.execute("UPDATE iidq_idempotency_key SET \"expiresAt\" = now() - interval '1 second'")
    answers = await ask_at_once(enqueuers, [keyed(fingerprint=OTHER_REQUEST) for _ in range(50)])
    assert len(set(answers)) == 1
    assert first not in answers
    assert statuses(sql) == {"queued": 2}


async def test_a_shared_request_makes_one_job_at_a_time(
    enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]
) -> None:
    """Shared requests get the waiting or running job; after its end, together they get one new job."""
    seen: set[UUID] = set()
    for number in range(10):
        answers = await ask_at_once(enqueuers, [keyed(scope=SHARED) for _ in range(50)])
        assert len(set(answers)) == 1, answers
        [job_id] = set(answers)
        assert isinstance(job_id, UUID)
        assert job_id not in seen
        seen.add(job_id)
        assert statuses(sql).get("queued") == 1
        assert set(await ask_at_once(enqueuers, [keyed(scope=SHARED) for _ in range(3)])) == {job_id}
        end: dict[str, Any] = {"status": "cancelled", "ready": False, "completedAt": Sql("now()")}
        update(sql, job_id, **end)
        assert statuses(sql) == {"cancelled": number + 1}


async def test_a_key_does_not_outlive_its_job(enqueuers: list[Enqueuer], sql: psycopg.Connection[Any]) -> None:
    """After removal of a key's job the same request makes one new job."""
    gone = await enqueuers[0].enqueue(keyed())
    sql.execute('DELETE FROM "VerificationJob"')
    again = await ask_at_once(enqueuers, [keyed() for _ in range(8)])
    assert len(set(again)) == 1
    assert gone not in again
    assert scalar(sql, 'SELECT id FROM "VerificationJob"') == again[0]
