"""Keeps the leases of running jobs, from a thread and a connection of its own.

A handler that spins or blocks the event loop must not cost its job the lease: another worker would run it a
second time. Renewal at a third of the lease leaves two further tries before it runs out.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import psycopg

from iidq import logs
from iidq.database import Connection, answered_within, connect, our_settings
from iidq.errors import IidqError
from iidq.queue import store
from iidq.queue.store import Fence
from iidq.settings import Settings

_STOP_TIMEOUT_SECONDS = 5.0
# How soon a running job must notice that it was cancelled.
_CANCELLATION_SECONDS = 0.8


class LeaseKeeper:
    """Renews the leases of all ``running`` jobs; ``lost`` is told, in the worker's loop, of those that are gone.

    ``running`` is shared with the worker's loop, which alone changes it; this thread reads a copy.
    """

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        running: Mapping[Fence, Any],
        lost: Callable[[set[Fence]], None],
        hears_cancellations: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._hears_cancellations = hears_cancellations
        self._running = running
        self._lost = lost
        self._interval_seconds = settings.job_lease_seconds / 3
        self._worker_loop = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._keep()), name="iidq-leases", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        await asyncio.to_thread(self._started.wait)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_SECONDS)

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._started.set()
        connection: Connection | None = None
        broken = False
        while not self._stopping.is_set():
            pause_seconds = self._interval_seconds
            if not self._hears_cancellations():
                # Then the renewal is what tells of them.
                pause_seconds = min(pause_seconds, _CANCELLATION_SECONDS)
            held = list(self._running)
            if held:
                try:
                    if connection is None or connection.closed:
                        async with asyncio.timeout(self._interval_seconds):
                            connection = await connect(self._settings)
                    with answered_within(connection, self._interval_seconds):
                        async with our_settings(connection):
                            kept = await store.renew(
                                connection,
                                held,
                                worker_id=self._worker_id,
                                lease_seconds=self._settings.job_lease_seconds,
                            )
                    if broken:
                        logs.database_back("lease renewal")
                    broken = False
                    if gone := set(held) - kept:
                        self._worker_loop.call_soon_threadsafe(self._lost, gone)
                # Whatever it is: a thread that ended silently would cost all jobs their leases.
                except Exception as error:
                    pause_seconds = min(1.0, self._interval_seconds / 4)
                    if not isinstance(error, IidqError | psycopg.Error | TimeoutError):
                        logs.background_crashed("lease renewal", error)
                    elif not broken:
                        logs.database_lost("lease renewal", error, pause_seconds)
                    broken = True
                    if connection is not None:
                        await connection.close()
                    connection = None
            try:
                async with asyncio.timeout(pause_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        if connection is not None:
            await connection.close()
