"""A worker's loop: one claim fills free slots and the next ones, woken by NOTIFY, the poll, or the next due time.

Four things run beside each other: this loop, the attempts, the lease keeper's thread, and the listener. They meet
in ``Attempts.held``: every job between its claim and the moment its outcome is stored.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import psycopg

from iidq import __version__
from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.faults import Faults
from iidq.database.obstacles import find_obstacles
from iidq.database.pool import Database, answered_within, connect, is_passing, open_database, our_settings
from iidq.errors import DatabaseRefusal, IidqError
from iidq.observability import logs, metrics
from iidq.queue import row_faults, store, upkeep
from iidq.queue.identifiers import parse_job_id
from iidq.queue.notify import channels
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.notify.hint_bus import NO_HINT_BUS, HintBus
from iidq.queue.notify.listener import Listener
from iidq.queue.processing.attempts import Attempts
from iidq.queue.processing.call_to_others import CallToOthers
from iidq.queue.processing.claim_ahead import ClaimAhead
from iidq.queue.processing.claim_span import ClaimSpan
from iidq.queue.processing.execution import Handler
from iidq.queue.processing.leases import LeaseKeeper
from iidq.queue.store import WorkerSigns
from iidq.settings import Settings

_LARGEST_CLAIM = 250
# Beside three missed polls: how long the sweep of a live worker may take on a crowded machine.
_ALIVE_MARGIN_SECONDS = 5.0

# How long a count of all jobs may take: some 100 million of them.
_COUNT_SECONDS = 3600.0
# How often a worker asks the catalogs for policies that hide rows from it.
_POLLS_BETWEEN_LOOKS = 20


def _nothing_to_do() -> None:
    """The drain needs no preparation."""


def _nobody_calls_back() -> None:
    """Webhooks are off."""


class WorkLoop:
    """Claims, runs and stores until :meth:`stop`; then drains."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        handler: Handler,
        worker_id: str,
        callback_due: Callable[[], None] = _nobody_calls_back,
        relay: HintBus = NO_HINT_BUS,
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker_id = worker_id
        self._retention = upkeep.Retention(settings)
        self._wake = asyncio.Event()
        self._uncounted = asyncio.Event()
        self._work_may_wait = True
        self._next_sweep = self._next_claim = 0.0
        self._stopping = False
        self.crashed = False
        """Whether the loop ended by an error that nobody foresaw."""
        self._hurry = asyncio.Event()
        self._call = CallToOthers()
        self._claim_uncertain = False
        self._span = ClaimSpan()
        self._ahead = ClaimAhead(settings.worker_concurrency)
        self._relay = relay
        self._changes = ChangeAnnouncer(database, relay)
        self._attempts = Attempts(
            settings,
            database,
            handler,
            worker_id,
            changes=self._changes,
            ahead=self._ahead,
            freed=self._wake.set,
            back_in_line=self._back_in_line,
            callback_due=callback_due,
        )
        heard: dict[str, Callable[[str], None]] = {
            channels.JOBS_CHANNEL: self._announced,
            channels.CANCELLED_CHANNEL: self._cancelled,
            channels.WATCHING_CHANNEL: self._changes.watched,
        }
        self.listener = Listener(settings, database, heard, lambda: self._announced(channels.WAKE_ALL))
        # A cancellation is worth believing only from Postgres.
        self._relayed: dict[str, Callable[[str], None]] = {
            channels.JOBS_CHANNEL: self._relayed_work,
            channels.WATCHING_CHANNEL: self._changes.watched,
        }

    def stop(self) -> None:
        """Claim no more and let running jobs end within the drain's deadline. A second call gives them back now."""
        if self._stopping:
            self._hurry.set()
        self._stopping = True
        self._wake.set()

    async def run(self, draining: Callable[[], None] = _nothing_to_do) -> int:
        """Work until stopped; return how many jobs were given back. ``draining`` is called when the drain begins.

        An error that nobody foresaw stops the loop, too: it is logged, running jobs may end, and ``crashed`` is true.
        """
        attempts = self._attempts
        metrics.worker_starts(self._settings.worker_concurrency, lambda: attempts.executing)
        keeper = LeaseKeeper(
            self._settings,
            self._worker_id,
            attempts.held,
            attempts.lose,
            lambda: self.listener.listening,
            self._database.faults,
        )
        async with keeper:
            tasks = [
                keep_running(self.listener.run, "listener"),
                keep_running(self._changes.run, "changes"),
                keep_running(attempts.report_progress, "progress"),
                keep_running(self._purge, "retention"),
                keep_running(self._recount, "recount"),
                keep_running(self._look_for_policies, "policies"),
                keep_running(self._hear_relay, "relay"),
            ]
            try:
                await self._work()
                draining()
                logs.worker_draining(attempts.executing, self._settings.drain_timeout_seconds)
                tasks.append(keep_running(self._pass_on, "calls to others"))
                released = await attempts.drain(self._settings.drain_timeout_seconds, self._hurry)
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

    # Claiming

    def _announced(self, payload: str) -> None:
        if payload == channels.WAKE_ALL:
            self._span.widen()
            self._work_may_wait = True
        elif self._call.first_responder:
            self._work_may_wait = True
            if self._stopping or not self._room():
                self._call.want()
        else:
            # The first responder has it. Should that one be gone, nobody waits for the whole poll interval.
            self._sweep_in(random.uniform(0.25, 1.0))  # noqa: S311
        self._wake.set()

    async def _hear_relay(self) -> None:
        await self._relay.run(self._relayed, lambda: self._relayed_work(channels.WAKE_ALL))

    def _relayed_work(self, payload: str) -> None:
        # Whoever hears Postgres, too, would look for the same job twice.
        if not self.listener.listening:
            self._announced(payload)

    def _cancelled(self, payload: str) -> None:
        if job_id := parse_job_id(payload):
            self._attempts.cancel(job_id)

    def _sweep_in(self, seconds: float) -> None:
        # A little later than asked for: what is due must not be due in a moment.
        self._next_sweep = min(self._next_sweep, asyncio.get_running_loop().time() + seconds + 0.01)
        self._wake.set()

    def _back_in_line(self, seconds: float | None) -> None:
        if seconds is None:
            # Given back: there is no slot for it here.
            self._call.want()
        self._sweep_in(seconds or 0.0)

    async def _turn(self) -> None:
        """One step: sweep when it is time, claim when there is room and reason, else sleep until either.

        A sweep that fails keeps no job from being claimed, nor the other way round.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep and (pause_seconds := await self._failure("sweep", self._sweep(now))):
            self._next_sweep = now + pause_seconds
            # It would have said whether anything waits, and that this worker lives.
            self._work_may_wait = True
            if self._database.faults.for_operators():
                with contextlib.suppress(IidqError, psycopg.Error):
                    await self._database.run(lambda connection: store.say_alive(connection, self._signs()))
        if (call_at := self._call.due()) is not None and now >= call_at:
            await self._failure("call", self._call_others(now))
        if self._span.look_at is not None and now >= self._span.look_at:
            self._work_may_wait = True
        if now >= self._next_claim and (wanted := self._wanted()):
            if pause_seconds := await self._failure("claim", self._claim(wanted)):
                self._next_claim = now + pause_seconds
                # Whatever was announced meanwhile was not heard.
                self._next_sweep = min(self._next_sweep, self._next_claim)
            return
        self._wake.clear()
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_event()):
                await self._wake.wait()

    def _next_event(self) -> float:
        event = self._next_sweep
        if (call_at := self._call.due()) is not None:
            event = min(event, call_at)
        if self._span.look_at is not None and self._room():
            # After a claim that failed this time is past; the next claim looks at the whole line.
            event = min(event, max(self._span.look_at, self._next_claim))
        if self._wanted():
            event = min(event, self._next_claim)
        return event

    async def _failure(self, part: str, step: Awaitable[None]) -> float:
        """Take one step with the database. Return 0, or after a failure the seconds until it should be tried again."""
        try:
            await step
        except (IidqError, psycopg.Error) as error:
            # What does not pass by itself is tried as rarely as the queue is polled.
            longest_seconds = 1.0 if is_passing(error) else max(1.0, self._settings.poll_interval_seconds)
            pause_seconds = longest_seconds * random.uniform(0.2, 1.0)  # noqa: S311
            self._database.faults.stands(part, error, pause_seconds)
            return pause_seconds
        self._database.faults.over(part)
        return 0.0

    async def _sweep(self, now: float) -> None:
        # Jittered, so that workers that started together do not poll together; never more than one per interval.
        pause_seconds = self._settings.poll_interval_seconds * random.uniform(1.0, 1.25)  # noqa: S311
        self._next_sweep = now + pause_seconds
        seen = await upkeep.sweep(self._database, self._signs())
        self._call.first_responder = seen.first_responder
        if seen.uncounted:
            self._uncounted.set()
        if seen.next_event_seconds is not None:
            self._sweep_in(seen.next_event_seconds)
        if max(seen.promoted, len(seen.expired)) >= upkeep.SWEEP_BATCH:
            # A full batch: more of the kind is due already, and no event will tell.
            self._next_sweep = now
        if seen.waiting or seen.promoted or seen.expired:
            self._span.widen()
            self._work_may_wait = True

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

    def _room(self, ahead: int = 0) -> int:
        """How many jobs a claim may take: for the free slots, and ``ahead`` to stand by for the next ones."""
        limit = self._settings.worker_concurrency
        slots = limit + ahead - self._attempts.executing - self._attempts.standing_by
        # Outcomes on their way to the store hold no slot, but there may not be more of them than slots.
        return max(0, min(slots, 2 * limit - len(self._attempts.held), _LARGEST_CLAIM))

    def _wanted(self) -> int:
        return self._room(self._ahead.jobs(perf_counter())) if self._work_may_wait and not self._stopping else 0

    async def _claim(self, wanted: int) -> None:
        self._work_may_wait = False
        clock = asyncio.get_running_loop().time
        began = clock()
        looks_from = self._span.begin(began)
        try:
            if self._claim_uncertain:
                await self._release_unknown()
            claim = await row_faults.claim(
                self._database,
                worker_id=self._worker_id,
                slots=wanted,
                lease_seconds=self._settings.job_lease_seconds,
                from_order=looks_from,
            )
        except BaseException:
            self._work_may_wait = self._claim_uncertain = True
            self._span.widen()
            raise
        short = len(claim.jobs) < wanted
        self._span.end(began, clock(), looks_from, claim.reached, short=short)
        self._ahead.claimed(perf_counter(), short=short)
        self._attempts.start(claim.jobs)
        # Work that was announced meanwhile may be too late for this claim's snapshot.
        self._work_may_wait |= not short
        self._call.claimed(short=short, room=self._room() > 0)

    async def _call_others(self, now: float) -> None:
        self._call.sent(now)
        self._relay.publish(channels.JOBS_CHANNEL, channels.WAKE_ALL)
        async with self._database.connection() as connection:
            await channels.announce(connection, channels.WAKE_ALL)

    async def _pass_on(self) -> None:
        """While this worker drains, the others are told of what it has given back; until cancelled."""
        while True:
            self._wake.clear()
            if (call_at := self._call.due()) is not None:
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(call_at - now)
                with contextlib.suppress(IidqError, psycopg.Error):
                    await self._call_others(max(now, call_at))
            await self._wake.wait()

    async def _release_unknown(self) -> None:
        """A claim may have been committed although its answer never came."""
        async with self._database.connection() as connection:
            await store.release_unknown(connection, worker_id=self._worker_id, known=list(self._attempts.held))
        self._claim_uncertain = False

    async def _purge(self) -> None:
        pause_seconds = self._settings.poll_interval_seconds
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                pause_seconds = await self._retention.purge(self._database)
            except (IidqError, psycopg.Error) as error:
                pause_seconds = self._settings.poll_interval_seconds
                self._database.faults.stands("retention", error, pause_seconds)
            else:
                self._database.faults.over("retention")

    async def _recount(self) -> None:
        """Count all jobs when a sweep has found that to be due, apart from the sweeps and their deadline."""
        while True:
            await self._uncounted.wait()
            try:
                async with await connect(self._settings) as connection:
                    with answered_within(connection, _COUNT_SECONDS):
                        async with our_settings(connection):
                            await store.recount(connection)
            except (IidqError, psycopg.Error) as error:
                self._database.faults.stands("recount", error, self._settings.poll_interval_seconds)
            else:
                self._database.faults.over("recount")
            # A sweep that ran meanwhile found the same.
            self._uncounted.clear()

    async def _look_for_policies(self) -> None:
        """Tell operators of row-level security that may hide jobs: no statement fails because of it."""
        poll_seconds = self._settings.poll_interval_seconds
        while True:
            await asyncio.sleep(poll_seconds)
            with contextlib.suppress(IidqError, psycopg.Error):
                while obstacles := await self._database.run(lambda each: find_obstacles(each, "policy", "hidden")):
                    hidden = DatabaseRefusal("row-level security may hide rows from this worker")
                    for obstacle in obstacles:
                        hidden.add_note(obstacle)
                    self._database.faults.stands("policies", hidden, poll_seconds)
                    await asyncio.sleep(poll_seconds)
                self._database.faults.over("policies")
            await asyncio.sleep(_POLLS_BETWEEN_LOOKS * poll_seconds)

    async def _leave(self) -> None:
        # Who cannot say goodbye is missed after three polls.
        with contextlib.suppress(IidqError, psycopg.Error):
            async with self._database.connection() as connection:
                await store.leave(connection, self._worker_id)
                await channels.announce(connection, channels.WAKE_ALL)


@asynccontextmanager
async def open_work_loop(
    settings: Settings,
    handler: Handler,
    worker_id: str,
    callback_due: Callable[[], None] = _nobody_calls_back,
    relay: HintBus = NO_HINT_BUS,
    faults: Faults | None = None,
) -> AsyncIterator[WorkLoop]:
    """A :class:`WorkLoop` with a pool of its own: one connection each to claim, store, report or purge, and announce.

    ``callback_due`` is called when a job that names a callback has ended here and its outcome is stored.
    """
    # A queue's statistics are always late: analyzed while it was empty, each claim would sort the whole burst.
    async with open_database(settings, pool_size=4, sorts=False, faults=faults) as database:
        yield WorkLoop(settings, database, handler, worker_id, callback_due, relay)
