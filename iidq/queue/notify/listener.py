"""The supervised LISTEN of processes that wait for hints.

A hint may be lost, because every receiver also polls. The listener must notice and report a deaf connection.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from uuid import uuid4

import psycopg

from iidq.database.connections import Connection, answered_within, connect
from iidq.database.pool import Database
from iidq.errors import IidqError
from iidq.observability import logs, metrics
from iidq.queue.notify import channels
from iidq.settings import Settings

# How long a deaf connection may go unnoticed.
CHECK_INTERVAL_SECONDS = 15.0
_ECHO_TIMEOUT_SECONDS = 5.0
# How long a notification may take from its first byte to its last.
_NOTIFICATION_SECONDS = 1.0
_FIRST_RECONNECT_SECONDS = 0.1
_LONGEST_RECONNECT_SECONDS = 10.0


class Listener:
    """Keeps a LISTEN connection open and passes payloads to the callbacks of ``heard``, by channel.

    ``connected`` is called after every (re)connection, when hints may have been missed. ``listening`` is true only
    while the listener has recently received an echo: a pooler between transactions accepts LISTEN and delivers
    nothing.
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
        self._logged_down = False
        self.listening = False

    async def run(self) -> None:
        """Listen until cancelled."""
        delay_seconds = _FIRST_RECONNECT_SECONDS
        while True:
            try:
                connection = await connect(self._settings)
                try:
                    with answered_within(connection, _ECHO_TIMEOUT_SECONDS):
                        await channels.listen(connection, self._echo_channel, self._heard)
                    await self._check_echo(connection)
                    self._set_listening(True)
                    self._logged_down = False
                    logs.listener_up()
                    delay_seconds = _FIRST_RECONNECT_SECONDS
                    self._connected()
                    while True:
                        if not await self._receive(connection, CHECK_INTERVAL_SECONDS):
                            await self._check_echo(connection)
                finally:
                    self._set_listening(False)
                    await connection.close()
            except (IidqError, psycopg.Error, TimeoutError, OSError) as error:
                if not self._logged_down:
                    logs.listener_down(error)
                self._logged_down = True
                # Jittered, because all workers lose their connections at the same moment.
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                delay_seconds = min(_LONGEST_RECONNECT_SECONDS, delay_seconds * 2)

    def _set_listening(self, listening: bool) -> None:
        self.listening = listening
        metrics.listening("jobs" if channels.JOBS_CHANNEL in self._heard else "changes", listening)

    async def _check_echo(self, connection: Connection) -> None:
        """Raise TimeoutError where the connection is deaf: its peer is gone silently, or a pooler is between."""
        async with asyncio.timeout(_ECHO_TIMEOUT_SECONDS):
            # By another connection: through a pooler, a connection hears itself only while it is in use.
            await self._database.run(lambda speaker: channels.echo(speaker, self._echo_channel))
            while self._echo_channel not in await self._receive(connection, _ECHO_TIMEOUT_SECONDS):
                pass

    async def _receive(self, connection: Connection, timeout_seconds: float) -> set[str]:
        """Wait for notifications and pass their payloads on; return the channels, none after the time-out."""
        names: set[str] = set()
        if not await _is_readable(connection, timeout_seconds):
            return names
        async for notification in connection.notifies(timeout=_NOTIFICATION_SECONDS, stop_after=1):
            names.add(notification.channel)
            if notification.channel in self._heard:
                self._heard[notification.channel](notification.payload)
        return names


async def _is_readable(connection: Connection, timeout_seconds: float) -> bool:
    """Return whether the server sent anything in time.

    psycopg's own wait wakes up ten times a second, which is a third of the processor time of an idle worker.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    # Kept, because a closed connection has no descriptor.
    descriptor = connection.fileno()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(timeout_seconds):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
