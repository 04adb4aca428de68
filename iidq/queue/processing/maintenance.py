"""Maintenance in background tasks of a worker: retention, a recount of all jobs, a search for hidden rows."""

import asyncio
import contextlib

import psycopg

from iidq.concurrency.background import keep_running
from iidq.database.connections import answered_within, connect, our_settings
from iidq.database.obstacles import find_obstacles
from iidq.database.pool import Database
from iidq.database.steady import try_step
from iidq.errors import DatabaseRefusal, IidqError
from iidq.queue import store
from iidq.queue.upkeep import Retention
from iidq.settings import Settings

# How long a count of all jobs may take: some 100 million of them.
_COUNT_SECONDS = 3600.0
# How many poll intervals lie between two searches for row-level security.
_POLLS_BETWEEN_SEARCHES = 20


class Maintenance:
    """Keeps the database in order while a worker runs."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._poll_seconds = settings.poll_interval_seconds
        self.uncounted = asyncio.Event()
        """Set by a sweep when the kept counts can be of another database: all jobs are counted."""

    def begin(self) -> list[asyncio.Task[None]]:
        """Start the tasks; the caller ends them."""
        return [
            keep_running(self._purge, "retention"),
            keep_running(self._recount, "recount"),
            keep_running(self._find_policies, "policies"),
        ]

    async def _purge(self) -> None:
        retention, pause_seconds = Retention(self._settings), self._poll_seconds

        async def purge() -> None:
            nonlocal pause_seconds
            pause_seconds = await retention.purge(self._database)

        while True:
            await asyncio.sleep(pause_seconds)
            if failed_seconds := await try_step(self._database.faults, "retention", purge(), self._poll_seconds):
                pause_seconds = failed_seconds

    async def _recount(self) -> None:
        while True:
            await self.uncounted.wait()
            await try_step(self._database.faults, "recount", self._count(), self._poll_seconds)
            # A sweep during the count found the same. After a failure the next sweep sets it again.
            self.uncounted.clear()

    async def _count(self) -> None:
        """Count all jobs, on a separate connection: a long count must not meet the deadline of the pool."""
        async with await connect(self._settings) as connection:
            with answered_within(connection, _COUNT_SECONDS):
                async with our_settings(connection):
                    await store.recount(connection)

    async def _find_policies(self) -> None:
        """Report row-level security: jobs may be hidden from the worker without any failing statement."""
        faults = self._database.faults
        while True:
            await asyncio.sleep(self._poll_seconds)
            with contextlib.suppress(IidqError, psycopg.Error):
                while obstacles := await self._database.run(lambda each: find_obstacles(each, "policy", "hidden")):
                    hidden = DatabaseRefusal("row-level security may hide rows from this worker")
                    for obstacle in obstacles:
                        hidden.add_note(obstacle)
                    faults.failed("policies", hidden, self._poll_seconds)
                    await asyncio.sleep(self._poll_seconds)
                faults.succeeded("policies")
            await asyncio.sleep(_POLLS_BETWEEN_SEARCHES * self._poll_seconds)
