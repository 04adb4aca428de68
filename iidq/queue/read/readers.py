"""Reads of jobs: by id, by change, and pages of the list at a bounded cost for any filter.

A page follows the index that serves the filter. Without such an index, the page looks at the next ``REACH`` rows, and
ends there with fewer jobs or none, and with a cursor for the next page.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg.rows import dict_row

from iidq.database.connections import Connection, is_shared
from iidq.database.queries import load_queries
from iidq.queue.job import Job, JobStatus, JobType
from iidq.queue.read.paging import Cursor
from iidq.subject import Subject

QUERIES = load_queries("iidq.queue")

REACH: Final = 2_000
"""Rows that one page looks at, at most: 3 ms from memory."""
_INDEX_ENTRIES_PER_ROW: Final = 5
"""Index entries that cost as much as one row, for pages on which every row matches."""
_ROWS_PER_SPAN: Final = 4
"""Rows that cost as much as one search of a content hash in a span of six hours."""

_INDEXED: Final = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})
_UNFINISHED: Final = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})

Changed = tuple[str, str | None, Job | None]
"""Id, version of the row, job; the latter two are None without such a job."""


async def find(connection: Connection, job_id: UUID) -> Job | None:
    """Return the job, or None without such an id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find"], {"id": job_id})
        row = await cursor.fetchone()
    return _job(row) if row else None


async def find_changed(connection: Connection, seen: Mapping[str, str]) -> list[Changed]:
    """Return the jobs in ``seen`` with another version of the row now, or without a row.

    ``seen`` maps ids to the version seen last, empty for none.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find_changed"], {"seen": json.dumps(seen)})
        return [(row["watched"], row["version"], _job(row) if row["id"] else None) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One page of jobs, newest first."""

    jobs: list[Job]
    """Up to as many as the limit; fewer, or none, also before the last page."""
    next: Cursor | None
    """Where the next page begins; None on the last page."""


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
) -> ListedPage:
    """Return jobs that meet all given conditions, newest first, beginning after the place ``after``."""
    page = await find_page(
        connection,
        Filter(status=status, type=type, content_hash=content_hash),
        limit=limit,
        offset=offset,
        after=after,
        reach=reach,
        around=QUERIES["list_jobs"],
    )
    return ListedPage([_job(row) for row in page.rows], page.next)


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions, of which a job must meet all; None is no condition."""

    status: JobStatus | None = None
    """Status of the row."""
    ready: bool | None = None
    """For queued jobs: in line (True) or waiting for the run time (False)."""
    type: JobType | None = None
    """Type of the job."""
    content_hash: str | None = None
    """Whole content hash, lower case."""
    manifest: str | None = None
    """Any part of the manifest's URI."""
    registry: str | None = None
    """Whole registry address, lower case."""

    @property
    def has_more_than_status(self) -> bool:
        """Whether a status index alone cannot decide which rows match."""
        return any(
            value is not None for value in (self.ready, self.type, self.content_hash, self.manifest, self.registry)
        )


@dataclass(frozen=True, slots=True)
class FoundPage:
    """One page of matching rows."""

    rows: list[dict[str, Any]]
    """Columns of each match by name, in order."""
    next: Cursor | None
    """Where the next page begins; None on the last page."""
    cut: bool = False
    """Whether the page ended at its bound of rows looked at, so that more matches may follow."""


async def find_page(
    connection: Connection,
    wanted: Filter,
    *,
    limit: int,
    offset: int = 0,
    after: Cursor | None = None,
    reach: int = REACH,
    around: bytes = b"{places}",
) -> FoundPage:
    """Return up to ``limit`` matching jobs after the place ``after``, skipping ``offset`` matches.

    Each row has at least ``id`` and ``place``. ``around`` is a query that adds columns to ``{places}``.
    """
    skip = offset + (after.skip if after else 0)
    ended = wanted.status if wanted.status in _INDEXED else None
    every_row_matches = not wanted.has_more_than_status and wanted.status == ended
    parameters = {
        # Not compared where the index implies the status: an index-only scan.
        "status": None if ended and not wanted.content_hash else wanted.status and wanted.status.value,
        "ended": ended and ended.value,
        "ready": wanted.ready,
        "type": wanted.type and wanted.type.value,
        "content_hash": wanted.content_hash,
        "manifest": wanted.manifest,
        "registry": wanted.registry,
        "after_time": after and after.created_at,
        "after_id": after and after.id,
        "skip": skip,
        "limit": limit + 1,
        "reach": reach * _INDEX_ENTRIES_PER_ROW if every_row_matches else reach,
        "spans": max(1, reach // _ROWS_PER_SPAN),
    }
    rows = await _fetch(connection, _places(wanted), around, parameters)
    if rows and rows[0]["place"] is None:
        rows = await _fetch(connection, "places_newest", around, parameters)
    jobs = [row for row in rows if row["wanted"]]
    if len(jobs) > limit:
        return FoundPage(jobs[:limit], Cursor(jobs[limit - 1]["place"], jobs[limit - 1]["id"]))
    if rows and (last := rows[-1])["cut"]:
        return FoundPage(jobs, Cursor(last["place"], last["id"], max(0, skip - last["found"])), cut=True)
    return FoundPage(jobs, None)


def _places(wanted: Filter) -> str:
    if wanted.manifest is not None or wanted.registry is not None:
        return "places_newest"
    if wanted.content_hash is not None:
        return "places_content"
    return "places_unfinished" if wanted.status in _UNFINISHED and wanted.ready is None else "places_newest"


async def _fetch(
    connection: Connection, places: str, around: bytes, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    query = around.replace(b"{places}", QUERIES[places])
    # Behind a pooler every statement is in a transaction, and the setting must end with it.
    if is_shared(connection):
        await connection.execute(QUERIES["prefer_indexes"])
    async with connection.cursor(row_factory=dict_row) as cursor:
        # A generic plan could not use the partial indexes.
        await cursor.execute(query, parameters, prepare=False)
        return await cursor.fetchall()


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
        # Unreadable JSON is shown as an object instead of a list.
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
