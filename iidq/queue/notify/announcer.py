"""Senders of hints: of new work after inserts, and of changed jobs while clients watch. Both coalesce."""

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self
from uuid import UUID

import psycopg

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.queue.notify import channels
from iidq.queue.notify.hint_bus import NO_HINT_BUS, PROGRESS_CHANNEL, HintBus, progress_line

# At most one NOTIFY per process and interval, because each takes the database-wide commit lock for a moment.
ANNOUNCE_INTERVAL_SECONDS = 0.01
# How long a due announcement waits for an insert that can carry it. A NOTIFY in a statement of its own every 10 ms cost
# a stream of inserts a tenth of its rate.
_INSERT_MAY_COME_SECONDS = 0.002
WATCHED_SECONDS = 60.0
"""How long a worker reports changes after a watchers' call; the call is repeated several times in between."""
# Changes beyond are found by the watchers' poll.
_MOST_PENDING = 10_000


class Announcer:
    """Sends NOTIFY after commits, at most one per ``ANNOUNCE_INTERVAL_SECONDS``, unless the insert sends it."""

    def __init__(self, database: Database, hint_bus: HintBus = NO_HINT_BUS) -> None:
        self._database = database
        self._hint_bus = hint_bus
        self._wake = asyncio.Event()
        # Requests are numbered; an announcement serves all requests made before it began.
        self._requested = self._served = 0
        self._next = 0.0
        self._task: asyncio.Task[None] | None = None

    def announce(self) -> None:
        """Request an announcement of new work. Return at once."""
        self._requested += 1
        self._wake.set()

    def reserve(self) -> int | None:
        """Reserve the next NOTIFY for an insert; return None if the interval has not passed.

        The caller then calls :meth:`announced` with the reserved number, or :meth:`announce` without a NOTIFY.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return None
        self._next = now + ANNOUNCE_INTERVAL_SECONDS
        return self._requested

    def announced(self, slot: int) -> None:
        """Note that an insert sent the NOTIFY, and publish the same hint on the hint bus."""
        self._served = max(self._served, slot)
        self._hint_bus.publish(channels.JOBS_CHANNEL, channels.WAKE_ONE)

    async def __aenter__(self) -> Self:
        self._task = keep_running(self._run, "announcements")
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await end_tasks([self._task])
        if self._served < self._requested:
            await self._send()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._wake.wait()
            requested = self._requested
            await asyncio.sleep(self._next - clock() + _INSERT_MAY_COME_SECONDS)
            if self._served < requested:
                self._next = clock() + ANNOUNCE_INTERVAL_SECONDS
                await self._send()
            elif self._served == self._requested:
                self._wake.clear()

    async def _send(self) -> None:
        self._wake.clear()
        self._served = self._requested
        self._hint_bus.publish(channels.JOBS_CHANNEL, channels.WAKE_ONE)
        # The workers' polling replaces lost announcements.
        with contextlib.suppress(IidqError, psycopg.Error):
            await self._database.run(channels.announce)


class ChangeAnnouncer:
    """Sends ids of changed jobs while clients watch; otherwise a change costs one comparison.

    A watchers' call ("iidq_watching") starts it for ``WATCHED_SECONDS``. ``watching.py`` is the other side.
    """

    def __init__(self, database: Database, hint_bus: HintBus = NO_HINT_BUS) -> None:
        self._database = database
        self._hint_bus = hint_bus
        self._watched_until = 0.0
        self._changed: dict[UUID, None] = {}
        self._wake = asyncio.Event()

    def watched(self, _payload: str = "") -> None:
        """Note a watchers' call."""
        self._watched_until = time.monotonic() + WATCHED_SECONDS

    def changed(self, job_id: UUID) -> None:
        """Report a committed change of this job's row. Return at once."""
        if time.monotonic() < self._watched_until and len(self._changed) < _MOST_PENDING:
            self._changed[job_id] = None
            self._wake.set()

    @property
    def publishes_progress(self) -> bool:
        """Whether watchers receive each step without a write to the row."""
        return self._hint_bus.is_up(PROGRESS_CHANNEL)

    def progressed(self, job_id: UUID, attempt: int, percent: int) -> None:
        """Publish a step of a running job that is not stored yet."""
        if time.monotonic() < self._watched_until:
            self._hint_bus.publish(PROGRESS_CHANNEL, progress_line(job_id, attempt, percent))

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = list(self._changed), {}
            # The watchers' poll finds changes that cannot be sent now.
            if not await self._hint_bus.publish_now(channels.CHANGED_CHANNEL, [str(job_id) for job_id in changed]):
                with contextlib.suppress(IidqError, psycopg.Error):
                    async with self._database.connection() as connection:
                        await channels.announce_changes(connection, changed)
            await asyncio.sleep(ANNOUNCE_INTERVAL_SECONDS)
