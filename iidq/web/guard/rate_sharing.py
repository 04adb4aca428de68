"""API processes tell each other whom they admitted, so that a limit holds for all of them together.

Requests never wait for that: each process decides by what it knows, and every ``EXCHANGE_SECONDS`` one small statement
adds its new counts to the shared ones and reads these clients' totals. A process without new counts sends nothing.
What one process admitted is known to another, once that has asked, after at most two exchanges; so several processes
together admit at most the limit and what arrives during two exchanges (and each alone never more than the limit).
While the shared counts are out of reach, each process goes on by its own.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.faults import Faults
from iidq.database.pool import Database
from iidq.database.queries import load_queries
from iidq.database.steady import try_step
from iidq.web.guard.rate_limits import STEP_SECONDS, STEPS, Addition, RateLimits, SlidingWindow

QUERIES = load_queries("iidq.web.guard")

EXCHANGE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0
_LARGEST_EXCHANGE: Final = 1000
_PURGE_SECONDS: Final = 30.0
_PURGE_BATCH: Final = 10_000
# Clocks of API hosts may differ by so much before a count is removed that somebody still needs.
_KEPT_STEPS: Final = 2 * STEPS


class KeyedCount(NamedTuple):
    """Requests under one key in one step; keys are digests, so no address is stored."""

    key: bytes
    step: int
    requests: int


class SharedCounts(Protocol):
    """Counts that all API processes add to. All methods raise :class:`IidqError` while they are out of reach."""

    async def add(self, additions: Sequence[KeyedCount], *, since_step: int) -> tuple[list[KeyedCount], float | None]:
        """Add, and return the totals of these keys from ``since_step`` on, and the shared clock where it was told.

        The clock is in seconds since 1970.
        """

    async def purge(self, *, before_step: int) -> None:
        """Forget older counts."""


class PostgresCounts:
    """:class:`SharedCounts` in the table iidq_rate_count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, additions: Sequence[KeyedCount], *, since_step: int) -> tuple[list[KeyedCount], float | None]:
        """One statement; sent once, as its repetition would count twice."""
        parameters = {
            "keys": [addition.key for addition in additions],
            "steps": [addition.step for addition in additions],
            "requests": [addition.requests for addition in additions],
            "since_step": since_step,
        }
        async with self._database.connection() as connection:
            rows = await (await connection.execute(QUERIES["share_rates"], parameters)).fetchall()
        totals: dict[tuple[bytes, int], int] = {}
        for key, step, count, _ in rows:
            totals[key, step] = max(count, totals.get((key, step), 0))
        now = next((time_told for *_, time_told in rows if time_told is not None), None)
        return [KeyedCount(key, step, count) for (key, step), count in totals.items()], now

    async def purge(self, *, before_step: int) -> None:
        """In bounded batches, until none is left."""
        removed = _PURGE_BATCH
        while removed == _PURGE_BATCH:
            async with self._database.connection() as connection:
                parameters = {"before_step": before_step, "batch": _PURGE_BATCH}
                removed = (await connection.execute(QUERIES["purge_rates"], parameters)).rowcount


class SharedClock:
    """Seconds since 1970 by the clock that all processes share, as far as this one was told."""

    def __init__(self) -> None:
        self._ahead_seconds = time.time() - time.monotonic()

    def now(self) -> float:
        """The present time; runs on steadily between two settings."""
        return time.monotonic() + self._ahead_seconds

    def set(self, now: float) -> None:
        """The shared clock says so."""
        self._ahead_seconds = now - time.monotonic()


class RateSharing:
    """Exchanges the counts of ``limits`` with the other processes."""

    def __init__(self, limits: RateLimits, clock: SharedClock, shared: SharedCounts, faults: Faults) -> None:
        self._faults = faults
        self._limits = limits
        self._clock = clock
        self._shared = shared
        self._next_purge = 0.0

    async def run(self) -> None:
        """Exchange until cancelled; more and more rarely while the shared counts are out of reach."""
        pause_seconds = EXCHANGE_SECONDS
        while True:
            await asyncio.sleep(pause_seconds * random.uniform(0.8, 1.0))  # noqa: S311
            longer_seconds = min(_LONGEST_PAUSE_SECONDS, 2 * pause_seconds)
            failed = await try_step(self._faults, "rate limits", self.exchange(), longer_seconds)
            pause_seconds = longer_seconds if failed else EXCHANGE_SECONDS

    async def exchange(self) -> None:
        """Tell what is new and learn of these clients what others told; raises what ``SharedCounts`` raises."""
        told = False
        for kind, window in self._limits.windows.items():
            # What comes in meanwhile is for the next time.
            for _ in range(math.ceil(window.untold_clients / _LARGEST_EXCHANGE)):
                additions = window.take_untold(_LARGEST_EXCHANGE)
                told = True
                try:
                    await self._exchange(kind, window, additions)
                except BaseException:
                    window.give_back(additions)
                    raise
        if told and time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + _PURGE_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
            await self._shared.purge(before_step=self._present_step() - _KEPT_STEPS)

    async def _exchange(self, kind: str, window: SlidingWindow, additions: Sequence[Addition]) -> None:
        clients = {_key(kind, addition.client): addition.client for addition in additions}
        totals, now = await self._shared.add(
            [KeyedCount(_key(kind, client), step, requests) for client, step, requests in additions],
            since_step=self._present_step() - STEPS,
        )
        if now is not None:
            self._clock.set(now)
        counts: dict[str, dict[int, int]] = {}
        for key, step, requests in totals:
            counts.setdefault(clients[key], {})[step] = requests
        for client, by_step in counts.items():
            window.learn(client, by_step)

    def _present_step(self) -> int:
        return int(self._clock.now() // STEP_SECONDS)


def _key(kind: str, client: str) -> bytes:
    return blake2b(f"{kind} {client}".encode(), digest_size=16).digest()


@contextlib.asynccontextmanager
async def sharing(
    limits: RateLimits, clock: SharedClock, shared: SharedCounts, database: Database
) -> AsyncIterator[None]:
    """Exchange counts for as long as the block lasts, if there is any limit."""
    if not limits.enforced:
        yield
        return
    task = keep_running(RateSharing(limits, clock, shared, database.faults).run, "rate sharing")
    try:
        yield
    finally:
        await end_tasks([task])
