"""Watching jobs: many watchers share a listening connection and a statement at a time.

1. The hub calls the workers ("iidq_watching"), which then send ids of changed jobs (:class:`ChangeAnnouncer`).
2. The hub loads the watched jobs among the ids in a single statement; unchanged rows stay in the database.
3. The hub also polls all watched jobs, a thousand per statement: every second, or every five while a hint bus
   delivers. Changes in psql and behind a transaction pooler are seen too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import islice
from uuid import UUID

import psycopg

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.pool import Database
from iidq.database.steady import wait_at_most
from iidq.errors import IidqError, TooManyWatchers
from iidq.observability import logs
from iidq.queue.job import Job, JobStatus
from iidq.queue.notify import channels
from iidq.queue.notify.announcer import WATCHED_SECONDS
from iidq.queue.notify.hint_bus import NO_HINT_BUS, PROGRESS_CHANNEL, HintBus, read_progress
from iidq.queue.notify.listener import Listener
from iidq.queue.read import readers
from iidq.queue.row_faults import each_apart
from iidq.settings import Settings

POLL_SECONDS = 1.0
"""How late a change without a notification is seen."""
_POLL_WITH_HINT_BUS_SECONDS = 5.0
_LARGEST_POLL = 1000
# Repeated for workers that started after the last call.
_CALL_SECONDS = WATCHED_SECONDS / 3
# How long the connection is kept without watchers, for requests that come one after the other.
_LINGER_SECONDS = WATCHED_SECONDS
_RETRY_AFTER_SECONDS = 5.0


class LiveProgress:
    """Unstored steps of running jobs, applied to the rows last read, by id as text.

    A step changes only the progress of the same attempt, and only forwards; states come from the database alone.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Job] = {}
        self._steps: dict[str, tuple[int, int]] = {}

    def step(self, key: str, attempt: int, percent: int) -> Job | None:
        """Note a step of the attempt; return the changed job, or None if the step changes nothing."""
        known = self._steps.get(key)
        if known is None or (attempt, percent) > known:
            self._steps[key] = (attempt, percent)
        row = self._rows.get(key)
        if row is None:
            return None
        latest = self._with_step(key, row)
        if latest is row:
            return None
        self._rows[key] = latest
        return latest

    def lacks(self, key: str, attempt: int) -> bool:
        """Return whether the known row is older than this attempt."""
        row = self._rows.get(key)
        return row is None or row.attempt < attempt

    def seen(self, key: str, row: Job) -> Job:
        """Note a row as read; return it with the latest step."""
        latest = self._rows[key] = self._with_step(key, row)
        return latest

    def forget(self, key: str) -> None:
        """Drop the job after its last watcher left."""
        self._rows.pop(key, None)
        self._steps.pop(key, None)

    def _with_step(self, key: str, row: Job) -> Job:
        attempt, percent = self._steps.get(key, (0, 0))
        if row.status is JobStatus.PROCESSING and row.attempt == attempt and percent > row.progress:
            return replace(row, progress=percent)
        return row


class Watch:
    """A watcher's view of a job: always the newest state, never a queue of old states."""

    def __init__(self) -> None:
        self.version = ""
        """Version of the row last seen; empty before the first."""
        self.gone = False
        """Whether the job does not exist, or no longer."""
        self._latest: Job | None = None
        self._over = False
        self._news = asyncio.Event()

    async def next(self) -> Job | None:
        """Wait for a state not returned before, at first the present state.

        Return None at the end: the watch was ended, or the row is ``gone``.
        """
        await self._news.wait()
        job, self._latest = self._latest, None
        if not self._over:
            self._news.clear()
        return job

    def end(self) -> None:
        """Let ``next`` return."""
        self._over = True
        self._news.set()

    def update(self, version: str | None, job: Job | None) -> None:
        """Pass on the row's version and state; both are None if the row is gone."""
        if version is None:
            self.gone = True
            self.end()
        elif version != self.version:
            self.version, self._latest = version, job
            self._news.set()

    def update_progress(self, job: Job) -> None:
        """Pass on the known state with more progress."""
        if self.version:
            self._latest = job
            self._news.set()


