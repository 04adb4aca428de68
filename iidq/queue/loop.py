"""A worker's loop: free slots are filled by one claim, woken by NOTIFY, by the poll, or by the next due time.

Four things run beside each other: this loop, the attempts, the lease keeper's thread, and the listener. They meet
in ``_running``: every job between its claim and the moment its outcome is stored.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from iidq import __version__, logs
from iidq.database import Database, is_passing, open_database
from iidq.errors import IidqError
from iidq.queue import store, upkeep
from iidq.queue.backoff import RetryPolicy
from iidq.queue.execution import Handler, run_attempt
from iidq.queue.job import ClaimedJob, JobStatus
from iidq.queue.leases import LeaseKeeper
from iidq.queue.listener import Listener
from iidq.queue.outcome import Outcome
from iidq.queue.outcome_writer import OutcomeWriter
from iidq.queue.store import Fence, WorkerSigns
from iidq.settings import Settings

_LARGEST_CLAIM = 250
_PROGRESS_INTERVAL_SECONDS = 0.25
# After the drain's deadline: how long outcomes may still take to reach a database that is away.
_LAST_WRITE_SECONDS = 5.0
# Beside three missed polls: how long a live worker's sweep may take.
_ALIVE_MARGIN_SECONDS = 2.0


@dataclass(slots=True)
class _Running:
    """A job between its claim and its stored outcome."""

    job: ClaimedJob
    task: asyncio.Task[None] | None = None
    lost: bool = False
    ended: bool = False
    progress: int = 0


class WorkLoop:
    """Claims, runs and stores until :meth:`stop`; then drains."""

    def __init__(self, settings: Settings, database: Database, handler: Handler, worker_id: str) -> None:
        self._settings = settings
        self._database = database
        self._handler = handler
        self._worker_id = worker_id
        self._policy = RetryPolicy(settings.retry_backoff_ms / 1000)
        self._running: dict[Fence, _Running] = {}
        self._executing = 0
        self._progressed: dict[Fence, int] = {}
        self._outcomes = OutcomeWriter(database, worker_id)
        self._retention = upkeep.Retention(settings)
        self._wake = asyncio.Event()
        self._work_may_wait = True
        self._next_sweep = 0.0
        self._stopping = False
        self._hurry = asyncio.Event()
        self._first_responder = True
        self._called_all = False
        self._claim_uncertain = False
        self.listener = Listener(settings, database, self._announced, self._cancelled)

    def stop(self) -> None:
        """Claim no more and let running jobs end within the drain's deadline. A second call gives them back now."""
        if self._stopping:
            self._hurry.set()
        self._stopping = True
        self._wake.set()

    async def run(self) -> int:
        """Work until stopped; return how many jobs were given back."""
        keeper = LeaseKeeper(
            self._settings, self._worker_id, self._running, self._lost, lambda: self.listener.listening
        )
        async with keeper, asyncio.TaskGroup() as beside:
            tasks = [beside.create_task(run()) for run in (self.listener.run, self._report_progress, self._purge)]
            while not self._stopping:
                await self._turn()
            released = await self._drain()
            for task in tasks:
                task.cancel()
        await self._leave()
        return released

    # Claiming

    def _announced(self, payload: str) -> None:
        if payload == store.TO_ALL or self._first_responder:
            self._work_may_wait = True
        else:
            # The first responder has it. Should that one be gone, nobody waits for the whole poll interval.
            soon = asyncio.get_running_loop().time() + random.uniform(0.25, 1.0)  # noqa: S311
            self._next_sweep = min(self._next_sweep, soon)
        self._wake.set()

    async def _turn(self) -> None:
        """One step: sweep when it is time, claim when there is room and reason, else sleep until either."""
        now = asyncio.get_running_loop().time()
        try:
            if now >= self._next_sweep:
                await self._sweep(now)
            slots = self._free_slots()
            if slots and self._work_may_wait:
                await self._claim(slots)
                return
        except (IidqError, psycopg.Error) as error:
            await self._pause_after(error)
            return
        self._wake.clear()
        if self._stopping or (self._work_may_wait and self._free_slots()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_sweep):
                await self._wake.wait()

    async def _sweep(self, now: float) -> None:
        # Jittered, so that workers that started together do not poll together; never more than one per interval.
        pause_seconds = self._settings.poll_interval_seconds * random.uniform(1.0, 1.25)  # noqa: S311
        self._next_sweep = now + pause_seconds
        seen = await upkeep.sweep(self._database, self._signs())
        self._first_responder = seen.first_responder
        if seen.next_event_seconds is not None:
            self._next_sweep = min(self._next_sweep, now + seen.next_event_seconds + 0.01)
        if max(seen.promoted, len(seen.expired)) >= upkeep.SWEEP_BATCH:
            # A full batch: more of the kind is due already, and no event will tell.
            self._next_sweep = now
        if seen.waiting or seen.promoted or seen.expired:
            self._work_may_wait = True

    def _signs(self) -> WorkerSigns:
        return WorkerSigns(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            concurrency=self._settings.worker_concurrency,
            running=len(self._running),
            listening=self.listener.listening,
            alive_seconds=3 * self._settings.poll_interval_seconds + _ALIVE_MARGIN_SECONDS,
        )

    def _free_slots(self) -> int:
        limit = self._settings.worker_concurrency
        # Outcomes on their way to the store hold no slot, but there may not be more of them than slots.
        return min(limit - self._executing, 2 * limit - len(self._running), _LARGEST_CLAIM)

    async def _claim(self, slots: int) -> None:
        self._work_may_wait = False
        try:
            if self._claim_uncertain:
                await self._release_unknown()
            async with self._database.connection() as connection:
                jobs = await store.claim(
                    connection,
                    worker_id=self._worker_id,
                    slots=slots,
                    lease_seconds=self._settings.job_lease_seconds,
                )
        except BaseException:
            self._work_may_wait = self._claim_uncertain = True
            raise
        for job in jobs:
            self._start(job)
        if len(jobs) == slots:
            self._work_may_wait = True
            if not self._free_slots() and self._first_responder and not self._called_all:
                # More than this worker can take: the others may come.
                self._called_all = True
                async with self._database.connection() as connection:
                    await store.announce(connection, store.TO_ALL)
        else:
            self._called_all = False

    async def _release_unknown(self) -> None:
        """A claim may have been committed although its answer never came."""
        async with self._database.connection() as connection:
            await store.release_unknown(connection, worker_id=self._worker_id, known=list(self._running))
        self._claim_uncertain = False

    async def _pause_after(self, error: IidqError | psycopg.Error) -> None:
        if not is_passing(error):
            raise error
        pause_seconds = random.uniform(0.2, 1.0)  # noqa: S311
        logs.database_lost("claim", error, pause_seconds)
        self._next_sweep = 0.0
        await asyncio.sleep(pause_seconds)

    # Running

    def _start(self, job: ClaimedJob) -> None:
        fence = (job.id, job.attempt)
        under_way = self._running.get(fence)
        if under_way is not None and not under_way.ended and not under_way.lost:
            # A crash of the database undid this very claim, and we got it anew: the attempt that runs serves it.
            return
        running = self._running[fence] = _Running(job)
        self._executing += 1
        running.task = asyncio.create_task(self._run(running))

    async def _run(self, running: _Running) -> None:
        job = running.job
        fence = (job.id, job.attempt)

        def progress(percent: int) -> None:
            # 100 is the stored result's; a step out of range would spoil the report of all running jobs.
            running.progress = max(running.progress, min(percent, 99))
            self._progressed[fence] = running.progress

        logs.attempt_started(job.id, job.attempt, job.type)
        try:
            try:
                outcome = await run_attempt(
                    job,
                    self._handler,
                    progress,
                    policy=self._policy,
                    timeout_seconds=self._settings.job_timeout_seconds,
                )
            except asyncio.CancelledError:
                if running.lost:
                    return
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
                outcome = Outcome.released(job)
            finally:
                running.ended = True
                self._executing -= 1
                self._progressed.pop(fence, None)
                self._wake.set()
            if await self._outcomes.store(outcome):
                logs.attempt_ended(job.id, job.attempt, outcome.status)
                self._expect_retry(outcome)
            else:
                logs.lease_lost(job.id, job.attempt)
        finally:
            if self._running.get(fence) is running:
                del self._running[fence]
            self._wake.set()

    def _expect_retry(self, outcome: Outcome) -> None:
        if outcome.status is JobStatus.QUEUED:
            due = asyncio.get_running_loop().time() + (outcome.delay_seconds or 0.0)
            self._next_sweep = min(self._next_sweep, due + 0.01)
            self._wake.set()

    def _cancelled(self, job_id: UUID) -> None:
        self._interrupt({fence for fence in self._running if fence[0] == job_id}, logs.attempt_cancelled)

    def _lost(self, fences: set[Fence]) -> None:
        self._interrupt(fences, logs.lease_lost)

    def _interrupt(self, fences: set[Fence], log: Callable[[UUID, int], None]) -> None:
        for fence in fences:
            running = self._running.get(fence)
            if running is not None and running.task is not None and not running.ended:
                log(*fence)
                running.lost = True
                running.task.cancel()

    # Reporting

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL_SECONDS)
            if not self._progressed:
                continue
            progressed = list(self._progressed.items())
            self._progressed.clear()
            # Progress is for onlookers: what cannot be written now is overtaken by the next.
            with contextlib.suppress(IidqError, psycopg.Error):
                async with self._database.connection() as connection:
                    await store.report_progress(connection, progressed, worker_id=self._worker_id)

    async def _purge(self) -> None:
        pause_seconds = self._settings.poll_interval_seconds
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                pause_seconds = await self._retention.purge(self._database)
            except (IidqError, psycopg.Error) as error:
                pause_seconds = self._settings.poll_interval_seconds
                logs.database_lost("retention", error, pause_seconds)

    # Stopping

    async def _drain(self) -> int:
        deadline_seconds = self._settings.drain_timeout_seconds
        logs.worker_draining(len(self._running), deadline_seconds)
        running = [each for each in self._running.values() if each.task is not None]
        all_ended = asyncio.gather(*(each.task for each in running if each.task), return_exceptions=True)
        hurry = asyncio.create_task(self._hurry.wait())
        waiting: list[asyncio.Future[Any]] = [hurry, all_ended]
        await asyncio.wait(waiting, timeout=deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        given_back = [each.task for each in running if each.task and not each.ended]
        for task in given_back:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_SECONDS):
                await all_ended
        self._outcomes.abandon()
        return len(given_back)

    async def _leave(self) -> None:
        # Who cannot say goodbye is missed after three polls.
        with contextlib.suppress(IidqError, psycopg.Error):
            async with self._database.connection() as connection:
                await store.leave(connection, self._worker_id)
                await store.announce(connection, store.TO_ALL)


@asynccontextmanager
async def open_work_loop(settings: Settings, handler: Handler, worker_id: str) -> AsyncIterator[WorkLoop]:
    """A :class:`WorkLoop` with a pool of its own: one connection each to claim, store, and report or purge."""
    # A queue's statistics are always late: analyzed while it was empty, each claim would sort the whole burst.
    async with open_database(settings, pool_size=3, sorts=False) as database:
        yield WorkLoop(settings, database, handler, worker_id)
