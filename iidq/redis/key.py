"""The secret that API and workers share through Postgres, and seal with."""

import asyncio
import random

import psycopg

from iidq.database.connections import answered_within, connect, our_settings
from iidq.database.pool import ANSWER_SECONDS
from iidq.database.queries import load_queries
from iidq.errors import IidqError
from iidq.redis.sealing import Seal
from iidq.settings import Settings

QUERIES = load_queries("iidq.redis")

_AGAIN_SECONDS = 2.0


class SharedKey:
    """The deployment's key, once it is known: Postgres may be away when a process starts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = asyncio.Event()
        self.seal: Seal | None = None
        """None until it is known; nothing is written to Redis, or believed of it, before."""

    async def known(self) -> Seal:
        """The seal; waits for it."""
        await self._known.wait()
        assert self.seal is not None
        return self.seal

    async def load(self) -> None:
        """Ask Postgres until it tells."""
        while self.seal is None:
            try:
                async with await connect(self._settings) as connection:
                    with answered_within(connection, ANSWER_SECONDS):
                        async with our_settings(connection):
                            row = await (await connection.execute(QUERIES["accelerator_key"])).fetchone()
            except (IidqError, psycopg.Error):
                row = None
            if row is None:
                # Away, not migrated, or another process made the key in this very moment.
                await asyncio.sleep(_AGAIN_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
            else:
                self.seal = Seal(bytes(row[0]))
        self._known.set()
