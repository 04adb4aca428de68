"""Availability of Postgres: one background probe per API process decides for all requests.

The probe runs the cheapest query on a separate connection. Postgres counts as lost when the connection breaks or falls
silent and a new connection fails, too. Then the circuit opens (:meth:`Database.open_circuit`), and requests no
longer wait for a time-out. The circuit closes when a new connection answers.

A server with a silent synchronous standby answers all reads but confirms no commit. While a write takes long, and
until an open circuit closes, the probe also commits. Without confirmation only writes are refused
(:meth:`Database.refuse_writes`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic
from typing import Final

import psycopg

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.connections import Connection, answered_within, connect_arguments, settle
from iidq.database.pool import Database
from iidq.database.steady import wait_at_most
from iidq.errors import DatabaseUnavailable
from iidq.observability import logs
from iidq.queue import store
from iidq.queue.read import queue_health
from iidq.settings import Settings

PROBE_INTERVAL_SECONDS: Final = 0.4
"""Pause between two probes."""
PROBE_ANSWER_SECONDS: Final = 0.7
"""Longest silence of the probe's connection."""
RECONNECT_SECONDS: Final = 0.7
"""Longest time for a new connection and its answer. The three together stay below the 2 s to notice a loss."""
CONFIRM_SECONDS: Final = 1.0
"""A longer commit counts as stalled. With ``DOUBT_SECONDS`` the time stays below ``WRITE_SECONDS``."""
CONNECT_SECONDS: Final = 2
"""Per host, without a connection. With the interval the time stays below the 5 s to notice the return."""
CONNECT_ALL_HOSTS_SECONDS: Final = 20.0
"""For all hosts of the URL together."""


class Availability:
    """The probe of one process, which opens and closes the circuit of ``database``."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._url = settings.database_url or ""
        self._schema = settings.database_schema
        self._sync_fallback = settings.sync_fallback == "on"
        self._connection: Connection | None = None
        self._lost_at = 0.0

    async def watch(self) -> None:
        """Probe until cancelled, and at once when a caller found a broken connection."""
        try:
            while True:
                try:
                    await self._probe()
                except Exception as error:
                    # The probe must go on, because only it closes an open circuit.
                    logs.database_lost("availability", error, PROBE_INTERVAL_SECONDS)
                # Cleared after the probe, which has noticed earlier breaks.
                self._database.suspected.clear()
                await wait_at_most(self._database.suspected, PROBE_INTERVAL_SECONDS)
        finally:
            await self._hang_up()

    async def _probe(self) -> None:
        database = self._database
        if not await self._answers():
            # Only the loss of an open connection must be noticed soon; a first connection may take longer.
            had_connection = self._connection is not None
            await self._hang_up()
            connected = await self._connect(RECONNECT_SECONDS if had_connection else CONNECT_ALL_HOSTS_SECONDS)
            if database.refusal is not None:
                database.faults.failed("connection", database.refusal, PROBE_INTERVAL_SECONDS)
            else:
                database.faults.succeeded("connection")
            if not connected:
                if not database.away:
                    self._open("the database cannot be reached")
                    await database.open_circuit()
                return
            if had_connection and not database.away:
                # The connection was dead and the server is not: other connections may be dead, too.
                await database.reconnect()
        if not database.commits_doubted and not database.refuses_writes:
            return
        if await self._confirms():
            if database.refuses_writes:
                logs.circuit_closed(monotonic() - self._lost_at)
                database.close_circuit()
        elif not database.stalled:
            self._open("commits are not confirmed")
            database.refuse_writes()

    def _open(self, cause: str) -> None:
        if not self._database.refuses_writes:
            self._lost_at = monotonic()
        logs.circuit_opened(self._sync_fallback, cause)

    async def _answers(self) -> bool:
        if self._connection is None:
            return False
        try:
            with answered_within(self._connection, PROBE_ANSWER_SECONDS):
                return not await queue_health.is_read_only(self._connection)
        except psycopg.Error:
            return False

    async def _confirms(self) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            with answered_within(connection, CONFIRM_SECONDS + PROBE_ANSWER_SECONDS):
                await store.confirm(connection, CONFIRM_SECONDS)
        except DatabaseUnavailable:
            return False
        except psycopg.Error:
            # A server that refuses at once does not stall.
            return not connection.closed
        return True

    async def _connect(self, limit_seconds: float) -> bool:
        try:
            async with asyncio.timeout(limit_seconds):
                connection = await Connection.connect(
                    self._url,
                    # A pooler shares its server connections.
                    prepare_threshold=None,
                    **{**connect_arguments(), "connect_timeout": CONNECT_SECONDS},
                )
                self._connection = connection
                await settle(connection, self._schema)
        except (psycopg.Error, OSError, TimeoutError, DatabaseUnavailable) as error:
            self._database.note_connect(error if isinstance(error, psycopg.Error) else None)
            await self._hang_up()
            return False
        self._database.note_connect(None)
        if await self._answers():
            return True
        await self._hang_up()
        return False

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@contextlib.asynccontextmanager
async def watched(settings: Settings, database: Database) -> AsyncIterator[None]:
    """Probe Postgres within the block."""
    watching = keep_running(Availability(settings, database).watch, "database availability")
    try:
        yield
    finally:
        await end_tasks([watching])
