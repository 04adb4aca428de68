"""Telling those who watch jobs what changed: a worker's side. ``watching.py`` is the other.

Somebody watches → "watching" is heard here → for a minute, ids of changed jobs are notified, coalesced. A hint, as all
of our notifications: watchers look for themselves once a second.
"""

import asyncio
import contextlib
import time
from uuid import UUID

import psycopg

from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.queue.notify import announcements
from iidq.queue.notify.hint_bus import NO_RELAY, PROGRESS_CHANNEL, Relay, progress_line

WATCHED_SECONDS = 60.0
"""How long a worker believes that somebody watches; the watchers' side says so several times in between."""
# At most one NOTIFY per worker and interval, as for announcements of work.
_INTERVAL_SECONDS = 0.01
# Of a burst, those beyond are seen by the watchers' own look.
_MOST_PENDING = 10_000


class ChangeAnnouncer:
    """Notifies the ids of changed jobs while somebody watches; else a change costs a comparison."""

    def __init__(self, database: Database, relay: Relay = NO_RELAY) -> None:
        self._database = database
        self._relay = relay
        self._watched_until = 0.0
        self._changed: dict[UUID, None] = {}
        self._asked = asyncio.Event()

    def watched(self, _payload: str = "") -> None:
        """Somebody watches."""
        self._watched_until = time.monotonic() + WATCHED_SECONDS

    def changed(self, job_id: UUID) -> None:
        """The row of this job was committed with something new in it. Returns at once."""
        if time.monotonic() < self._watched_until and len(self._changed) < _MOST_PENDING:
            self._changed[job_id] = None
            self._asked.set()

    @property
    def relays_progress(self) -> bool:
        """Whether watchers learn of each step without its being stored."""
        return self._relay.carries(PROGRESS_CHANNEL)

    def progressed(self, job_id: UUID, attempt: int, percent: int) -> None:
        """A running job has come so far; not stored yet, and perhaps never."""
        if time.monotonic() < self._watched_until:
            self._relay.publish(PROGRESS_CHANNEL, progress_line(job_id, attempt, percent))

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            changed, self._changed = list(self._changed), {}
            # What cannot be told now is seen by the watchers' own look.
            if not await self._relay.deliver(announcements.CHANGED_CHANNEL, [str(job_id) for job_id in changed]):
                with contextlib.suppress(IidqError, psycopg.Error):
                    async with self._database.connection() as connection:
                        await announcements.announce_changes(connection, changed)
            await asyncio.sleep(_INTERVAL_SECONDS)
