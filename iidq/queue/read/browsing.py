"""The operators' list of jobs: by state, by cause of failure, or by a search.

Every page costs about the same at any size of the history. A page follows an index, or looks at a bounded number of
rows and returns the place where it ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from psycopg.rows import class_row, tuple_row

from iidq.database.connections import Connection
from iidq.database.queries import load_queries
from iidq.notation import ADDRESS, HASH
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import JobStatus
from iidq.queue.read.paging import Cursor
from iidq.queue.read.readers import REACH, Filter, find_page

QUERIES = load_queries("iidq.queue")


class JobState(StrEnum):
    """State in the counts: the status, with queued split into waiting (in line) and delayed (run time later)."""

    WAITING = "waiting"
    ACTIVE = "active"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Search:
    """A search; at most one field is set."""

    id: UUID | None = None
    """Id of a job."""
    content_hash: str | None = None
    """Whole content hash, lower case."""
    registry: str | None = None
    """Whole registry address, lower case."""
    manifest: str | None = None
    """Any part of a manifest's URI."""

    @classmethod
    def read(cls, text: str) -> "Search":
        """Return the search for ``text``, by its form; without a field for an empty text."""
        text = text.strip()
        if not text:
            return cls()
        if (job_id := parse_job_id(text)) is not None:
            return cls(id=job_id)
        if HASH.fullmatch(text.lower()):
            return cls(content_hash=text.lower())
        if ADDRESS.fullmatch(text.lower()):
            return cls(registry=text.lower())
        return cls(manifest=text)


@dataclass(frozen=True, slots=True)
class BrowsedJob:
    """One row of the list, without the result."""

    id: UUID
    """UUIDv7."""
    type: str
    """verify or proof."""
    state: str
    """A :class:`JobState`."""
    progress: int
    """Percent, 0 to 100."""
    content_hash: str
    """SHA-256 of the file."""
    manifest_uri: str
    """Where the manifest is."""
    registry_address: str
    """Contract that holds the registration."""
    file_name: str | None
    """Name of the file; None without one."""
    error: str | None
    """First 300 characters of the error; None unless failed."""
    verdict: str | None
    """OK, WARN or FAIL; None unless completed."""
    attempt: int
    """Number of claims so far."""
    retry_count: int
    """Failures before the present attempt."""
    max_attempts: int
    """Attempts in all before the job fails."""
    worker_id: str | None
    """Worker that runs the job; None while not running."""
    run_at: datetime
    """Earliest time of the next claim."""
    created_at: datetime
    """When the row was inserted."""
    started_at: datetime | None
    """Begin of the last attempt; None before the first."""
    completed_at: datetime | None
    """When the job ended; None before."""


@dataclass(frozen=True, slots=True)
class BrowsedPage:
    """One page of the operators' list."""

    jobs: list[BrowsedJob]
    """Jobs in order."""
    next: Cursor | None
    """Where the next page begins; None on the last page."""
    cut: bool = False
    """Whether the page ended at its bound of rows looked at, so that more matches may follow."""


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
    """Return one page.

    Waiting jobs are ordered as in line, delayed jobs soonest first, active jobs longest first, all others newest first.
    With a ``cause`` of failed jobs, other conditions are ignored.
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


# Statements of the states with an order of their own.
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
    # A job removed in between is missing.
    return [found[job_id] for job_id in ids if job_id in found]


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """The lease of a job, and the trace of its request."""

    worker_id: str | None
    """Worker that holds the lease; None while not running."""
    lease_until: datetime | None
    """End of the lease unless renewed; None while not running."""
    trace_id: str | None
    """Trace of the request; None without traces."""
    at: datetime
    """Time of this reading, by the database's clock."""


async def find_lease(connection: Connection, job_id: UUID) -> LeaseInfo | None:
    """Return the lease of the job, or None if there is no such job."""
    async with connection.cursor(row_factory=class_row(LeaseInfo)) as cursor:
        await cursor.execute(QUERIES["find_lease"], {"id": job_id})
        return await cursor.fetchone()
