"""The queue's depth as this process last saw it: one query a second, however many ask."""

import asyncio
from time import monotonic
from typing import Final

from iidq.errors import DatabaseUnavailable
from iidq.provenance.single_flight import SingleFlight
from iidq.queue.depth import QueueDepth, read_depth
from iidq.web.reads import Reads

KEEP_SECONDS: Final = 1.0
READ_SECONDS: Final = 3.0
"""A scrape that waits longer for the database goes without."""


class QueueState:
    """Reads the queue's depth; those who ask at the same time share one query."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._flights: SingleFlight[None, QueueDepth | None] = SingleFlight()
        self._depth: QueueDepth | None = None
        self._read_at = float("-inf")

    async def read(self) -> QueueDepth | None:
        """A reading of the last second, None where the database is away or too slow."""
        if monotonic() - self._read_at >= KEEP_SECONDS:
            self._depth = await self._flights.run(None, self._read)
            self._read_at = monotonic()
        return self._depth

    async def _read(self) -> QueueDepth | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._reads.run(read_depth)
        except (DatabaseUnavailable, TimeoutError):
            return None
