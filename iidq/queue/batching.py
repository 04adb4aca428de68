"""Group commit: many callers, one statement.

Whoever comes while a statement is in flight shares the next one; each caller returns after the commit that holds
its own item. Alone, a caller waits for nobody; with 256 callers one connection commits 55,000 rows/s where one
row per transaction reaches 24,000.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Generic, TypeVar
from uuid import UUID

import psycopg

from iidq.concurrency.background import start_background
from iidq.database.connections import Connection, is_shared
from iidq.database.hot_statement import HeldConnection
from iidq.database.pool import WRITE_SECONDS, Database
from iidq.database.sqlstates import concerns_one_row, fault_of_code, may_be_of_one_row
from iidq.errors import DatabaseUnavailable, FieldFault, IdempotencyConflict, IidqError, InvalidInput, RowRefused
from iidq.observability import logs
from iidq.queue import store
from iidq.queue.job import IdempotencyKey, NewJob
from iidq.queue.notify.hint_bus import NO_RELAY, Relay
from iidq.queue.notify.listener import Announcer
from iidq.settings import Settings

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LARGEST_BATCH = 1000
# Inserts in flight at a time: while Postgres commits one batch, Python prepares the other (256 callers: 52,000 rows/s
# instead of 37,000; a third lane gains nothing).
_LANES = 2
# Up to here one lane is at least as fast as two: a statement costs as much as ten rows, and the flush of its commit as
# much again (16 callers: 22,100 instead of 19,100; 32 and more: the same).
_ONE_LANE_TAKES = 32
# How long an Idempotency-Key stands for its first request.
KEY_LIFETIME_SECONDS = 86_400.0


async def _holds_nothing() -> None:
    """There is nothing to give back."""


class GroupCommit(Generic[Item, Answer]):
    """Gathers items and hands them to ``write`` in batches, one batch at a time, in the order they came.

    ``write`` answers for each item of its batch, in order. Where it raises an error that ``blames_one_item``, its items
    are written one by one, so that a bad one fails alone; any other error goes to all callers of that batch.
    ``on_idle`` is called when all is written and nobody has come, and when the writer is ended.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        blames_one_item: Callable[[BaseException], bool] = may_be_of_one_row,
        largest_batch: int = _LARGEST_BATCH,
        on_idle: Callable[[], Awaitable[None]] = _holds_nothing,
    ) -> None:
        self._write = write
        self._on_idle = on_idle
        self._blames_one_item = blames_one_item
        self._largest_batch = largest_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Answer], float]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.pending = 0
        self.asked_at = 0.0
        """When the first item of the batch under way was submitted, by the event loop's clock."""

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """The answer for ``item``, there once its batch is written; ``pending`` counts the answers that are due."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer, loop.time()))
        self.pending += 1
        if self._writer is None:
            self._writer = start_background(self._write_all(), "group commit")
        return answer

    async def close(self) -> None:
        """Return when everything submitted so far is written."""
        while self._writer is not None:
            await self._writer

    def abandon(self) -> None:
        """Write no more; whoever waits is cancelled."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write_all(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Answer], float]] = []
        try:
            while self._waiting:
                while await self._gather():
                    batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._largest_batch))]
                    await self._write_batch(batch)
                    self.pending -= len(batch)
                await self._on_idle()
        except asyncio.CancelledError:
            await self._on_idle()
            raise
        finally:
            self._writer = None
            self.pending = 0
            # Only a cancelled writer leaves anybody behind.
            for _, future, _ in (*batch, *self._waiting):
                _settle(future, asyncio.CancelledError())
            self._waiting.clear()

    async def _gather(self) -> bool:
        # Whoever is about to ask may come along: until a round of the event loop brings nobody new. A loaded API
        # process puts 30 submissions into a statement instead of 6, which is worth a tenth of each.
        seen = -1
        while seen < len(self._waiting) < self._largest_batch:
            seen = len(self._waiting)
            await asyncio.sleep(0)
        return bool(self._waiting)

    async def _write_batch(self, batch: list[tuple[Item, asyncio.Future[Answer], float]]) -> None:
        self.asked_at = batch[0][2]
        try:
            answers = await self._write([item for item, _, _ in batch])
        except BaseException as error:
            if len(batch) > 1 and self._blames_one_item(error):
                # Halves: one by one, the last of a thousand would run into the deadline of the first.
                middle = len(batch) // 2
                await self._write_batch(batch[:middle])
                await self._write_batch(batch[middle:])
                return
            for _, future, _ in batch:
                _settle(future, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future, _), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _settle(future: asyncio.Future[Answer], error: BaseException) -> None:
    # A caller that was cancelled meanwhile asks no more.
    if future.done():
        return
    if isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.cancel()


