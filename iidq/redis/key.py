"""The secret that API and worker processes share through Postgres, to sign values with."""

import asyncio
import random

import psycopg

from iidq.database.connections import answered_within, connect, our_settings
from iidq.database.pool import ANSWER_SECONDS
from iidq.database.queries import load_queries
from iidq.errors import IidqError
from iidq.redis.signer import Signer
from iidq.settings import Settings

QUERIES = load_queries("iidq.redis")

_AGAIN_SECONDS = 2.0


class SharedKey:
    """The key of one deployment. Postgres may be away when a process starts, so the key may come later."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = asyncio.Event()
        self.signer: Signer | None = None
        """None until the key is loaded; until then Redis is neither written nor read."""

    async def known(self) -> Signer:
        """Return the signer; wait until the key is loaded."""
        await self._known.wait()
        assert self.signer is not None
        return self.signer

    async def load(self) -> None:
        """Read the key from Postgres; try again every two seconds until it is there."""
        while self.signer is None:
            try:
                async with await connect(self._settings) as connection:
                    with answered_within(connection, ANSWER_SECONDS):
                        async with our_settings(connection):
                            row = await (await connection.execute(QUERIES["accelerator_key"])).fetchone()
            except (IidqError, psycopg.Error):
                row = None
            if row is None:
                # Postgres is away or not migrated, or another process has just inserted the key.
                await asyncio.sleep(_AGAIN_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
            else:
                self.signer = Signer(bytes(row[0]))
        self._known.set()
