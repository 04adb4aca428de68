"""Watching jobs without polling: many watchers, one listening connection and one statement at a time.

The hub calls workers to tell of changes (``changes.py`` is their side), hears the ids, and loads those that are
watched, all that came up meanwhile in one statement. Once a second it looks at all watched jobs besides, a thousand per
statement, so that nothing depends on a notification: not behind a transaction pooler, and not for changes that somebody
makes in psql; while a relay brings the hints, every five seconds. Rows that are as they were stay in the database.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from uuid import UUID

from iidq.concurrency.background import end_tasks, keep_running
from iidq.concurrency.steady import try_step, wait_at_most
from iidq.database.pool import Database
from iidq.errors import TooManyWatchers
from iidq.observability import logs
from iidq.queue.job import Job
from iidq.queue.notify import announcements
from iidq.queue.notify.changes import WATCHED_SECONDS
from iidq.queue.notify.hint_bus import NO_RELAY, PROGRESS_CHANNEL, Relay, read_progress
from iidq.queue.notify.listener import Listener
from iidq.queue.notify.live_progress import LiveProgress
from iidq.queue.read import readers
from iidq.queue.row_faults import each_apart
from iidq.settings import Settings

LOOK_SECONDS = 1.0
"""How late a change is seen of which no notification came."""
_RELAYED_LOOK_SECONDS = 5.0
_LARGEST_LOOK = 1000
# A worker that started meanwhile has not heard the last call.
_CALL_SECONDS = WATCHED_SECONDS / 3
# For the next watcher the connection is kept a while; one request after the other would open it anew each time.
_LINGER_SECONDS = WATCHED_SECONDS
_RETRY_AFTER_SECONDS = 5.0


class Watch:
    """One watcher's view of one job: always the newest state, never a queue of old ones."""

    def __init__(self) -> None:
        self.version = ""
        self.gone = False
        """There is no such job, or not any more."""
        self._latest: Job | None = None
        self._over = False
        self._news = asyncio.Event()

    async def next(self) -> Job | None:
        """Wait for a state that was not returned before, at first the present one.

        None: there will be no other, because the watch was ended or the row is ``gone``.
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

    def tell(self, version: str | None, job: Job | None) -> None:
        """The row's version and state; both None where it is gone."""
        if version is None:
            self.gone = True
            self.end()
        elif version != self.version:
            self.version, self._latest = version, job
            self._news.set()

    def tell_progress(self, job: Job) -> None:
        """The state that is known, further on."""
        if self.version:
            self._latest = job
            self._news.set()


class WatchHub:
    """All watchers of one process. ``stopping`` ends them."""

    def __init__(
        self, settings: Settings, database: Database, stopping: asyncio.Event, relay: Relay = NO_RELAY
    ) -> None:
        self._database = database
        self._relay = relay
        self._stopping = stopping
        self._most_watchers = settings.max_watchers
        self._listener = Listener(
            settings, database, {announcements.CHANGED_CHANNEL: self._changed}, connected=self._look_at_all
        )
        # By the id's text, as notifications name it.
        self._watches: dict[str, set[Watch]] = {}
        self._live = LiveProgress()
        self._watchers = 0
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._looked_at = 0.0
        self._next_call = 0.0
        self._listen_until = 0.0

    @property
    def watchers(self) -> int:
        """How many watch at present."""
        return self._watchers

    @contextmanager
    def watch(self, job_id: UUID) -> Iterator[Watch]:
        """Watch a job for as long as the block lasts; raises :class:`TooManyWatchers`."""
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
        """Somebody is about to watch: whatever is quicker when it begins early begins now."""
        self._listen_until = time.monotonic() + _LINGER_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Serve the watchers until cancelled."""
        listening: asyncio.Task[None] | None = None
        ending = keep_running(self._end_all, "ends of watches")
        heard = {announcements.CHANGED_CHANNEL: self._changed, PROGRESS_CHANNEL: self._progressed}
        relaying = keep_running(lambda: self._relay.run(heard, self._look_at_all), "relay")
        try:
            while True:
                self._wake.clear()
                now = time.monotonic()
                if self._watches:
                    self._listen_until = now + _LINGER_SECONDS
                    if now >= self._looked_at + self._look_seconds():
                        self._look_at_all()
                        self._looked_at = now
                if now < self._listen_until:
                    listening = listening or keep_running(self._listener.run, "listener")
                elif listening is not None:
                    await end_tasks([listening])
                    listening = None
                if await self._serve(now):
                    continue
                await wait_at_most(self._wake, self._idle_seconds(now, listening is not None))
        finally:
            await end_tasks([ending, relaying, *([listening] if listening else [])])

    async def _serve(self, now: float) -> bool:
        """One call to the workers or one look, where either is due; return whether there may be more to do at once."""
        if now < self._listen_until and now >= self._next_call:
            step = self._call_workers(now)
        elif self._due:
            step = self._look()
        else:
            return False
        await asyncio.sleep(await try_step(self._database.faults, "watched jobs", step, LOOK_SECONDS))
        return True

    async def _call_workers(self, now: float) -> None:
        self._next_call = now + _CALL_SECONDS
        self._relay.publish(announcements.WATCHING_CHANNEL, "")
        await self._database.run(announcements.announce_watching)

    def _look_seconds(self) -> float:
        return _RELAYED_LOOK_SECONDS if self._relay.hears(announcements.CHANGED_CHANNEL) else LOOK_SECONDS

    def _idle_seconds(self, now: float, listening: bool) -> float | None:
        if self._watches:
            # The relay may fall silent meanwhile.
            event = min(self._looked_at + self._look_seconds(), self._next_call, now + LOOK_SECONDS)
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
                watch.tell_progress(job)
        elif self._live.lacks(key, attempt):
            # Claimed since the row was last seen.
            self._due.add(key)
            self._wake.set()

    def _look_at_all(self) -> None:
        self._due.update(self._watches)
        self._wake.set()

    async def _look(self) -> None:
        batch = list(islice(self._due, _LARGEST_LOOK))
        # Before the statement is sent: what is named from now on must be looked at once more.
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
        for key, version, row in changed:
            job = row and self._live.seen(key, row)
            for watch in watches[key]:
                watch.tell(version, job)

    async def _end_all(self) -> None:
        await self._stopping.wait()
        for watching in self._watches.values():
            for watch in watching:
                watch.end()


def _seen(watching: tuple[Watch, ...]) -> str:
    """The version that all of them know, or none."""
    versions = {watch.version for watch in watching}
    return versions.pop() if len(versions) == 1 else ""


@asynccontextmanager
async def open_watch_hub(
    settings: Settings, database: Database, stopping: asyncio.Event, relay: Relay = NO_RELAY
) -> AsyncIterator[WatchHub]:
    """A :class:`WatchHub` at work; without watchers it does nothing and holds no connection."""
    hub = WatchHub(settings, database, stopping, relay)
    running = keep_running(hub.run, "watching")
    try:
        yield hub
    finally:
        await end_tasks([running])
