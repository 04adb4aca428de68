"""The list of jobs as operators look through it: by state, by cause of failure, or by what they search for.

Every page costs about the same at any size of the history: it follows an index, and where there is none for what is
sought, it looks at a bounded number of rows and says where it ended.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from psycopg.rows import class_row, tuple_row

from iidq.database.pool import Connection
from iidq.database.queries import load_queries
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import JobStatus
from iidq.queue.read.paging import Cursor
from iidq.queue.read.readers import REACH, Filter, find_page

QUERIES = load_queries("iidq.queue")

_CONTENT_HASH = re.compile(r"0x[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")


class JobState(StrEnum):
    """What the counts tell apart: as the status, but that queued jobs wait in line or for their time."""

    WAITING = "waiting"
    ACTIVE = "active"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for; at most one is set. A manifest is found by any part of its address."""

    id: UUID | None = None
    content_hash: str | None = None
    registry: str | None = None
    manifest: str | None = None

    @classmethod
    def read(cls, text: str) -> "Search":
        """What ``text`` can only be, by its form; nothing where it is empty."""
        text = text.strip()
        if not text:
            return cls()
        if (job_id := parse_job_id(text)) is not None:
            return cls(id=job_id)
        if _CONTENT_HASH.fullmatch(text.lower()):
            return cls(content_hash=text.lower())
        if _ADDRESS.fullmatch(text.lower()):
            return cls(registry=text.lower())
        return cls(manifest=text)


@dataclass(frozen=True, slots=True)
class BrowsedJob:
    """One row of the list: no result, and an error cut short. ``verdict`` is OK, WARN or FAIL, where one was found."""

    id: UUID
    type: str
    state: str
    progress: int
    content_hash: str
    manifest_uri: str
    registry_address: str
    file_name: str | None
    error: str | None
    verdict: str | None
    attempt: int
    retry_count: int
    max_attempts: int
    worker_id: str | None
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class BrowsedPage:
    """Jobs in order, and where the next page begins; None on the last one.

    ``cut`` tells that the page ended because it had looked at its bounded number of rows: more matches may follow.
    """

    jobs: list[BrowsedJob]
    next: Cursor | None
    cut: bool = False


async def browse(
    connection: Connection,
    *,
    limit: int,
    state: JobState | None = None,
    cause: str | None = None,
    search: Search | None = None,
    after: Cursor | None = None,
    reach: int = REACH,
) -> BrowsedPage:
    """One page. Waiting jobs come first in line first, delayed ones soonest first, active ones longest first.

    All else comes newest first. A ``cause`` is one of failed jobs, and stands alone.
    """
    search = search or Search()
    if search.id is not None:
        return BrowsedPage(await _rows(connection, [search.id]), None)
    place = {"after_place": after and after.created_at, "after_id": after and after.id, "limit": limit + 1}
    if cause is not None:
        found = await _places(connection, "browse_cause", {**place, "cause": cause})
    elif state in _LINES and search == Search():
        found = await _places(connection, _LINES[state], place)
    else:
        wanted = Filter(
            status=None if state is None else _STATUSES[state],
            ready=_READY.get(state),
            content_hash=search.content_hash,
            manifest=search.manifest,
            registry=search.registry,
        )
        page = await find_page(connection, wanted, limit=limit, after=after, reach=reach)
        return BrowsedPage(await _rows(connection, [row["id"] for row in page.rows]), page.next, page.cut)
    next_place = found[limit - 1] if len(found) > limit else None
    jobs = await _rows(connection, [place.id for place in found[:limit]])
    return BrowsedPage(jobs, next_place)


# States that have an order of their own.
_LINES: Final[Mapping[JobState | None, str]] = {
    JobState.WAITING: "browse_line",
    JobState.DELAYED: "browse_delayed",
    JobState.ACTIVE: "browse_active",
}
_STATUSES: Final[Mapping[JobState, JobStatus]] = {
    JobState.WAITING: JobStatus.QUEUED,
    JobState.DELAYED: JobStatus.QUEUED,
    JobState.ACTIVE: JobStatus.PROCESSING,
    JobState.COMPLETED: JobStatus.COMPLETED,
    JobState.FAILED: JobStatus.FAILED,
    JobState.CANCELLED: JobStatus.CANCELLED,
}
_READY: Final[Mapping[JobState | None, bool]] = {JobState.WAITING: True, JobState.DELAYED: False}


async def _places(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[Cursor]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        # A generic plan could not use the partial indexes.
        await cursor.execute(QUERIES[name], parameters, prepare=False)
        return [Cursor(place, job_id) for job_id, place in await cursor.fetchall()]


async def _rows(connection: Connection, ids: list[UUID]) -> list[BrowsedJob]:
    async with connection.cursor(row_factory=class_row(BrowsedJob)) as cursor:
        await cursor.execute(QUERIES["browse_rows"], {"ids": ids})
        found = {job.id: job for job in await cursor.fetchall()}
    # One that was removed in between is missing.
    return [found[job_id] for job_id in ids if job_id in found]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a job and until when, the trace of its request, and the time of this reading."""

    worker_id: str | None
    lease_until: datetime | None
    trace_id: str | None
    at: datetime


async def find_holder(connection: Connection, job_id: UUID) -> Holder | None:
    """None where there is no such job."""
    async with connection.cursor(row_factory=class_row(Holder)) as cursor:
        await cursor.execute(QUERIES["find_holder"], {"id": job_id})
        return await cursor.fetchone()
