"""One page of the list of jobs, newest first, at a bounded cost for any filter.

A page follows the index that serves its filter. Without one it looks at the next ``REACH`` rows and ends there, with
fewer jobs or none, and a cursor from which the next page goes on.
"""

from dataclasses import dataclass
from typing import Any, Final

from psycopg.rows import dict_row

from iidq.database.connections import Connection, is_shared
from iidq.database.queries import QUERIES
from iidq.queue.job import JobStatus, JobType
from iidq.queue.read.paging import Cursor

REACH: Final = 2_000
"""Rows that one page looks at, at most: 3 ms from memory."""
_INDEX_ENTRIES_PER_ROW: Final = 5
"""Where every row matches, jobs are skipped in an index alone, so many more in the same time."""
_ROWS_PER_SPAN: Final = 4
"""What a look into one span of six hours for a content hash costs."""

_INDEXED: Final = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})
_UNFINISHED: Final = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a job must meet, all of them; None for no condition.

    ``ready`` parts queued jobs in line from those that wait for their time. ``manifest`` is any part of the URI.
    """

    status: JobStatus | None = None
    ready: bool | None = None
    type: JobType | None = None
    content_hash: str | None = None
    manifest: str | None = None
    registry: str | None = None

    @property
    def has_more_than_status(self) -> bool:
        """Whether the index of a status cannot tell all matches."""
        return any(
            value is not None for value in (self.ready, self.type, self.content_hash, self.manifest, self.registry)
        )


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Rows of jobs in order, and the start of the next page; None on the last one.

    ``cut`` says that the page ended because it had looked at its bounded number of rows: more matches may follow.
    """

    rows: list[dict[str, Any]]
    next: Cursor | None
    cut: bool = False


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
    """Return up to ``limit`` jobs that match, after ``offset`` others, from right after ``after`` on.

    Each row has at least ``id`` and ``place``. ``around`` is a query that reads more of the jobs in ``{places}``.
    """
    skip = offset + (after.skip if after else 0)
    ended = wanted.status if wanted.status in _INDEXED else None
    every_row_matches = not wanted.has_more_than_status and wanted.status == ended
    parameters = {
        # Not compared where the index implies it: then the index alone is read.
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
    # Behind a pooler this is inside of a transaction already; only there it has to last no longer.
    if is_shared(connection):
        await connection.execute(QUERIES["prefer_indexes"])
    async with connection.cursor(row_factory=dict_row) as cursor:
        # A generic plan could not use the partial indexes.
        await cursor.execute(query, parameters, prepare=False)
        return await cursor.fetchall()
