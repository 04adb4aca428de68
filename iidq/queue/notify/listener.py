"""Wake-ups: the coalesced NOTIFY of those who insert, and the supervised LISTEN of those who wait.

A wake-up is a hint. Whoever misses one is woken by its own poll, so nothing here needs to be reliable; it only
has to notice when it is deaf, and to say so.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from uuid import uuid4

import psycopg

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.connections import Connection, answered_within, connect
from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.observability import logs, metrics
from iidq.queue.notify import announcements
from iidq.queue.notify.hint_bus import NO_RELAY, Relay
from iidq.settings import Settings

# At most one NOTIFY per process and interval: each takes the database-wide commit lock for a moment.
ANNOUNCE_INTERVAL_SECONDS = 0.01
# How long a due announcement waits for an insert that takes it along: a NOTIFY in a statement of its own every 10 ms
# cost a stream of inserts a tenth of its rate.
_INSERT_MAY_COME_SECONDS = 0.002
# How long a deaf connection may go unnoticed.
CHECK_INTERVAL_SECONDS = 15.0
_ANSWER_TIMEOUT_SECONDS = 5.0
# How long a notification may take from its first byte to its last.
_NOTIFICATION_SECONDS = 1.0
_FIRST_RECONNECT_SECONDS = 0.1
_LONGEST_RECONNECT_SECONDS = 10.0


class Announcer:
    """Sends NOTIFY after commits, at most one per ``ANNOUNCE_INTERVAL_SECONDS``, unless the insert itself does."""

    def __init__(self, database: Database, relay: Relay = NO_RELAY) -> None:
        self._database = database
        self._relay = relay
        self._asked = asyncio.Event()
        # Requests are numbered; an announcement serves those made before it began.
        self._requested = self._served = 0
        self._next = 0.0
        self._task: asyncio.Task[None] | None = None

    def announce(self) -> None:
        """There may be something to claim. Returns at once."""
        self._requested += 1
        self._asked.set()

    def take_turn(self) -> int | None:
        """A turn, where one is due, for an insert that can announce by itself, sooner than we could after it.

        Its caller then says whether it did, by :meth:`announced` with the turn, or else by :meth:`announce`.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return None
        self._next = now + ANNOUNCE_INTERVAL_SECONDS
        return self._requested

    def announced(self, turn: int) -> None:
        """An insert has made its announcement through Postgres; here is the rest of it."""
        self._served = max(self._served, turn)
        self._relay.publish(announcements.JOBS_CHANNEL, announcements.TO_FIRST)

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
            await self._asked.wait()
            requested = self._requested
            await asyncio.sleep(self._next - clock() + _INSERT_MAY_COME_SECONDS)
            if self._served < requested:
                self._next = clock() + ANNOUNCE_INTERVAL_SECONDS
                await self._send()
            elif self._served == self._requested:
                self._asked.clear()

    async def _send(self) -> None:
        self._asked.clear()
        self._served = self._requested
        self._relay.publish(announcements.JOBS_CHANNEL, announcements.TO_FIRST)
        # Lost announcements are what the workers' polling is for.
        with contextlib.suppress(IidqError, psycopg.Error):
            await self._database.run(announcements.announce)


class Listener:
    """Keeps one LISTEN connection alive; passes on what it hears, and tells of every (re)connection.

    ``heard`` has, for each channel, who gets the payloads. ``connected`` is called when some may have been missed.
    ``listening`` is true only while this listener has lately heard itself: a pooler that hands connections out per
    transaction takes LISTEN and delivers nothing.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        heard: Mapping[str, Callable[[str], None]],
        connected: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._heard = heard
        self._connected = connected
        self._echo_channel = f"iidq_echo_{uuid4().hex}"
        self._complained = False
        self.listening = False

    async def run(self) -> None:
        """Listen until cancelled."""
        delay_seconds = _FIRST_RECONNECT_SECONDS
        while True:
            try:
                connection = await connect(self._settings)
                try:
                    with answered_within(connection, _ANSWER_TIMEOUT_SECONDS):
                        await announcements.listen(connection, self._echo_channel, self._heard)
                    await self._hear_myself(connection)
                    self._hears(True)
                    self._complained = False
                    logs.listener_up()
                    delay_seconds = _FIRST_RECONNECT_SECONDS
                    self._connected()
                    while True:
                        if not await self._hear(connection, CHECK_INTERVAL_SECONDS):
                            await self._hear_myself(connection)
                finally:
                    self._hears(False)
                    await connection.close()
            except (IidqError, psycopg.Error, TimeoutError, OSError) as error:
                if not self._complained:
                    logs.listener_down(error)
                self._complained = True
                # Jittered: all workers lost their connection at the same moment.
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                delay_seconds = min(_LONGEST_RECONNECT_SECONDS, delay_seconds * 2)

    def _hears(self, hears: bool) -> None:
        self.listening = hears
        metrics.listening("jobs" if announcements.JOBS_CHANNEL in self._heard else "changes", hears)

    async def _hear_myself(self, connection: Connection) -> None:
        """Raises TimeoutError where the connection is deaf: its peer is gone without a word, or a pooler is between."""
        async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
            # By another connection: through a pooler one hears oneself while one speaks, and nothing afterwards.
            await self._database.run(lambda speaker: announcements.echo(speaker, self._echo_channel))
            while self._echo_channel not in await self._hear(connection, _ANSWER_TIMEOUT_SECONDS):
                pass

    async def _hear(self, connection: Connection, timeout_seconds: float) -> set[str]:
        """Wait for notifications and pass them on; return the channels that spoke.

        None after the time-out, or where what came was something else.
        """
        channels: set[str] = set()
        if not await _something_came(connection, timeout_seconds):
            return channels
        async for notification in connection.notifies(timeout=_NOTIFICATION_SECONDS, stop_after=1):
            channels.add(notification.channel)
            if notification.channel in self._heard:
                self._heard[notification.channel](notification.payload)
        return channels


async def _something_came(connection: Connection, timeout_seconds: float) -> bool:
    """Whether the server has sent anything in time.

    psycopg's own wait looks up ten times a second: 0.3 of the 0.9 % of a core that an idle worker took.
    """
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    # A connection that was closed meanwhile no longer tells it.
    descriptor = connection.fileno()
    loop.add_reader(descriptor, came.set)
    try:
        async with asyncio.timeout(timeout_seconds):
            await came.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