class WatchHub:
    """All watchers of a process; ``stopping`` ends the watches."""

    def __init__(
        self, settings: Settings, database: Database, stopping: asyncio.Event, hint_bus: HintBus = NO_HINT_BUS
    ) -> None:
        self._database = database
        self._hint_bus = hint_bus
        self._stopping = stopping
        self._most_watchers = settings.max_watchers
        self._listener = Listener(
            settings, database, {channels.CHANGED_CHANNEL: self._changed}, connected=self._poll_all
        )
        # By id as text, the form in notifications.
        self._watches: dict[str, set[Watch]] = {}
        self._live = LiveProgress()
        self._watchers = 0
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._polled_at = 0.0
        self._next_call = 0.0
        self._listen_until = 0.0

    @property
    def watchers(self) -> int:
        """Number of watchers at present."""
        return self._watchers

    @contextmanager
    def watch(self, job_id: UUID) -> Iterator[Watch]:
        """Watch a job within the block. Raise :class:`TooManyWatchers` beyond ``MAX_WATCHERS``."""
        if self._watchers >= self._most_watchers:
            raise TooManyWatchers("too many clients watch jobs here", retry_after_seconds=_RETRY_AFTER_SECONDS)
        key, watch = str(job_id), Watch()
        self._watchers += 1
        self._watches.setdefault(key, set()).add(watch)
        self._due.add(key)
        self._wake.set()
        if self._stopping.is_set():
            watch.end()
        try:
            yield watch
        finally:
            self._watchers -= 1
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]
                self._live.forget(key)

    def expect(self) -> None:
        """Open the connection early, because a watcher is about to come."""
        self._listen_until = time.monotonic() + _LINGER_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Serve the watchers until cancelled."""
        listening: asyncio.Task[None] | None = None
        ending = keep_running(self._end_all, "ends of watches")
        heard = {channels.CHANGED_CHANNEL: self._changed, PROGRESS_CHANNEL: self._progressed}
        receiving = keep_running(lambda: self._hint_bus.run(heard, self._poll_all), "relay")
        try:
            while True:
                self._wake.clear()
                now = time.monotonic()
                if self._watches:
                    self._listen_until = now + _LINGER_SECONDS
                    if now >= self._polled_at + self._poll_seconds():
                        self._poll_all()
                        self._polled_at = now
                if now < self._listen_until:
                    listening = listening or keep_running(self._listener.run, "listener")
                elif listening is not None:
                    await end_tasks([listening])
                    listening = None
                if await self._serve(now):
                    continue
                await wait_at_most(self._wake, self._idle_seconds(now, listening is not None))
        finally:
            await end_tasks([ending, receiving, *([listening] if listening else [])])

    async def _serve(self, now: float) -> bool:
        """Call the workers or read due jobs, if either is due; return whether more may be due at once."""
        try:
            if now < self._listen_until and now >= self._next_call:
                await self._call_workers(now)
                return True
            if self._due:
                await self._read_due()
                return True
        except (IidqError, psycopg.Error) as error:
            self._database.faults.failed("watched jobs", error, POLL_SECONDS)
            await asyncio.sleep(POLL_SECONDS)
            return True
        return False

    async def _call_workers(self, now: float) -> None:
        self._next_call = now + _CALL_SECONDS
        self._hint_bus.publish(channels.WATCHING_CHANNEL, "")
        await self._database.run(channels.announce_watching)

    def _poll_seconds(self) -> float:
        return _POLL_WITH_HINT_BUS_SECONDS if self._hint_bus.is_subscribed(channels.CHANGED_CHANNEL) else POLL_SECONDS

    def _idle_seconds(self, now: float, listening: bool) -> float | None:
        if self._watches:
            # Bounded, because the hint bus may fall silent.
            event = min(self._polled_at + self._poll_seconds(), self._next_call, now + POLL_SECONDS)
            return max(0.0, event - now)
        return max(0.0, self._listen_until - now) if listening else None

    def _changed(self, payload: str) -> None:
        named = self._watches.keys() & set(payload.split(","))
        if named:
            self._due |= named
            self._wake.set()

    def _progressed(self, payload: str) -> None:
        step = read_progress(payload)
        if step is None or step[0] not in self._watches:
            return
        key, attempt, percent = step
        job = self._live.step(key, attempt, percent)
        if job is not None:
            for watch in self._watches[key]:
                watch.update_progress(job)
        elif self._live.lacks(key, attempt):
            # The job was claimed after the row was read.
            self._due.add(key)
            self._wake.set()

    def _poll_all(self) -> None:
        self._due.update(self._watches)
        self._wake.set()

    async def _read_due(self) -> None:
        batch = list(islice(self._due, _LARGEST_POLL))
        # Before the statement is sent, so that jobs named from now on are read once more.
        self._due.difference_update(batch)
        watches = {key: tuple(self._watches[key]) for key in batch if key in self._watches}
        seen = {key: _seen(watching) for key, watching in watches.items()}
        if not seen:
            return
        changed: list[readers.Changed] = []

        async def find_changed(keys: Sequence[str]) -> None:
            some = {key: seen[key] for key in keys}
            changed.extend(await self._database.run(lambda connection: readers.find_changed(connection, some)))

        async def refuse(key: str, error: Exception) -> None:
            logs.row_refused("watching", key, error)
            for watch in watches[key]:
                watch.end()

        try:
            await each_apart(list(seen), find_changed, refuse)
        except BaseException:
            self._due.update(seen)
            raise
        # Only a read ends the fault: calls to workers may succeed while reads fail.
        self._database.faults.succeeded("watched jobs")
        for key, version, row in changed:
            job = row and self._live.seen(key, row)
            for watch in watches[key]:
                watch.update(version, job)

    async def _end_all(self) -> None:
        await self._stopping.wait()
        for watching in self._watches.values():
            for watch in watching:
                watch.end()


def _seen(watching: tuple[Watch, ...]) -> str:
    """Return the version common to all watches, or an empty text."""
    versions = {watch.version for watch in watching}
    return versions.pop() if len(versions) == 1 else ""


@asynccontextmanager
async def open_watch_hub(
    settings: Settings, database: Database, stopping: asyncio.Event, hint_bus: HintBus = NO_HINT_BUS
) -> AsyncIterator[WatchHub]:
    """Run a :class:`WatchHub`; without watchers it does nothing and holds no connection."""
    hub = WatchHub(settings, database, stopping, hint_bus)
    running = keep_running(hub.run, "watching")
    try:
        yield hub
    finally:
        await end_tasks([running])
