"""Costly reads: lists and overviews have a small share of the pool, so that submissions keep the rest."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from iidq.database.connections import Connection
from iidq.database.pool import Database
from iidq.errors import DatabaseBusy

T = TypeVar("T")

CONNECTIONS: Final = 2
"""Of each share, at a time. With lists and overviews half of the pool is left."""
MAX_WAITING: Final = 64
WAIT_SECONDS: Final = 2.0


class Reads:
    """Runs reads on at most ``CONNECTIONS`` connections at a time; up to ``MAX_WAITING`` others wait their turn."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._waiting = 0

    async def run(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        """As :meth:`Database.run`; raises :class:`DatabaseBusy` where too many wait, or the wait is too long."""
        await self._take_turn()
        try:
            return await self._database.run(read)
        finally:
            self._turns.release()

    async def _take_turn(self) -> None:
        if self._turns.locked() and self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1


def _busy() -> DatabaseBusy:
    return DatabaseBusy("Too many lists and counts are being read; try again", retry_after_seconds=WAIT_SECONDS)
