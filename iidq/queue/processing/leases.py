"""Renews the leases of a worker's jobs, from a separate thread and connection.

A handler that blocks the event loop must not cost the job the lease: another worker would run the job a second time.
Renewal at a third of the lease leaves time for two further tries.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import psycopg

from iidq.database.connections import Connection, answered_within, connect, our_settings
from iidq.database.faults import Faults
from iidq.database.obstacles import name_refusal
from iidq.database.sqlstates import translate
from iidq.database.steady import wait_at_most
from iidq.errors import IidqError
from iidq.observability import logs
from iidq.queue import store
from iidq.queue.row_faults import each_apart
from iidq.queue.store import Fence
from iidq.settings import Settings

_STOP_TIMEOUT_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 1.0
# How soon a running job must notice that it was cancelled.
_CANCELLATION_SECONDS = 0.8


class LeaseKeeper:
    """Renews all leases in ``held``; calls ``lost`` in the worker's event loop with leases that are gone.

    ``held`` is a live view: only the worker's loop changes the dict, and the thread reads a copy. While
    ``hears_cancellations`` returns False, leases are renewed more often: only a lost lease reports a cancelled job.
    """

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        held: Mapping[Fence, Any],
        lost: Callable[[set[Fence]], None],
        hears_cancellations: Callable[[], bool],
        faults: Faults,
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._hears_cancellations = hears_cancellations
        self._held = held
        self._lost = lost
        self._faults = faults
        self._interval_seconds = settings.job_lease_seconds / 3
        self._retry_seconds = min(_LONGEST_RETRY_SECONDS, self._interval_seconds / 4)
        self._worker_loop = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="iidq-leases", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._loop is not None and self._stopping is not None:
            # The thread's loop may have ended, or be about to begin again.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        """Renew leases until the end, and begin again after any crash: without the thread all jobs lose the lease."""
        while not self._over.is_set():
            try:
                asyncio.run(self._keep())
            except Exception as error:
                logs.background_crashed("lease renewal", error, self._retry_seconds)
                self._over.wait(self._retry_seconds)

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        connection: Connection | None = None
        while not self._stopping.is_set() and not self._over.is_set():
            pause_seconds = self._interval_seconds
            if not self._hears_cancellations():
                pause_seconds = min(pause_seconds, _CANCELLATION_SECONDS)
            if held := list(self._held):
                try:
                    if connection is None or connection.closed:
                        async with asyncio.timeout(self._interval_seconds):
                            connection = await connect(self._settings)
                    await self._renew_all(connection, held)
                except (IidqError, psycopg.Error, TimeoutError) as error:
                    pause_seconds = self._retry_seconds
                    self._faults.failed("lease renewal", await _named(error, connection), pause_seconds)
                    if connection is not None:
                        await connection.close()
                    connection = None
            await wait_at_most(self._stopping, pause_seconds)
        if connection is not None:
            await connection.close()

    async def _renew_all(self, connection: Connection, held: Sequence[Fence]) -> None:
        with answered_within(connection, self._interval_seconds):
            kept = await self._renew(connection, held)
        self._faults.succeeded("lease renewal")
        if gone := set(held) - kept:
            self._worker_loop.call_soon_threadsafe(self._lost, gone)

    async def _renew(self, connection: Connection, held: Sequence[Fence]) -> set[Fence]:
        """Renew leases; return the leases still held. A row that refuses a new lease keeps the old lease."""
        kept: set[Fence] = set()

        async def renew(some: Sequence[Fence]) -> None:
            async with our_settings(connection):
                kept.update(
                    await store.renew(
                        connection, some, worker_id=self._worker_id, lease_seconds=self._settings.job_lease_seconds
                    )
                )

        async def refuse(fence: Fence, error: Exception) -> None:
            kept.add(fence)
            # The job is lost if it outlasts its lease. Operators must not search for a worker that died.
            ours = (translate(error) if isinstance(error, psycopg.Error) else None) or error
            self._faults.row_refused("lease renewal", fence[0], ours)
            self._faults.failed("a job's lease renewal", ours, self._interval_seconds, 2 * self._interval_seconds)

        await each_apart(held, renew, refuse)
        return kept


async def _named(error: Exception, connection: Connection | None) -> Exception:
    """Return our error for ``error``, with the name of the obstacle if the connection can find it."""
    if not isinstance(error, psycopg.Error):
        return error
    if connection is not None and not connection.closed:
        with contextlib.suppress(IidqError, psycopg.Error), answered_within(connection, _LONGEST_RETRY_SECONDS):
            return await name_refusal(error, connection)
    return translate(error) or error
