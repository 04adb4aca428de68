"""Keeps the leases of running jobs, from a thread and a connection of its own.

A handler that spins or blocks the event loop must not cost its job the lease: another worker would run it a
second time. Renewal at a third of the lease leaves two further tries before it runs out.
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
from iidq.errors import IidqError
from iidq.observability import logs
from iidq.queue import store
from iidq.queue.row_faults import each_apart
from iidq.queue.store import Fence
from iidq.settings import Settings

_STOP_TIMEOUT_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
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
        faults: Faults,
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._hears_cancellations = hears_cancellations
        self._running = running
        self._lost = lost
        self._faults = faults
        self._interval_seconds = settings.job_lease_seconds / 3
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
            # It may have ended, or be about to begin again.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        """Keep the leases, and begin again after whatever happens: a thread that ended would cost all jobs theirs."""
        while not self._over.is_set():
            try:
                asyncio.run(self._keep())
            except Exception as error:
                pause_seconds = min(_AGAIN_SECONDS, self._interval_seconds / 4)
                logs.background_crashed("lease renewal", error, pause_seconds)
                self._over.wait(pause_seconds)

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        connection: Connection | None = None
        while not self._stopping.is_set() and not self._over.is_set():
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
                        kept = await self._renew(connection, held)
                    self._faults.succeeded("lease renewal")
                    if gone := set(held) - kept:
                        self._worker_loop.call_soon_threadsafe(self._lost, gone)
                except (IidqError, psycopg.Error, TimeoutError) as error:
                    pause_seconds = min(_AGAIN_SECONDS, self._interval_seconds / 4)
                    self._faults.failed("lease renewal", await _named(error, connection), pause_seconds)
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

    async def _renew(self, connection: Connection, held: Sequence[Fence]) -> set[Fence]:
        """Renew, and return what is held still. A row that refuses a new lease keeps its old one."""
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
            # The job is lost if it runs for longer than its lease: operators must not look for a worker that died.
            ours = (translate(error) if isinstance(error, psycopg.Error) else None) or error
            self._faults.row_refused("lease renewal", fence[0], ours)
            self._faults.failed("a job's lease renewal", ours, self._interval_seconds, 2 * self._interval_seconds)

        await each_apart(held, renew, refuse)
        return kept


async def _named(error: Exception, connection: Connection | None) -> Exception:
    if not isinstance(error, psycopg.Error):
        return error
    if connection is not None and not connection.closed:
        with contextlib.suppress(IidqError, psycopg.Error), answered_within(connection, _AGAIN_SECONDS):
            return await name_refusal(error, connection)
    return translate(error) or error
