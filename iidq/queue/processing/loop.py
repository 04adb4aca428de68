"""The loop of a worker: sweep, claim for the free slots, wake other workers, sleep until an event.

  NOTIFY ─ Redis ─ poll ─ due time ─ free slot
                    │ wake
                    ▼
      ┌─▶ sweep ─▶ wake others ─▶ claim ─┐
      └──────────── sleep ◀──────────────┘──▶ attempts: started ▶ ran ▶ recorded ▶ reported
                                                 ▲
                     leases, in a separate thread: renewed, or lost

``claiming.py`` has the decisions, ``attempts.py`` the life of a claimed job, ``maintenance.py`` tasks in the
background. The parts share ``Attempts.held``: every job from the claim until the outcome is stored.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

from iidq import __version__
from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.faults import Faults
from iidq.database.pool import Database, open_database
from iidq.database.steady import try_step, wait_at_most
from iidq.errors import IidqError
from iidq.observability import logs, metrics
from iidq.queue import row_faults, store, upkeep
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import FINAL, ClaimedJob, JobStatus
from iidq.queue.notify import channels
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.notify.hint_bus import NO_HINT_BUS, HintBus
from iidq.queue.notify.listener import Listener
from iidq.queue.outcome import Outcome
from iidq.queue.processing.attempts import Attempts
from iidq.queue.processing.claiming import Schedule
from iidq.queue.processing.execution import Handler
from iidq.queue.processing.leases import LeaseKeeper
from iidq.queue.processing.maintenance import Maintenance
from iidq.queue.store import WorkerSigns
from iidq.settings import Settings

_LARGEST_CLAIM = 250
# Added to three missed polls: how long the sweep of a live worker may take on a crowded machine.
_ALIVE_MARGIN_SECONDS = 5.0
# The longest pause after a failed step, unless only an operator can help: then it is the poll interval.
_RETRY_SECONDS = 1.0


def _nothing() -> None:
    """Do nothing: the default of callbacks."""


class WorkLoop:
    """Claims, runs and stores until :meth:`stop`; then drains."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        handler: Handler,
        worker_id: str,
        callback_due: Callable[[], None] = _nothing,
        relay: HintBus = NO_HINT_BUS,
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker_id = worker_id
        self._callback_due = callback_due
        self._relay = relay
        self._schedule = Schedule()
        self._wake = asyncio.Event()
        self._stopping, self._hurry = False, asyncio.Event()
        self._claim_uncertain = False
        self.crashed = False
        """Whether an unexpected error has ended the loop."""
        self._maintenance = Maintenance(settings, database)
        self._changes = ChangeAnnouncer(database, relay)
        self._attempts = Attempts(
            settings,
            database,
            handler,
            worker_id,
            changes=self._changes,
            freed=self._wake.set,
            stored=self._stored,
        )
        heard: dict[str, Callable[[str], None]] = {
            channels.JOBS_CHANNEL: self._announced,
            channels.CANCELLED_CHANNEL: self._cancelled,
            channels.WATCHING_CHANNEL: self._changes.watched,
        }
        self.listener = Listener(settings, database, heard, lambda: self._announced(channels.WAKE_ALL))

    def stop(self) -> None:
        """Claim no more and let attempts end within the drain's deadline. A second call releases their jobs now."""
        if self._stopping:
            self._hurry.set()
        self._stopping = True
        self._wake.set()

    async def run(self, draining: Callable[[], None] = _nothing) -> int:
        """Work until stopped; return how many jobs were released. ``draining`` is called when the drain begins.

        An unexpected error stops the loop, too: the log has the error, attempts may end, and ``crashed`` is true.
        """
        attempts, settings = self._attempts, self._settings
        metrics.worker_starts(settings.worker_concurrency, lambda: attempts.executing)
        async with LeaseKeeper(
            settings,
            self._worker_id,
            attempts.held,
            attempts.lose,
            lambda: self.listener.listening,
            self._database.faults,
        ):
            tasks = [
                keep_running(self.listener.run, "listener"),
                keep_running(self._changes.run, "changes"),
                keep_running(attempts.progress.run, "progress"),
                keep_running(self._hear_relay, "relay"),
                *self._maintenance.begin(),
            ]
            try:
                await self._work()
                draining()
                logs.worker_draining(attempts.executing, settings.drain_timeout_seconds)
                tasks.append(keep_running(self._wake_others_during_drain, "calls to others"))
                released = await attempts.drain(settings.drain_timeout_seconds, self._hurry)
            finally:
                await end_tasks(tasks)
        await self._leave()
        return released

    async def _work(self) -> None:
        try:
            while not self._stopping:
                await self._turn()
        except Exception as error:
            logs.background_crashed("work loop", error)
            self.crashed = self._stopping = True

    # Events that wake the loop

    def _announced(self, payload: str) -> None:
        """Handle a notification of new jobs, for one worker or for all."""
        schedule = self._schedule
        if payload == channels.WAKE_ALL:
            schedule.scan_all()
        elif schedule.others.designated:
            schedule.work_may_wait = True
            if self._stopping or not self._room():
                schedule.others.request()
        else:
            # The designated worker answers. In case it is gone, sweep long before the next poll.
            schedule.sweep_by(_now() + random.uniform(0.25, 1.0))  # noqa: S311
        self._wake.set()

    async def _hear_relay(self) -> None:
        # Cancellations are believed only from Postgres.
        heard: dict[str, Callable[[str], None]] = {
            channels.JOBS_CHANNEL: self._relayed,
            channels.WATCHING_CHANNEL: self._changes.watched,
        }
        await self._relay.run(heard, lambda: self._relayed(channels.WAKE_ALL))

    def _relayed(self, payload: str) -> None:
        # While Postgres' notifications come through, this would be a second search for the same job.
        if not self.listener.listening:
            self._announced(payload)

    def _cancelled(self, payload: str) -> None:
        if job_id := parse_job_id(payload):
            self._attempts.cancel(job_id)

    def _stored(self, job: ClaimedJob, outcome: Outcome) -> None:
        """Pass on a committed outcome: to watchers, to webhooks, and to the schedule if the job is queued again."""
        self._changes.changed(job.id)
        if job.has_callback and outcome.status in FINAL:
            self._callback_due()
        if outcome.status is JobStatus.QUEUED:
            if outcome.delay_seconds is None:
                # Released: there is no slot for it here.
                self._schedule.others.request()
            self._schedule.sweep_by(_now() + (outcome.delay_seconds or 0.0))
            self._wake.set()

    # One turn

    async def _turn(self) -> None:
        """Take all due steps, then sleep, unless a claim may find more. A failed step stops no other step."""
        now, schedule = _now(), self._schedule
        if now >= schedule.next_sweep:
            await self._try_sweep(now)
        if (wake_at := schedule.others.due_at()) is not None and now >= wake_at:
            await self._try("call", self._wake_others(now))
        if schedule.claim_due(now) and (slots := self._room()) and not self._stopping:
            if pause_seconds := await self._try("claim", self._claim(slots)):
                schedule.claim_failed(now + pause_seconds)
            return
        self._wake.clear()
        if not self._stopping:
            await wait_at_most(self._wake, schedule.next_event(room=self._room() > 0) - _now())

    async def _try(self, part: str, step: Awaitable[None]) -> float:
        """Take a step with the database. Return 0, or after a failure the seconds until the next try."""
        return await try_step(self._database.faults, part, step, _RETRY_SECONDS, self._settings.poll_interval_seconds)

    async def _try_sweep(self, now: float) -> None:
        if pause_seconds := await self._try("sweep", self._sweep(now)):
            self._schedule.next_sweep = now + pause_seconds
            # Only a sweep finds out whether jobs wait, so a claim has to try.
            self._schedule.work_may_wait = True
            if self._database.faults.for_operators():
                # A sweep also reports this worker as alive.
                with contextlib.suppress(IidqError, psycopg.Error):
                    await self._database.run(lambda connection: store.say_alive(connection, self._signs()))

    async def _sweep(self, now: float) -> None:
        schedule = self._schedule
        # At most one poll per interval, with jitter, so that workers started together do not poll together.
        schedule.next_sweep = now + self._settings.poll_interval_seconds * random.uniform(1.0, 1.25)  # noqa: S311
        seen = await upkeep.sweep(self._database, self._signs())
        schedule.others.designated = seen.first_responder
        if seen.uncounted:
            self._maintenance.uncounted.set()
        if seen.next_event_seconds is not None:
            schedule.sweep_by(_now() + seen.next_event_seconds)
        if max(seen.promoted, len(seen.expired)) >= upkeep.SWEEP_BATCH:
            # A full batch: more rows are due, without a further event.
            schedule.next_sweep = now
        if seen.waiting or seen.promoted or seen.expired:
            schedule.scan_all()

    def _signs(self) -> WorkerSigns:
        return WorkerSigns(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            concurrency=self._settings.worker_concurrency,
            running=self._attempts.executing,
            listening=self.listener.listening or self._relay.is_subscribed(channels.JOBS_CHANNEL),
            alive_seconds=3 * self._settings.poll_interval_seconds + _ALIVE_MARGIN_SECONDS,
            faults=self._database.faults.for_operators(),
        )

    def _room(self) -> int:
        """Return how many jobs a claim may take: the free slots, within the bound of outcomes not stored yet."""
        slots, attempts = self._settings.worker_concurrency, self._attempts
        # An outcome on its way to the store holds no slot, but there may be at most as many of these as slots.
        return max(0, min(slots - attempts.executing, 2 * slots - len(attempts.held), _LARGEST_CLAIM))

    async def _claim(self, slots: int) -> None:
        schedule, began = self._schedule, _now()
        schedule.work_may_wait = False
        start = schedule.cursor.start(began)
        try:
            if self._claim_uncertain:
                await self._release_unknown()
            claim = await row_faults.claim(
                self._database,
                worker_id=self._worker_id,
                slots=slots,
                lease_seconds=self._settings.job_lease_seconds,
                from_order=start,
            )
        except BaseException:
            self._claim_uncertain = True
            schedule.scan_all()
            raise
        short = len(claim.jobs) < slots
        schedule.cursor.finish(began, _now(), start, claim.reached, short=short)
        self._attempts.start(claim.jobs)
        # An announcement during the claim has set it, too: that job may be too late for the claim's snapshot.
        schedule.work_may_wait |= not short
        schedule.others.claimed(short=short, room=self._room() > 0)

    async def _release_unknown(self) -> None:
        """Release jobs of an earlier claim that was committed although no answer came."""
        async with self._database.connection() as connection:
            await store.release_unknown(connection, worker_id=self._worker_id, known=list(self._attempts.held))
        self._claim_uncertain = False

    async def _wake_others(self, now: float) -> None:
        self._schedule.others.sent(now)
        self._relay.publish(channels.JOBS_CHANNEL, channels.WAKE_ALL)
        async with self._database.connection() as connection:
            await channels.announce(connection, channels.WAKE_ALL)

    # The end

    async def _wake_others_during_drain(self) -> None:
        """Wake the others for released jobs, until cancelled."""
        while True:
            self._wake.clear()
            if (wake_at := self._schedule.others.due_at()) is not None:
                now = _now()
                await asyncio.sleep(wake_at - now)
                with contextlib.suppress(IidqError, psycopg.Error):
                    await self._wake_others(max(now, wake_at))
            await self._wake.wait()

    async def _leave(self) -> None:
        """Remove the worker from the list. After a failure the others drop the worker after three missed polls."""
        with contextlib.suppress(IidqError, psycopg.Error):
            async with self._database.connection() as connection:
                await store.leave(connection, self._worker_id)
                await channels.announce(connection, channels.WAKE_ALL)


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def open_work_loop(
    settings: Settings,
    handler: Handler,
    worker_id: str,
    callback_due: Callable[[], None] = _nothing,
    relay: HintBus = NO_HINT_BUS,
    faults: Faults | None = None,
) -> AsyncIterator[WorkLoop]:
    """Open a :class:`WorkLoop` with a separate pool: a connection each to claim, store, report or purge, announce.

    ``callback_due`` is called when the outcome of a job with a callback is stored.
    """
    # The statistics of a queue are always late: analyzed while it was empty, each claim would sort the whole burst.
    async with open_database(settings, pool_size=4, sorts=False, faults=faults) as database:
        yield WorkLoop(settings, database, handler, worker_id, callback_due, relay)
