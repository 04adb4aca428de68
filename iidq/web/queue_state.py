"""What this process last saw of the queue: one query a second, however many ask."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Generic, TypeVar

import psycopg

from iidq.concurrency.single_flight import SingleFlight
from iidq.database.connections import Connection
from iidq.database.obstacles import find_obstacles
from iidq.errors import IidqError
from iidq.queue.read.queue_health import read_health
from iidq.web.reads import Reads

T = TypeVar("T")

KEEP_SECONDS: Final = 1.0
READ_SECONDS: Final = 3.0
"""A scrape that waits longer for the database goes without."""


class LatelyRead(Generic[T]):
    """The answer to one query; those who ask at the same time share it."""

    def __init__(self, reads: Reads, query: Callable[[Connection], Awaitable[T]]) -> None:
        self._reads = reads
        self._query = query
        self._flights: SingleFlight[None, T | None] = SingleFlight()
        self._answer: T | None = None
        self._read_at = float("-inf")

    async def read(self) -> T | None:
        """An answer of the last second, None where the database is away, refuses or is too slow."""
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
    """The queue's depth, and what keeps this process' role from its work."""

    def __init__(self, reads: Reads) -> None:
        self.read = LatelyRead(reads, lambda connection: read_health(connection)).read
        self.obstacles = LatelyRead(reads, find_obstacles).read
