"""Reads of one job, of the list with filters and pages, and of the counts."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from iidq.queue.job import Job, JobStatus, JobType
from iidq.queue.outcome import Outcome
from iidq.queue.read import queue_health, readers
from iidq.queue.read.paging import Cursor
from iidq.queue.read.readers import REACH
from tests.database.attempts import claim, claim_one, finish, sweep
from tests.job_rows import CANCELLED, COMPLETED, CONTENT_HASH, FAILED, PROCESSING, QUEUED, Sql, insert, update

OTHER_HASH = "0x" + "cd" * 32


async def test_find(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A job is found by its id with all fields; an unknown id gives None."""
    job_id = insert(sql, FAILED, rpcUrl="https://x.example")
    job = await readers.find(connection, job_id)
    assert isinstance(job, Job)
    assert (job.id, job.status, job.error, job.subject.rpc_url) == (
        job_id,
        JobStatus.FAILED,
        FAILED["error"],
        "https://x.example",
    )
    assert (job.result, job.errors, job.started_at) == (None, [], None)
    assert job.completed_at is not None
    assert await readers.find(connection, uuid4()) is None


@pytest.fixture
def mixed(sql: psycopg.Connection[Any]) -> list[tuple[UUID, dict[str, Any]]]:
    """Jobs of every status and type and of two contents, oldest first."""
    rows = []
    for number in range(36):
        base = (QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED, {**QUEUED, "ready": False})[number % 6]
        row = {
            **base,
            "type": ("verify", "proof")[number // 6 % 2],
            "contentHash": (CONTENT_HASH, OTHER_HASH)[number % 5 % 2],
        }
        rows.append((insert(sql, row, createdAt=datetime(2024, 1, 1, 0, number, tzinfo=UTC)), row))
    return rows


async def _follow(connection: Any, limit: int, **asked: Any) -> list[UUID]:
    """Return all jobs of a list, page by page; a page without jobs may have a next page."""
    seen: list[UUID] = []
    page = await readers.list_jobs(connection, limit=limit, **asked)
    while True:
        assert len(page.jobs) <= limit
        seen += [job.id for job in page.jobs]
        if page.next is None:
            return seen
        after = Cursor.decode(page.next.encode())
        assert after == page.next
        page = await readers.list_jobs(connection, limit=limit, **{**asked, "offset": 0, "after": after})


async def _check_filters(
    connection: Any,
    mixed: list[tuple[UUID, dict[str, Any]]],
    reach: int,
    status: JobStatus | None,
    type: JobType | None,  # noqa: A002
    content_hash: str | None,
) -> None:
    expected = [
        job_id
        for job_id, row in reversed(mixed)
        if (status is None or row.get("status", "queued") == status)
        and (type is None or row["type"] == type)
        and (content_hash is None or row["contentHash"] == content_hash)
    ]
    asked: dict[str, Any] = {"status": status, "type": type, "content_hash": content_hash, "reach": reach}
    for limit in (4, 500):
        assert await _follow(connection, limit, **asked) == expected
    for offset in (2, len(expected), 2**31 - 1):
        assert await _follow(connection, 3, offset=offset, **asked) == expected[offset:]


@pytest.mark.parametrize("reach", [2, 9, REACH])
async def test_filters_pages_and_offsets_in_every_combination(
    connection: Any, mixed: list[tuple[UUID, dict[str, Any]]], reach: int
) -> None:
    """A list is newest first, with exactly the jobs under all filters; pages join without gap or repetition.

    Also with a short reach, when pages end before their list.
    """
    # With a short reach each list has hundreds of pages: only some values of the filters are tried.
    hashes = (None, CONTENT_HASH, OTHER_HASH, "0x" + "0" * 64) if reach > 2 else (None, CONTENT_HASH)
    for status in (None, *JobStatus):
        for kind in (None, *JobType) if reach > 2 else (None, JobType.PROOF):
            for content_hash in hashes:
                await _check_filters(connection, mixed, reach, status, kind, content_hash)


async def test_one_contents_jobs_of_many_days_in_order(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A content's jobs are newest first for any page size, across spans of the index and next to a similar hash."""
    newest = datetime(2024, 1, 1, 3, tzinfo=UTC)
    ids = []
    for hours in (0, 1, 5, 5, 5, 6, 7, 30, 31, 24 * 40, 24 * 40 + 1, 24 * 4000):
        insert(sql, COMPLETED, contentHash=CONTENT_HASH[:20] + "0" * 46, createdAt=newest - timedelta(hours=hours))
        ids.append((newest - timedelta(hours=hours), insert(sql, COMPLETED, createdAt=newest - timedelta(hours=hours))))
    ids.append((newest - timedelta(hours=8), insert(sql, createdAt=newest - timedelta(hours=8))))
    ids.sort(reverse=True)
    expected = [job_id for _, job_id in ids]
    # A reach of 4 and 12 rows: one span per page, three spans, and one span with more rows than the reach.
    for limit, reach in itertools.product((1, 3, 100), (4, 12, REACH)):
        assert await _follow(connection, limit, content_hash=CONTENT_HASH, reach=reach) == expected
    for offset in (0, 5, 32_767, 2**31 - 1):
        jobs = (await readers.list_jobs(connection, limit=500, offset=offset, content_hash=CONTENT_HASH)).jobs
        assert [job.id for job in jobs] == expected[offset:]


async def test_pages_are_stable_under_inserts(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Jobs inserted during paging do not shift the later pages."""
    ids = [insert(sql) for _ in range(10)]
    page = await readers.list_jobs(connection, limit=3)
    seen = [job.id for job in page.jobs]
    while page.next is not None:
        insert(sql, copies=5)
        page = await readers.list_jobs(connection, limit=3, after=page.next)
        seen += [job.id for job in page.jobs]
    assert seen == ids[::-1]


async def test_pages_split_jobs_of_one_moment(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Jobs created at the same instant are ordered by id."""
    insert(sql, copies=25, createdAt=datetime(2024, 1, 1, 12, 0, 0, 123457, tzinfo=UTC))
    seen = await _follow(connection, 4)
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen, reverse=True)


async def test_counts_follow_every_transition(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """Each job is counted in its state through claims, ends, sweeps and plain SQL."""
    assert await _counts(connection) == (0, 0, 0, 0, 0, 0)
    insert(sql, copies=6)
    insert(sql, copies=2, runAt=Sql("now() + interval '1 hour'"))
    assert await _counts(connection) == (6, 2, 0, 0, 0, 0)
    done, failed, retried, released, kept = await claim(connection, 5)
    assert await _counts(connection) == (1, 2, 5, 0, 0, 0)
    await finish(
        connection,
        Outcome.completed(done, {}),
        Outcome.failed(failed, "a: b"),
        Outcome.retried(retried, "a: b", 3000.0),
        Outcome.released(released),
    )
    assert await _counts(connection) == (2, 3, 1, 1, 1, 0)
    update(sql, kept.id, leaseUntil=Sql("now() - interval '1 second'"))
    update(sql, retried.id, runAt=Sql("now()"))
    await sweep(connection)
    assert await _counts(connection) == (4, 2, 0, 1, 1, 0)
    sql.execute('DELETE FROM "VerificationJob" WHERE "completedAt" IS NOT NULL')
    assert await _counts(connection) == (4, 2, 0, 0, 0, 0)
    counts = await queue_health.read_health(connection)
    assert counts.oldest_waiting_seconds is not None
    assert counts.oldest_waiting_seconds >= 0


async def test_counts_of_an_idle_queue(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A queue without waiting jobs has no oldest waiting time."""
    insert(sql, COMPLETED, copies=3)
    counts = await queue_health.read_health(connection)
    assert (counts.completed, counts.oldest_waiting_seconds) == (3, None)
    insert(sql)
    await claim_one(connection)
    assert (await queue_health.read_health(connection)).oldest_waiting_seconds is None


async def _counts(connection: Any) -> tuple[int, ...]:
    counts = await queue_health.read_health(connection)
    return (counts.waiting, counts.delayed, counts.active, counts.completed, counts.failed, counts.cancelled)
