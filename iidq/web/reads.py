"""Reads of the queue for many clients at once.

* :class:`BoundedReads`: lists and counts on a small share of the pool, so that submissions keep the rest.
* :class:`RecentAnswer` and :class:`QueueState`: a query per second for all probes and scrapes.
* :class:`JobReads`: polled jobs, several per statement; unchanged rows are not sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final, Generic, TypeVar
from uuid import UUID

import psycopg

from iidq.concurrency.batcher import Batcher
from iidq.concurrency.bounded_cache import BoundedCache
from iidq.concurrency.single_flight import SingleFlight
from iidq.database.connections import Connection
from iidq.database.obstacles import find_obstacles
from iidq.database.pool import Database
from iidq.database.sqlstates import may_be_of_one_row
from iidq.errors import DatabaseBusy, IidqError
from iidq.queue.read import readers
from iidq.queue.read.queue_health import read_health
from iidq.redis.caches import FinishedJobCache
from iidq.web.reply.conditional import JobBody

T = TypeVar("T")

CONNECTIONS: Final = 2
"""Connections of one share, used at a time. Two shares together leave half of the pool."""
MAX_WAITING: Final = 64
"""Reads that may wait for a connection of their share; further reads are refused."""
WAIT_SECONDS: Final = 2.0
"""Longest wait for a connection of the share."""
KEEP_SECONDS: Final = 1.0
"""How long an answer of :class:`RecentAnswer` is reused."""
READ_SECONDS: Final = 3.0
"""Longest time for one such query; a scrape then continues without the answer."""
MAX_KEPT_BYTES: Final = 16 << 20
"""Bytes of job bodies that one process keeps."""
_OVERHEAD_BYTES: Final = 500
_LARGEST_READ: Final = 200

_Kept = tuple[str, JobBody]
"""The version of a job's row, and its body."""


class BoundedReads:
    """Run reads on at most ``CONNECTIONS`` connections at a time; up to ``MAX_WAITING`` others wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._waiting = 0

    async def run(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        """Run a read. Raise :class:`DatabaseBusy` if too many wait or the wait is too long."""
        await self._acquire()
        try:
            return await self._database.run(read)
        finally:
            self._free.release()

    async def _acquire(self) -> None:
        if self._free.locked() and self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1


def _busy() -> DatabaseBusy:
    return DatabaseBusy("Too many lists and counts are being read; try again", retry_after_seconds=WAIT_SECONDS)


class RecentAnswer(Generic[T]):
    """The answer to a query, at most ``KEEP_SECONDS`` old; concurrent callers share the query."""

    def __init__(self, reads: BoundedReads, query: Callable[[Connection], Awaitable[T]]) -> None:
        self._reads = reads
        self._query = query
        self._flights: SingleFlight[None, T | None] = SingleFlight()
        self._answer: T | None = None
        self._read_at = float("-inf")

    async def read(self) -> T | None:
        """Return the answer, or None while the database is unavailable, refuses or is too slow."""
        if monotonic() - self._read_at >= KEEP_SECONDS:
            self._answer = await self._flights.run(None, self._read)
            self._read_at = monotonic()
        return self._answer

    async def _read(self) -> T | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._reads.run(self._query)
        except (IidqError, psycopg.Error, TimeoutError):
            return None


class QueueState:
    """The queue's depth (``read``), and the missing rights of this process' role (``obstacles``)."""

    def __init__(self, reads: BoundedReads) -> None:
        self.read = RecentAnswer(reads, lambda connection: read_health(connection)).read
        self.obstacles = RecentAnswer(reads, find_obstacles).read


class JobReads:
    """Read jobs as the bodies of replies, each from a statement that began after the call.

    Only an ended job may come from ``ended_jobs``, some seconds old.
    """

    def __init__(self, database: Database, ended_jobs: FinishedJobCache | None = None) -> None:
        self._database = database
        self._ended_jobs = ended_jobs
        self._kept: BoundedCache[_Kept] = BoundedCache(MAX_KEPT_BYTES, lambda kept: len(kept[1].body) + _OVERHEAD_BYTES)
        self._reads: Batcher[UUID, JobBody | None] = Batcher(
            self._read if ended_jobs is None else self._read_unless_kept,
            blames_one_item=may_be_of_one_row,
            largest_batch=_LARGEST_READ,
        )

    async def find(self, job_id: UUID) -> JobBody | None:
        """Return the job, or None if no job has this id. Raise :class:`DatabaseUnavailable`."""
        return await self._reads.submit(job_id)

    async def _read_unless_kept(self, job_ids: Sequence[UUID]) -> list[JobBody | None]:
        assert self._ended_jobs is not None
        kept = await self._ended_jobs.find(job_ids)
        missing = [job_id for job_id in job_ids if job_id not in kept]
        read = dict(zip(missing, await self._read(missing), strict=True)) if missing else {}
        # Jobs in ``_kept`` have no callback: its state changes after the job's end.
        lasting = {job_id: job.body for job_id, job in read.items() if job and job.ended and self._kept.get(job_id)}
        self._ended_jobs.keep(lasting)
        return [JobBody.of_ended(kept[job_id]) if job_id in kept else read[job_id] for job_id in job_ids]

    async def _read(self, job_ids: Sequence[UUID]) -> list[JobBody | None]:
        known: dict[UUID, _Kept | None] = {job_id: self._kept.get(job_id) for job_id in job_ids}
        versions = {str(job_id): "" if kept is None else kept[0] for job_id, kept in known.items()}

        async def read(connection: Connection) -> list[readers.Changed]:
            return await readers.find_changed(connection, versions)

        for text, version, job in await self._database.run(read):
            job_id = UUID(text)
            if job is None or version is None:
                known[job_id] = None
                continue
            fresh = known[job_id] = version, JobBody.of(job)
            # A callback's state is in another row and does not change the job's version.
            if job.callback is None:
                self._kept.put(job_id, fresh)
        return [None if (kept := known[job_id]) is None else kept[1] for job_id in job_ids]