class Enqueuer:
    """Inserts jobs for many callers at once and wakes workers after the commit."""

    def __init__(self, database: Database, announcer: Announcer, *, max_attempts: int) -> None:
        self._database = database
        self._announcer = announcer
        self._max_attempts = max_attempts
        self._inserts_announce = True
        self._lanes = [self._lane() for _ in range(_LANES)]
        self._keyed_commits: GroupCommit[NewJob, UUID | None] = GroupCommit(self._insert_under_keys)

    def _lane(self) -> GroupCommit[NewJob, UUID | None]:
        held = HeldConnection(self._database)

        async def insert(jobs: Sequence[NewJob]) -> Sequence[UUID]:
            return await self._insert(held, jobs, by=lane.asked_at + WRITE_SECONDS)

        lane: GroupCommit[NewJob, UUID | None] = GroupCommit(insert, on_idle=held.release)
        return lane

    async def enqueue(self, job: NewJob) -> UUID:
        """Return the job's id when its row is durable: under a key that is known, the id of the first such job.

        Raises DatabaseUnavailable, after ``WRITE_SECONDS`` at the latest, RowRefused where a constraint or trigger
        refuses the row, IdempotencyConflict where the key stands for another request.
        """
        try:
            if job.key is None:
                lane = self._lanes[0]
                if lane.pending >= _ONE_LANE_TAKES:
                    lane = min(self._lanes, key=attrgetter("pending"))
                job_id = await lane.submit(job)
            else:
                job_id = await self._keyed_commits.submit(job)
        except DatabaseUnavailable as error:
            raise fault_of_code(error) or error from error.__cause__
        except (RowRefused, psycopg.Error) as error:
            raise _refusal(error, job.id) from error
        if job_id is None:
            raise IdempotencyConflict("this Idempotency-Key was used for another request; expected a new key")
        return job_id

    async def enqueue_batch(self, batch_id: UUID, jobs: Sequence[NewJob], key: IdempotencyKey | None) -> UUID:
        """Return when all rows are durable, in one transaction: the id of the batch that the key stands for.

        Raises as ``enqueue`` does; then no row is there.
        """

        async def insert(connection: Connection) -> UUID | None:
            return await store.enqueue_batch(
                connection, batch_id, jobs, key, max_attempts=self._max_attempts, keep_seconds=KEY_LIFETIME_SECONDS
            )

        try:
            stands_for = await self._database.write(insert)
        except DatabaseUnavailable as error:
            raise fault_of_code(error) or error from error.__cause__
        except (RowRefused, psycopg.Error) as error:
            raise await self._refusal_of_batch(error, batch_id, jobs) from error
        if stands_for is None:
            raise IdempotencyConflict("this Idempotency-Key was used for another request; expected a new key")
        self._announcer.announce()
        return stands_for

    async def _refusal_of_batch(
        self, error: RowRefused | psycopg.Error, batch_id: UUID, jobs: Sequence[NewJob]
    ) -> Exception:
        refusal = _refusal(error, batch_id)
        if not isinstance(refusal, RowRefused):
            return refusal

        async def find(connection: Connection) -> int | None:
            return await store.first_refused(connection, jobs, max_attempts=self._max_attempts)

        # Without it the caller still learns that the batch was refused.
        item = None
        with contextlib.suppress(IidqError, psycopg.Error):
            item = await self._database.write(find)
        return RowRefused(refusal.message, conflict=refusal.conflict, item=item)

    async def close(self) -> None:
        """Return when all rows are in."""
        for lane in self._lanes:
            await lane.close()
        await self._keyed_commits.close()

    async def _insert(self, held: HeldConnection, jobs: Sequence[NewJob], *, by: float) -> Sequence[UUID]:
        async def insert(connection: Connection) -> bool:
            self._inserts_announce = not is_shared(connection)
            return await store.enqueue(connection, jobs, max_attempts=self._max_attempts, announce=announces)

        turn = None
        if self._inserts_announce and all(job.callback_url is None for job in jobs):
            turn = self._announcer.take_turn()
        announces, announced = turn is not None, False
        try:
            announced = await held.run(insert, by=by)
        finally:
            if announced and turn is not None:
                self._announcer.announced(turn)
            else:
                self._announcer.announce()
        return [job.id for job in jobs]

    async def _insert_under_keys(self, jobs: Sequence[NewJob]) -> Sequence[UUID | None]:
        async def insert(connection: Connection) -> list[UUID | None]:
            return await store.enqueue_under_keys(
                connection, jobs, max_attempts=self._max_attempts, keep_seconds=KEY_LIFETIME_SECONDS
            )

        ids = await self._database.run(insert, by=self._keyed_commits.asked_at + WRITE_SECONDS)
        self._announcer.announce()
        return ids


def _refusal(error: RowRefused | psycopg.Error, job_id: UUID) -> Exception:
    """Return what the caller reads where the database refuses the row, such as a trigger of the operator's."""
    if not concerns_one_row(error):
        return error
    logs.submission_refused(job_id, error)
    if isinstance(error, RowRefused):
        # One of its own: callers who share a statement share its error.
        return RowRefused(error.message, conflict=error.conflict)
    return InvalidInput([FieldFault("job", "cannot be stored; expected other values")])


@asynccontextmanager
async def open_enqueuer(database: Database, settings: Settings, relay: Relay = NO_RELAY) -> AsyncIterator[Enqueuer]:
    """An :class:`Enqueuer` that has written everything when it closes."""
    async with Announcer(database, relay) as announcer:
        enqueuer = Enqueuer(database, announcer, max_attempts=settings.max_retry_attempts)
        try:
            yield enqueuer
        finally:
            await enqueuer.close()
