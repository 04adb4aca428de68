"""The two ways to a queue for operators: straight into its database, or over HTTP through a running service.

Both show jobs and counts as HTTP clients get them. Without a database URL and without a server, the service of this
machine is asked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from psycopg.errors import InsufficientPrivilege

from iidq.cli.api_client import ENDED, Body, JobClient, NotFoundOut, Refused
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

_LOOK_SECONDS = 0.5


T = TypeVar("T")


class NotAllowed(Exception):
    """Whoever asks may not do this; the text says what would help."""


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest first, and the cursor of the next page; None on the last one."""

    jobs: list[Body]
    next: str | None


class QueueAccess(Protocol):
    """What operators look at and steer. ``retry`` and ``cancel``: True done, False not possible, None no such job."""

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        kind: JobType | None = None,
        content_hash: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """The newest jobs, newest first, or those after ``cursor``: up to ``limit``, and fewer in a long history."""

    async def find(self, job_id: str) -> Body | None:
        """One job, or None."""

    async def retry(self, job_id: str) -> bool | None:
        """Put a job that ended back in line."""

    async def cancel(self, job_id: str) -> bool | None:
        """End a job that waits or runs."""

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        """The job once it has ended, None if there is no such job; ``report`` sees its states."""

    async def counts(self) -> Body:
        """How many jobs stand in each state, and what else `/stats` tells."""

    async def pause(self, reason: str | None) -> None:
        """Stop all claims."""

    async def resume(self) -> None:
        """Let claims go on."""


@asynccontextmanager
async def open_queue(server: str | None, api_key: str | None, *, patience_seconds: float) -> AsyncIterator[QueueAccess]:
    """The queue behind ``server``, else of ``DATABASE_URL``, else of this machine's own service.

    ``patience_seconds`` bounds each question to a service, also that of following a job.
    """
    settings = load_settings() if server is None else None
    if settings is not None and settings.database_url:
        async with open_database(settings, pool_size=1) as database:
            yield QueueInDatabase(database)
        return
    async with JobClient(server or DEFAULT_SERVER, api_key, timeout_seconds=patience_seconds) as client:
        yield QueueOverHttp(client)


class QueueInDatabase:
    """Straight into Postgres, with the rights of the URL's role."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        kind: JobType | None = None,
        content_hash: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """The newest jobs, newest first, or those after ``cursor``: up to ``limit``, and fewer in a long history."""
        after = None if cursor is None else Cursor.decode(cursor)
        page = await self._run(
            lambda connection: readers.list_jobs(
                connection, status=status, type=kind, content_hash=content_hash, limit=limit, after=after
            )
        )
        return Page([dict(job_shape(job)) for job in page.jobs], None if page.next is None else page.next.encode())

    async def find(self, job_id: str) -> Body | None:
        """One job, or None."""
        known = find_job_id(job_id)
        if known is None:
            return None
        job = await self._run(lambda connection: readers.find(connection, known))
        return None if job is None else dict(job_shape(job))

    async def retry(self, job_id: str) -> bool | None:
        """Put a job that ended back in line."""
        return await self._steer(job_id, control.retry)

    async def cancel(self, job_id: str) -> bool | None:
        """End a job that waits or runs."""
        return await self._steer(job_id, control.cancel)

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        """The job once it has ended, None if there is no such job; ``report`` sees its states."""
        while (job := await self.find(job_id)) is not None:
            report(job)
            if job["status"] in ENDED:
                return job
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def counts(self) -> Body:
        """How many jobs stand in each state, and what else `/stats` tells."""
        return dict(stats_shape(await self._run(queue_health.read_health)))

    async def pause(self, reason: str | None) -> None:
        """Stop all claims."""
        await self._run(lambda connection: control.pause(connection, reason))

    async def resume(self) -> None:
        """Let claims go on."""
        await self._run(control.resume)

    async def _steer(self, job_id: str, step: Callable[[Connection, UUID], Awaitable[bool | None]]) -> bool | None:
        known = find_job_id(job_id)
        if known is None:
            return None

        async def steer(connection: Connection) -> bool | None:
            done = await step(connection, known)
            if done:
                # Whoever watches the job sees it at once.
                await channels.announce_changes(connection, [known])
            return done

        return await self._run(steer)

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await self._database.run(work)
        except DatabaseRefusal as refusal:
            if not isinstance(refusal.__cause__, InsufficientPrivilege):
                raise
            raise NotAllowed("the role of DATABASE_URL may not do this; docs/sql.md has the GRANT lines") from None


class QueueOverHttp:
    """Through a service, with its key where it asks for one."""

    def __init__(self, client: JobClient) -> None:
        self._client = client

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        kind: JobType | None = None,
        content_hash: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """The newest jobs, newest first, or those after ``cursor``: up to ``limit``, and fewer in a long history."""
        page = await self._ask(
            lambda: self._client.get("", status=status, type=kind, contentHash=content_hash, limit=limit, cursor=cursor)
        )
        jobs, following = page.get("jobs"), page.get("nextCursor")
        if not isinstance(jobs, list):
            raise NotFoundOut(f"{self._client.server} answered, and not as iidq does")
        return Page([job for job in jobs if isinstance(job, dict)], following if isinstance(following, str) else None)

    async def find(self, job_id: str) -> Body | None:
        """One job, or None."""
        # Anything else would name another path of the service.
        if find_job_id(job_id) is None:
            return None
        return await self._unless_unknown(lambda: self._client.get(f"/{job_id}"))

    async def retry(self, job_id: str) -> bool | None:
        """Put a job that ended back in line."""
        return await self._steer(job_id, "retry")

    async def cancel(self, job_id: str) -> bool | None:
        """End a job that waits or runs."""
        return await self._steer(job_id, "cancel")

    async def follow(self, job_id: str, report: Callable[[Body], None]) -> Body | None:
        """The job once it has ended, None if there is no such job; ``report`` sees its states."""
        if find_job_id(job_id) is None:
            return None
        return await self._unless_unknown(lambda: self._client.follow(job_id, report))

    async def counts(self) -> Body:
        """How many jobs stand in each state, and what else `/stats` tells."""
        counts = await self._ask(lambda: self._client.get("/stats"))
        if counts.get("available") is not True:
            raise NotFoundOut(f"{self._client.server} has no database at present")
        return counts

    async def pause(self, reason: str | None) -> None:
        """Stop all claims."""
        await self._ask(lambda: self._client.post("/pause", {} if reason is None else {"reason": reason}))

    async def resume(self) -> None:
        """Let claims go on."""
        await self._ask(lambda: self._client.post("/resume"))

    async def _steer(self, job_id: str, step: str) -> bool | None:
        if find_job_id(job_id) is None:
            return None
        try:
            done = await self._unless_unknown(lambda: self._client.post(f"/{job_id}/{step}"))
        except Refused as refusal:
            if refusal.status == 409:
                return False
            raise
        return None if done is None else True

    async def _unless_unknown(self, work: Callable[[], Awaitable[Body]]) -> Body | None:
        try:
            return await self._ask(work)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def _ask(self, work: Callable[[], Awaitable[Body]]) -> Body:
        self._client.restart_clock()
        try:
            return await work()
        except Refused as refusal:
            if refusal.status == 401:
                raise NotAllowed(str(refusal)) from None
            raise
