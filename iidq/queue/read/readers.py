"""What is read of the queue: one job, those that changed, a list, the counts, and what the database is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from iidq.database.pool import Connection
from iidq.database.queries import QUERIES
from iidq.queue.job import Job, JobStatus, JobType, QueueCounts
from iidq.queue.read.job_pages import REACH, Filter, find_page
from iidq.queue.read.paging import Cursor
from iidq.subject import Subject

# Id, version of the row, the job; the latter two are None where there is no such job.
Changed = tuple[str, str | None, Job | None]


async def find_changed(connection: Connection, seen: Mapping[str, str]) -> list[Changed]:
    """Of these jobs (id → version seen last, empty for none), those that are another version now.

    Each with its version and the job; both are None where there is no such job.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find_changed"], {"seen": json.dumps(seen)})
        return [(row["watched"], row["version"], _job(row) if row["id"] else None) for row in await cursor.fetchall()]


async def find(connection: Connection, job_id: UUID) -> Job | None:
    """The job, or None where there is none of that id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find"], {"id": job_id})
        row = await cursor.fetchone()
    return _job(row) if row else None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first, and where the next page begins; None on the last one."""

    jobs: list[Job]
    next: Cursor | None


async def list_jobs(
    connection: Connection,
    *,
    limit: int,
    offset: int = 0,
    status: JobStatus | None = None,
    type: JobType | None = None,  # noqa: A002 — the column's own name
    content_hash: str | None = None,
    after: Cursor | None = None,
    reach: int = REACH,
) -> JobPage:
    """Jobs that meet all given conditions, newest first, beginning right after ``after``.

    A page may have fewer than ``limit`` jobs, or none, and yet a next one: see ``pages.py``.
    """
    page = await find_page(
        connection,
        Filter(status=status, type=type, content_hash=content_hash),
        limit=limit,
        offset=offset,
        after=after,
        reach=reach,
        around=QUERIES["list_jobs"],
    )
    return JobPage([_job(row) for row in page.rows], page.next)


async def probe(connection: Connection) -> None:
    """Fail as all else would where the schema is not the one that this version needs."""
    await connection.execute(QUERIES["probe"])


async def is_read_only(connection: Connection) -> bool:
    """Whether this server refuses writes for now: it is a standby, or was told to."""
    row = await (await connection.execute(QUERIES["is_read_only"])).fetchone()
    assert row is not None
    return bool(row[0])


async def applied_migrations(connection: Connection) -> set[str]:
    """Names of the migrations that the database has seen, of this version and of any other."""
    cursor = await connection.execute(QUERIES["applied_migrations"])
    return {name for (name,) in await cursor.fetchall()}


async def miscounts(connection: Connection) -> list[tuple[str, int, int]]:
    """States whose kept count is not the number of jobs: state, kept, real. Looks at every job."""
    return await (await connection.execute(QUERIES["miscounts"], prepare=False)).fetchall()


async def count(connection: Connection) -> QueueCounts:
    """How many jobs stand in each state, and whether they move."""
    async with connection.cursor(row_factory=class_row(QueueCounts)) as cursor:
        await cursor.execute(QUERIES["count"])
        counts = await cursor.fetchone()
    assert counts is not None
    return counts


def _job(row: dict[str, Any]) -> Job:
    return Job(
        id=row["id"],
        type=JobType(row["type"]),
        status=JobStatus(row["status"]),
        progress=row["progress"],
        subject=Subject(
            row["contentHash"],
            row["manifestUri"],
            row["registryAddress"],
            row["rpcUrl"],
            row["rpcEndpointId"],
            row["chainId"],
            row["fileName"],
        ),
        result=row["result"],
        error=row["error"],
        # Instead of a list, an object where the JSON cannot be read.
        errors=row["errors"] if isinstance(row["errors"], list) else [],
        retry_count=row["retryCount"],
        attempt=row["attempt"],
        max_attempts=row["maxAttempts"],
        priority=row["priority"],
        run_at=row["runAt"],
        started_at=row["startedAt"],
        completed_at=row["completedAt"],
        created_at=row["createdAt"],
        updated_at=row["updatedAt"],
        callback=row["callback"],
    )
