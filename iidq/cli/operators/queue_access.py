"""The two ways to a queue for operators: the database, or the HTTP API of a running service.

Both return jobs and counts in the form of the HTTP API.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from psycopg.errors import InsufficientPrivilege

from iidq.cli.api_client import ENDED, Body, JobClient, NoAnswer, Refused
from iidq.cli.service_options import DEFAULT_SERVER
from iidq.database.connections import Connection
from iidq.database.pool import Database, open_database
from iidq.errors import DatabaseRefusal
from iidq.queue import control
from iidq.queue.identifiers import find_job_id
from iidq.queue.job import JobStatus, JobType
from iidq.queue.notify import channels
from iidq.queue.read import queue_health, readers
from iidq.queue.read.paging import Cursor
from iidq.settings import load_settings
from iidq.web.reply.wire import job_shape, stats_shape

_POLL_SECONDS = 0.5

T = TypeVar("T")


class NotAllowed(Exception):
    """The operator lacks a right or a key; the text gives the remedy."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; None matches all."""

    status: JobStatus | None = None
    """Only jobs with this status."""
    kind: JobType | None = None
    """Only jobs of this type."""
    content_hash: str | None = None
    """Only jobs about this content, ``0x`` and 64 lower-case hex digits."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list of jobs."""

    jobs: list[Body]
    """Jobs, newest first."""
    next: str | None
    """Cursor of the next page; None on the last."""


class QueueAccess(Protocol):
    """The operators' view of a queue. All methods raise :class:`NotAllowed` and :class:`NoAnswer`."""

    async def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Return up to ``limit`` jobs, newest first, after ``cursor``; a page of a long history may hold fewer."""

    async def find(self, job_id: str) -> Body | None:
        """Return a job; None if there is no such job."""

    async def retry(self, job_id: str) -> bool | None:
        """Queue an ended job again; return False for a job in progress, None if there is no such job."""

    async def cancel(self, job_id: str) -> bool | None:
        """End a waiting or running job; return False for an ended job, None if there is no such job."""

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        """Return the job once ended, None if there is no such job; call ``report`` with each state."""

    async def counts(self) -> Body:
        """Return the reply of ``/stats``."""

    async def pause(self, reason: str | None) -> None:
        """Stop all claims."""

    async def resume(self) -> None:
        """Allow claims again."""


@asynccontextmanager
async def open_queue(server: str | None, api_key: str | None, *, timeout_seconds: float) -> AsyncIterator[QueueAccess]:
    """Open the queue of ``server``, else of ``DATABASE_URL``, else of the service on the local machine.

    ``timeout_seconds`` bounds each call to a service, including :meth:`QueueAccess.follow`.
    """
    settings = load_settings() if server is None else None
    if settings is not None and settings.database_url:
        async with open_database(settings, pool_size=1) as database:
            yield QueueInDatabase(database)
        return
    async with JobClient(server or DEFAULT_SERVER, api_key, timeout_seconds=timeout_seconds) as client:
        yield QueueOverHttp(client)


class QueueInDatabase:
    """The queue in Postgres, with the rights of the URL's role."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        after = None if cursor is None else Cursor.decode(cursor)
        page = await self._run(
            lambda connection: readers.list_jobs(
                connection,
                status=wanted.status,
                type=wanted.kind,
                content_hash=wanted.content_hash,
                limit=limit,
                after=after,
            )
        )
        return Page([dict(job_shape(job)) for job in page.jobs], None if page.next is None else page.next.encode())

    async def find(self, job_id: str) -> Body | None:
        known = find_job_id(job_id)
        if known is None:
            return None
        job = await self._run(lambda connection: readers.find(connection, known))
        return None if job is None else dict(job_shape(job))

    async def retry(self, job_id: str) -> bool | None:
        return await self._change(job_id, control.retry)

    async def cancel(self, job_id: str) -> bool | None:
        return await self._change(job_id, control.cancel)

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        while (job := await self.find(job_id)) is not None:
            report(job)
            if job["status"] in ENDED:
                return job
            await asyncio.sleep(_POLL_SECONDS)
        return None

    async def counts(self) -> Body:
        return dict(stats_shape(await self._run(queue_health.read_health)))

    async def pause(self, reason: str | None) -> None:
        await self._run(lambda connection: control.pause(connection, reason))

    async def resume(self) -> None:
        await self._run(control.resume)

    async def _change(self, job_id: str, change: Callable[[Connection, UUID], Awaitable[bool | None]]) -> bool | None:
        known = find_job_id(job_id)
        if known is None:
            return None

        async def change_and_announce(connection: Connection) -> bool | None:
            done = await change(connection, known)
            if done:
                await channels.announce_changes(connection, [known])
            return done

        return await self._run(change_and_announce)

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await self._database.run(work)
        except DatabaseRefusal as refusal:
            if not isinstance(refusal.__cause__, InsufficientPrivilege):
                raise
            raise NotAllowed("the role of DATABASE_URL may not do this; docs/sql.md has the GRANT lines") from None


class QueueOverHttp:
    """The queue of a service, with the service's key if there is a key."""

    def __init__(self, client: JobClient) -> None:
        self._client = client

    async def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        page = await self._request(
            lambda: self._client.get(
                status=wanted.status, type=wanted.kind, contentHash=wanted.content_hash, limit=limit, cursor=cursor
            )
        )
        jobs, following = page.get("jobs"), page.get("nextCursor")
        if not isinstance(jobs, list):
            raise self._client.foreign_reply()
        return Page([job for job in jobs if isinstance(job, dict)], following if isinstance(following, str) else None)

    async def find(self, job_id: str) -> Body | None:
        return await self._of_job(job_id, lambda: self._client.get(f"/{job_id}"))

    async def retry(self, job_id: str) -> bool | None:
        return await self._change(job_id, "retry")

    async def cancel(self, job_id: str) -> bool | None:
        return await self._change(job_id, "cancel")

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        return await self._of_job(job_id, lambda: self._client.follow(job_id, report))

    async def counts(self) -> Body:
        counts = await self._request(lambda: self._client.get("/stats"))
        if counts.get("available") is not True:
            raise NoAnswer(f"{self._client.server} has no database at present")
        return counts

    async def pause(self, reason: str | None) -> None:
        await self._request(lambda: self._client.post("/pause", {} if reason is None else {"reason": reason}))

    async def resume(self) -> None:
        await self._request(lambda: self._client.post("/resume"))

    async def _change(self, job_id: str, step: str) -> bool | None:
        try:
            done = await self._of_job(job_id, lambda: self._client.post(f"/{job_id}/{step}"))
        except Refused as refusal:
            if refusal.status == 409:
                return False
            raise
        return None if done is None else True

    async def _of_job(self, job_id: str, work: Callable[[], Awaitable[Body]]) -> Body | None:
        # Text that is no id would name another path of the service.
        if find_job_id(job_id) is None:
            return None
        try:
            return await self._request(work)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def _request(self, work: Callable[[], Awaitable[Body]]) -> Body:
        self._client.restart_clock()
        try:
            return await work()
        except Refused as refusal:
            if refusal.status == 401:
                raise NotAllowed(str(refusal)) from None
            raise
