"""Inserts jobs for many callers at once, a statement and a commit per batch, and wakes workers."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from uuid import UUID

import psycopg

from iidq.concurrency.batcher import Batcher
from iidq.database.connections import Connection, is_shared
from iidq.database.hot_statement import HeldConnection
from iidq.database.pool import WRITE_SECONDS, Database
from iidq.database.sqlstates import concerns_one_row, fault_of_code, may_be_of_one_row
from iidq.errors import DatabaseUnavailable, FieldFault, IdempotencyConflict, IidqError, InvalidInput, RowRefused
from iidq.observability import logs
from iidq.queue import store
from iidq.queue.job import IdempotencyKey, NewJob
from iidq.queue.notify.announcer import Announcer
from iidq.queue.notify.hint_bus import NO_HINT_BUS, HintBus
from iidq.settings import Settings

# Inserts in flight at a time: Python prepares one batch while Postgres commits the other. A third lane gains nothing.
_LANES = 2
# Up to this many pending jobs one lane is at least as fast as two: half as many commits.
_ONE_LANE_TAKES = 32
KEY_LIFETIME_SECONDS = 86_400.0
"""How long an Idempotency-Key refers to its first request."""


class Enqueuer:
    """Inserts jobs for many callers at once and wakes workers after the commit."""

    def __init__(self, database: Database, announcer: Announcer, *, max_attempts: int) -> None:
        self._database = database
        self._announcer = announcer
        self._max_attempts = max_attempts
        self._inserts_announce = True
        self._lanes = [self._lane() for _ in range(_LANES)]
        self._keyed: Batcher[NewJob, UUID | None] = Batcher(self._insert_under_keys, blames_one_item=may_be_of_one_row)

    def _lane(self) -> Batcher[NewJob, UUID | None]:
        held = HeldConnection(self._database)

        async def insert(jobs: Sequence[NewJob]) -> Sequence[UUID]:
            return await self._insert(held, jobs, by=lane.submitted_at + WRITE_SECONDS)

        lane: Batcher[NewJob, UUID | None] = Batcher(insert, blames_one_item=may_be_of_one_row, on_idle=held.release)
        return lane

    async def enqueue(self, job: NewJob) -> UUID:
        """Insert the job durably and return its id; under a known key, return the id of the first such job.

        Raise DatabaseUnavailable, after ``WRITE_SECONDS`` at the latest, RowRefused where a constraint or trigger
        refuses the row, IdempotencyConflict where the key belongs to another request.
        """
        try:
            if job.key is None:
                lane = self._lanes[0]
                if lane.pending >= _ONE_LANE_TAKES:
                    lane = min(self._lanes, key=attrgetter("pending"))
                job_id = await lane.submit(job)
            else:
                job_id = await self._keyed.submit(job)
        except DatabaseUnavailable as error:
            raise fault_of_code(error) or error from error.__cause__
        except (RowRefused, psycopg.Error) as error:
            raise _refusal(error, job.id) from error
        if job_id is None:
            raise IdempotencyConflict("this Idempotency-Key was used for another request; expected a new key")
        return job_id

    async def enqueue_batch(self, batch_id: UUID, jobs: Sequence[NewJob], key: IdempotencyKey | None) -> UUID:
        """Insert all jobs durably in one transaction; return the id of the batch, or of the key's first batch.

        Raise as ``enqueue`` does; then no row is stored.
        """

        async def insert(connection: Connection) -> UUID | None:
            return await store.enqueue_batch(
                connection, batch_id, jobs, key, max_attempts=self._max_attempts, keep_seconds=KEY_LIFETIME_SECONDS
            )

        try:
            known_as = await self._database.write(insert)
        except DatabaseUnavailable as error:
            raise fault_of_code(error) or error from error.__cause__
        except (RowRefused, psycopg.Error) as error:
            raise await self._refusal_of_batch(error, batch_id, jobs) from error
        if known_as is None:
            raise IdempotencyConflict("this Idempotency-Key was used for another request; expected a new key")
        self._announcer.announce()
        return known_as

    async def _refusal_of_batch(
        self, error: RowRefused | psycopg.Error, batch_id: UUID, jobs: Sequence[NewJob]
    ) -> Exception:
        refusal = _refusal(error, batch_id)
        if not isinstance(refusal, RowRefused):
            return refusal

        async def find(connection: Connection) -> int | None:
            return await store.first_refused(connection, jobs, max_attempts=self._max_attempts)

        # Without the item the error still says that the batch was refused.
        item = None
        with contextlib.suppress(IidqError, psycopg.Error):
            item = await self._database.write(find)
        return RowRefused(refusal.message, conflict=refusal.conflict, item=item)

    async def close(self) -> None:
        """Return when all submitted jobs are inserted."""
        for lane in self._lanes:
            await lane.close()
        await self._keyed.close()

    async def _insert(self, held: HeldConnection, jobs: Sequence[NewJob], *, by: float) -> Sequence[UUID]:
        async def insert(connection: Connection) -> bool:
            self._inserts_announce = not is_shared(connection)
            return await store.enqueue(connection, jobs, max_attempts=self._max_attempts, announce=announces)

        slot = None
        if self._inserts_announce and all(job.callback_url is None for job in jobs):
            slot = self._announcer.reserve()
        announces, announced = slot is not None, False
        try:
            announced = await held.run(insert, by=by)
        finally:
            if announced and slot is not None:
                self._announcer.announced(slot)
            else:
                self._announcer.announce()
        return [job.id for job in jobs]

    async def _insert_under_keys(self, jobs: Sequence[NewJob]) -> Sequence[UUID | None]:
        async def insert(connection: Connection) -> list[UUID | None]:
            return await store.enqueue_under_keys(
                connection, jobs, max_attempts=self._max_attempts, keep_seconds=KEY_LIFETIME_SECONDS
            )

        ids = await self._database.run(insert, by=self._keyed.submitted_at + WRITE_SECONDS)
        self._announcer.announce()
        return ids


def _refusal(error: RowRefused | psycopg.Error, job_id: UUID) -> Exception:
    """Return the error for the caller where the database refuses the row, such as a trigger of the operator."""
    if not concerns_one_row(error):
        return error
    logs.submission_refused(job_id, error)
    if isinstance(error, RowRefused):
        # A copy per caller, because callers that share a statement share its error.
        return RowRefused(error.message, conflict=error.conflict)
    return InvalidInput([FieldFault("job", "cannot be stored; expected other values")])


@asynccontextmanager
async def open_enqueuer(
    database: Database, settings: Settings, hint_bus: HintBus = NO_HINT_BUS
) -> AsyncIterator[Enqueuer]:
    """Open an :class:`Enqueuer`; on exit all submitted jobs are inserted first."""
    async with Announcer(database, hint_bus) as announcer:
        enqueuer = Enqueuer(database, announcer, max_attempts=settings.max_retry_attempts)
        try:
            yield enqueuer
        finally:
            await enqueuer.close()
